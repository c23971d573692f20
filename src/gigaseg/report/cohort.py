"""report.html: the cohort on one page, in one file, that asks nothing of the network."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gigaseg import __version__
from gigaseg.export.names import display_name
from gigaseg.files import atomic, read_failure, read_json
from gigaseg.measure.aggregate import read_cohort
from gigaseg.measure.measure import SUMMARY_FORMAT
from gigaseg.measure.spatial import AREA_OF_DENSITY
from gigaseg.report.cards import checkpoint_cards, method_cards
from gigaseg.report.cards import versions as packages
from gigaseg.report.charts import WIDTH, figures
from gigaseg.report.outliers import LEAST, LIMIT, NARROW, Outlier, find_outliers
from gigaseg.report.page import page
from gigaseg.report.pictures import embed
from gigaseg.report.runs import Costs, read_costs
from gigaseg.report.tables import Cell, Table, cell, duration, memory, number, table
from gigaseg.runrecord import peek

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
    pooled: Path | None = None,
) -> None:
    """Write the report of a cohort: slides, failures, outliers, pictures, distributions, costs, how it was made.

    Parameters
    ----------
    cohort : cohort.tsv; columns it does not know are shown as they are.
    summaries : summary.json of the slides; failure records are passed over, cohort.tsv has their reason.
    overviews : overview.png of the slides; a failure record is shown with its reason.
    run_records : run/*.json of the slides.
    config : what to show as configuration.
    out : report.html.
    title : its heading.
    pooled : cohort_measurements.tsv; None, or a missing one: nothing of all slides together is shown.

    Raises
    ------
    FormatError
        cohort.tsv or a summary is missing, partial or foreign.
    """
    rows = read_cohort(cohort)
    names = {row["slide"] for row in rows}
    found = [_summary(path) for path in map(Path, summaries) if read_failure(path) is None]
    together = _read_pooled(pooled)
    outliers = find_outliers(found, {row["slide"]: row.get("preset") or "" for row in rows})
    pictures = embed([Path(path) for path in overviews], names)
    costs = read_costs([Path(path) for path in run_records])
    good = [row for row in rows if row["status"] == "ok"]
    failed = [row for row in rows if row["status"] != "ok"]
    text = page(
        "cohort.html.j2",
        title=title,
        tiles=_tiles(good, failed, costs),
        failed=table("Slides that failed, with the step and its reason", failed, ["slide", "step", "reason"]),
        slides=_slides(good, costs, outliers, {picture.slide for picture in pictures if picture.uri}),
        outliers=_outliers(outliers),
        rule=_RULE,
        prompts=_prompts(found),
        pictures=pictures,
        results=cohort.parent,
        viewer=(config.get("report") or {}).get("viewer"),
        figures=figures(found, together, [(outlier.slide, outlier.measure) for outlier in outliers]),
        width=WIDTH,
        costs=_costs(costs),
        slide_costs=_slide_costs(costs),
        machines=costs.machines,
        devices=costs.devices,
        unread=costs.unread,
        means=table("Mean and median of each measurement by slide", good, ["slide", *_means(good)]),
        distributions=[_distribution(summary) for summary in found] if len(found) <= _MOST_TABLES else [],
        pooled=_pooled(together),
        methods=method_cards(found, config),
        checkpoints=checkpoint_cards(found, config),
        packages=packages(),
        versions=sorted({*costs.versions, *(str(summary.get("version")) for summary in found), __version__}),
        config=yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True) if config else "",
    )  # fmt: skip
    with atomic(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    log.info("%d slides, %d failed, %.1f MB: %s", len(rows), len(failed), len(text) / 1e6, out)


_RULE = (
    f"A slide is flagged in a measure when its modified z-score, 0.6745 times its distance from the median of the "
    f"slides of its preset over the median of these distances, is beyond {LIMIT:g} (Iglewicz and Hoaglin 1993; "
    f"logarithms of densities and areas; a median distance counts as {NARROW:g} at least). "
    f"Presets with fewer than {LEAST} slides are not looked at."
)
_MOST_TABLES = 100
"""Slides up to which each has a table of its own; cohort.parquet has the figures of any number."""


def _summary(path: Path) -> dict[str, Any]:
    """A summary, with the area of the slide in the unit of its foreground where slide.json is beside it."""
    summary = read_json(path, SUMMARY_FORMAT)
    info = peek(path.with_name("slide.json"))
    if {"width", "height", "pixel_size", "unit"} <= set(info):
        per = AREA_OF_DENSITY[info["unit"]][1]
        summary["slide_area"] = info["width"] * info["height"] * math.prod(info["pixel_size"]) / per
    return summary


def _read_pooled(path: Path | None) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8") if path is not None else ""
    except FileNotFoundError:
        text = ""
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", restval=""))


def _pooled(rows: Sequence[Mapping[str, str]]) -> Table:
    columns = list(rows[0]) if rows else ["preset"]
    shown = [{**row, "measurement": display_name(row["measurement"], "²")} for row in rows]
    return table("All instances of a preset, group, region and class together", shown, columns)


def _outliers(outliers: Sequence[Outlier]) -> Table:
    heads = ["Slide", "Measure", "Its value", "Median of the slides", "Modified z-score", "Preset"]
    rows = [
        [
            Cell(found.slide, link=f"picture-{found.slide}"),
            Cell(display_name(found.measure, "²")),
            Cell(number(found.value), found.value),
            Cell(number(found.median), found.median),
            Cell(f"{found.z:+.1f}", found.z) if math.isfinite(found.z) else Cell("none at all", -1e9),
            Cell(found.preset),
        ]
        for found in outliers
    ]
    return Table("The oddest first", heads, rows)


def _slide_costs(costs: Costs) -> list[Table]:
    """Run time and memory of every slide at every step; the darker the more."""
    steps = [step.step for step in costs.steps]
    tables = []
    for caption, which, shown in (
        ("Run time by slide and step, all its jobs", 0, duration),
        ("Peak memory by slide and step, its largest job", 1, memory),
    ):
        most = max(found[which] for found in costs.by_slide_and_step.values()) if costs.by_slide_and_step else 0.0
        rows = []
        for slide in costs.seconds:
            known = [costs.by_slide_and_step.get((slide, step)) for step in steps]
            cells = [Cell("") if found is None else shown(found[which]) for found in known]
            heat = [cell._replace(heat=cell.value / most) if cell.value and most else cell for cell in cells]
            whole = shown(costs.peak_memory_mb[slide] if which else costs.seconds[slide])
            rows.append([Cell(slide), *heat, whole])
        tables.append(Table(caption, ["Slide", *steps, "Most" if which else "Sum"], rows))
    return tables


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


def _slides(rows: list[dict[str, str]], costs: Costs, outliers: Sequence[Outlier], pictures: Collection[str]) -> Table:
    hidden = {"status", "step", "reason", *_means(rows)}
    columns = [name for name in (rows[0] if rows else {"slide": ""}) if name not in hidden]
    slides = table("One row a slide; a click on a head sorts", rows, columns)
    for row, cells in zip(rows, slides.rows, strict=True):
        if row["slide"] in pictures:
            cells[0] = cells[0]._replace(link=f"picture-{row['slide']}")
    if outliers:
        slides.heads.insert(1, "Outlier in")
        for row, cells in zip(rows, slides.rows, strict=True):
            mine = [found for found in outliers if found.slide == row["slide"] and not row.get("region")]
            cells.insert(1, Cell("; ".join(f"{'high' if f.z > 0 else 'low'} {_plain_name(f.measure)}" for f in mine)))
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


def _plain_name(measure: str) -> str:
    name = display_name(measure, "²")
    return name[:1].lower() + name[1:]


def _plain(value: object) -> object:
    """`value` in types that YAML knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
