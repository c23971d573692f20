"""The aggregate step: one row a slide, failed ones with step and reason; and the gate that fails when any did."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from gigaseg import __version__
from gigaseg.config import MeasureConfig
from gigaseg.errors import FormatError, UserError
from gigaseg.files import atomic, read_failure, read_json, write_parquet
from gigaseg.measure.measure import SUMMARY_FORMAT
from gigaseg.measure.pool import Source, pool

log = logging.getLogger(__name__)

COHORT_FORMAT = "gigaseg/cohort/1"
_FIRST = ("slide", "status", "step", "reason", "preset", "group", "segmenter", "unit", "instances", "region")


def aggregate(
    summaries: Sequence[tuple[str, str | Path]],
    out: str | Path,
    table: str | Path,
    *,
    labels: dict[str, dict[str, str]] | None = None,
    pooled: str | Path | None = None,
    bad_rows: Sequence[tuple[str, str]] = (),
    digest: str = "",
) -> list[dict[str, Any]]:
    """Write cohort.tsv and cohort.parquet: a row a slide, followed by a row for each of its regions.

    Both have counts, fractions, ratios, the area that densities refer to, and mean and median of each measurement;
    cohort.parquet has the other quantiles too, and those of each class (measurement_quantile_class).

    Parameters
    ----------
    summaries : (slide, summary.json) of every slide, in the order of the sheet; failure records included.
    out, table : cohort.tsv and cohort.parquet.
    labels : preset and group of each slide.
    pooled : where to write the distributions of all slides' measurements together (`gigaseg.measure.pool`), whose
        measurements.parquet lie beside their summaries; None: nowhere.
    bad_rows : (name, reason) of rows of the sheet that could not be used.

    Returns
    -------
    The rows.
    """
    known = labels or {}
    found = [(slide, *pair) for slide, path in summaries for pair in _rows(slide, Path(path))]
    rows = [{**row, **known.get(slide, {})} for slide, row, _ in found]
    more = [distributions for _, _, distributions in found]
    rows += [{"slide": name, "status": "failed", "step": "sheet", "reason": reason} for name, reason in bad_rows]
    first = [name for name in _FIRST if name != "region" or any("region" in row for row in rows)]
    names = [*first, *sorted({name for row in rows for name in row} - set(first))]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, delimiter="\t", lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({k: _cell(v) for k, v in row.items()} for row in rows)
    columns = {name: pa.array([row.get(name) for row in rows], _type(name, rows)) for name in names}
    for name in dict.fromkeys(name for part in more for name in part):
        values = [part.get(name) for part in more] + [None] * (len(rows) - len(more))
        columns[name] = pa.array(values, pa.float64())
    write_parquet(table, pa.table(columns), {"format": COHORT_FORMAT, "version": __version__, "digest": digest})
    with atomic(out) as temporary:
        temporary.write_text(stream.getvalue(), encoding="utf-8")
    if pooled is not None:
        sources = [
            Source(
                Path(path).with_name("measurements.parquet"),
                known.get(slide, {}).get("preset", ""),
                known.get(slide, {}).get("group", ""),
            )
            for slide, path in summaries
        ]
        pool(sources, pooled, MeasureConfig().quantiles)
    failed = [row for row in rows if row["status"] != "ok"]
    log.info("%d slides, %d failed", len(summaries) + len(bad_rows), len(failed))
    for row in failed:
        log.warning("slide '%s' failed at %s: %s", row["slide"], row["step"], row["reason"])
    return rows


def _rows(slide: str, path: Path) -> list[tuple[dict[str, Any], dict[str, float | None]]]:
    """The row of a slide, and those of its regions, each with what only cohort.parquet has."""
    failure = read_failure(path)
    if failure is not None:
        return [({"slide": slide, "status": "failed", "step": failure[0], "reason": failure[1]}, {})]
    summary = read_json(path, SUMMARY_FORMAT)
    row: dict[str, Any] = {
        "slide": slide,
        "status": "ok",
        "segmenter": summary["segmenter"],
        "unit": summary["unit"],
    }
    whole = {**row, **_numbers(summary), "mean_score": summary["mean_score"], "flags": "; ".join(summary["flags"])}
    regions = summary.get("regions", {})
    return [
        (whole, _distributions(summary)),
        *(({**row, "region": name, **_numbers(found)}, _distributions(found)) for name, found in regions.items()),
    ]


def _numbers(summary: dict[str, Any]) -> dict[str, Any]:
    """Cells of a slide or a region."""
    row: dict[str, Any] = {"instances": summary["instances"]}
    row |= {key: value for key, value in summary.items() if key.startswith(("foreground_", "density_"))}
    for name, found in summary["measurements"].items():
        row[f"{name}_mean"], row[f"{name}_median"] = found["mean"], found.get("q50")
    if len(summary["classes"]) > 1:
        for name, found in summary["classes"].items():
            row[f"instances_{name}"], row[f"fraction_{name}"] = found["instances"], found["fraction"]
            row |= {f"{key}_{name}": value for key, value in found.items() if key.startswith("density_")}
        row |= {f"ratio_{name}": value for name, value in summary.get("ratios", {}).items()}
    return row


def _distributions(summary: dict[str, Any]) -> dict[str, float | None]:
    """Standard deviation and quantiles of a slide or a region, and mean, deviation and quantiles of its classes."""
    row = {
        f"{name}_{statistic}": value
        for name, found in summary["measurements"].items()
        for statistic, value in found.items()
        if statistic not in ("mean", "q50")
    }
    for label, of_class in summary["classes"].items():
        for name, found in of_class.get("measurements", {}).items():
            row |= {f"{name}_{statistic}_{label}": value for statistic, value in found.items()}
    return row


def _type(name: str, rows: Sequence[dict[str, Any]]) -> pa.DataType:
    kinds = {type(row[name]) for row in rows if row.get(name) is not None}
    if kinds <= {int} and kinds:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {int, float} else pa.string()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read_cohort(path: str | Path) -> list[dict[str, str]]:
    """Rows of cohort.tsv as texts; raises FormatError when the file is missing or no cohort table."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); expected cohort.tsv") from error
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", restval=""))
    if not text.startswith("slide\tstatus\t"):
        raise FormatError(f"{path}: its header does not begin with slide, status; expected cohort.tsv")
    return rows


def gate(cohort: str | Path) -> None:
    """Raise UserError, one line a failed slide, when any slide of the cohort failed; so that cron sees it."""
    failed = [row for row in read_cohort(cohort) if row["status"] != "ok"]
    if failed:
        lines = [f"slide '{row['slide']}' failed at {row['step']}: {row['reason']}" for row in failed]
        raise UserError("\n".join([f"{cohort}: {len(failed)} slides failed", *lines]))
