"""report.html: the cohort on one page, in one file, that asks nothing of the network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gigaseg import __version__
from gigaseg.export.names import display_name
from gigaseg.files import atomic, read_failure, read_json
from gigaseg.measure.aggregate import read_cohort
from gigaseg.measure.measure import SUMMARY_FORMAT
from gigaseg.report.page import page
from gigaseg.report.pictures import embed
from gigaseg.report.runs import Costs, read_costs
from gigaseg.report.tables import Cell, Table, cell, duration, memory, number, table

log = logging.getLogger(__name__)


def report(
    cohort: Path,
    summaries: Sequence[Path],
    overviews: Sequence[Path],
    run_records: Sequence[Path],
    config: Mapping[str, Any],
    out: Path,
    *,
    title: str = "gigaseg report",
) -> None:
    """Write the report of a cohort: slides, failures, pictures, costs, configuration.

    Parameters
    ----------
    cohort : cohort.tsv; columns it does not know are shown as they are.
    summaries : summary.json of the slides; failure records are passed over, cohort.tsv has their reason.
    overviews : overview.png of the slides; a failure record is shown with its reason.
    run_records : run/*.json of the slides.
    config : what to show as configuration.
    out : report.html.
    title : its heading.

    Raises
    ------
    FormatError
        cohort.tsv or a summary is missing, partial or foreign.
    """
    rows = read_cohort(cohort)
    names = {row["slide"] for row in rows}
    found = [read_json(path, SUMMARY_FORMAT) for path in map(Path, summaries) if read_failure(path) is None]
    costs = read_costs([Path(path) for path in run_records])
    good = [row for row in rows if row["status"] == "ok"]
    failed = [row for row in rows if row["status"] != "ok"]
    text = page(
        "cohort.html.j2",
        title=title,
        tiles=_tiles(good, failed, costs),
        failed=table("Slides that failed, with the step and its reason", failed, ["slide", "step", "reason"]),
        slides=_slides(good, costs),
        prompts=_prompts(found),
        pictures=embed([Path(path) for path in overviews], names),
        costs=_costs(costs),
        machines=costs.machines,
        unread=costs.unread,
        means=table("Mean and median of each measurement by slide", good, ["slide", *_means(good)]),
        distributions=[_distribution(summary) for summary in found],
        checkpoints=_checkpoints(found),
        versions=sorted({*costs.versions, *(str(summary.get("version")) for summary in found), __version__}),
        config=yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True) if config else "",
    )  # fmt: skip
    with atomic(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    log.info("%d slides, %d failed, %.1f MB: %s", len(rows), len(failed), len(text) / 1e6, out)


def _tiles(good: list[dict[str, str]], failed: list[dict[str, str]], costs: Costs) -> list[tuple[str, str]]:
    """(figure, label) at the head of the page."""
    slides = {row["slide"] for row in good}
    counts = [cell(row.get("instances", "")).value for row in good if not row.get("region")]
    tiles = [
        (number(len(slides)), "slide done" if len(slides) == 1 else "slides done"),
        (number(len({row["slide"] for row in failed})), "failed"),
        (number(sum(count for count in counts if count is not None)), "instances"),
    ]
    if costs.steps:
        tiles.append((duration(sum(step.seconds for step in costs.steps)).text, "of computing"))
    return tiles


def _slides(rows: list[dict[str, str]], costs: Costs) -> Table:
    hidden = {"status", "step", "reason", *_means(rows)}
    columns = [name for name in (rows[0] if rows else {"slide": ""}) if name not in hidden]
    slides = table("One row a slide; a click on a head sorts", rows, columns)
    if costs.steps:
        slides.heads.extend(["Run time", "Peak memory"])
        for row, cells in zip(rows, slides.rows, strict=True):
            name = row["slide"]
            known = name in costs.seconds
            cells.append(duration(costs.seconds[name]) if known else Cell(""))
            cells.append(memory(costs.peak_memory_mb[name]) if known else Cell(""))
    return slides


def _prompts(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """What became of the prompts of the slides that have some."""
    rows = [{"slide": str(s["slide"]), **_flat(s["prompts"])} for s in summaries if s.get("prompts")]
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["slide"]
    return table(
        "Prompts: objects in kept tiles and what became of them; then what the file held or was proposed", rows, columns
    )


def _flat(prompts: Mapping[str, Any]) -> dict[str, str]:
    of_file = {f"file_{name}": value for name, value in prompts.get("file", {}).items() if name != "objects"}
    return {name: str(value) for name, value in {**prompts, **of_file}.items() if name != "file"}


def _means(rows: list[dict[str, str]]) -> list[str]:
    """Columns that `aggregate` makes of measurements: two each, too many for the main table."""
    columns = list(rows[0]) if rows else []
    return [
        name for name in columns if any(name.endswith(a) and name.removesuffix(a) + b in columns for a, b in _PAIRS)
    ]


_PAIRS = (("_mean", "_median"), ("_median", "_mean"))


def _distribution(summary: Mapping[str, Any]) -> Table:
    measured: Mapping[str, Mapping[str, Any]] = summary.get("measurements", {})
    columns = list(dict.fromkeys(name for found in measured.values() for name in found))
    rows = [
        [Cell(display_name(name, "²")), *(_cell(found.get(column)) for column in columns)]
        for name, found in measured.items()
    ]
    return Table(str(summary.get("slide")), ["Measurement", *columns], rows)


def _cell(value: object) -> Cell:
    if value is None:
        return Cell("")
    return Cell(number(value), float(value)) if isinstance(value, int | float) else Cell(str(value))


def _costs(costs: Costs) -> Table:
    heads = ["Step", "Jobs", "Run time", "Processor time", "Median job", "Longest job", "Slide", "Peak memory"]
    rows = [
        [
            Cell(step.step),
            Cell(number(step.jobs), step.jobs),
            duration(step.seconds),
            duration(step.cpu_seconds),
            duration(step.median_seconds),
            duration(step.longest_seconds),
            Cell(step.longest),
            memory(step.peak_memory_mb),
        ]
        for step in costs.steps
    ]
    return Table("Run time and memory by step, all slides", heads, rows)


def _checkpoints(summaries: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(segmenter, sha256 of its checkpoint) of the slides, each once."""
    pairs = {(str(s.get("segmenter")), str(s.get("checkpoint") or "no checkpoint")) for s in summaries}
    return sorted(pairs)


def _plain(value: object) -> object:
    """`value` in types that YAML knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
