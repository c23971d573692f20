"""The aggregate step: one row a slide, failed ones with step and reason; and the gate that fails when any did."""

from __future__ import annotations

import csv
import io
import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from gigaseg import __version__
from gigaseg.errors import FormatError, UserError
from gigaseg.files import atomic, parquet_writer, read_failure, read_json
from gigaseg.measure.measure import SUMMARY_FORMAT
from gigaseg.measure.pool import Source, pool

log = logging.getLogger(__name__)

COHORT_FORMAT = "gigaseg/cohort/1"
_BY_AREA = ("density_", "coverage", "covered_")
"""How the cells begin that refer to an area."""

_BATCH = 256
"""Rows of cohort.parquet written at a time: with a thousand columns some 30 MB."""

Row = dict[str, Any]
Distributions = dict[str, float | None]


class _Found(NamedTuple):
    """A row: its cells, what only cohort.parquet has, and the per cents of the quantiles in it."""

    row: Row
    more: Distributions
    quantiles: frozenset[float] = frozenset()


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
) -> list[Row]:
    """Write cohort.tsv and cohort.parquet: a row a slide, followed by a row for each of its regions.

    Both have counts, fractions, ratios, the area that densities refer to, and mean and median of each measurement;
    cohort.parquet has the other quantiles too, and those of each class (measurement_quantile_class). Summaries are
    read twice, one at a time: for the columns, then for the rows.

    Parameters
    ----------
    summaries : (slide, summary.json) of every slide, in the order of the sheet; failure records included.
    out, table : cohort.tsv and cohort.parquet.
    labels : preset and group of each slide.
    pooled : where to write the distributions of all slides' measurements together (`gigaseg.measure.pool`), whose
        measurements.parquet lie beside their summaries, with the quantiles of the summaries; None: nowhere.
    bad_rows : (name, reason) of rows of the sheet that could not be used.

    Returns
    -------
    The rows of the slides that failed.

    Raises
    ------
    FormatError
        A summary or table is missing, partial or foreign.
    """
    known = labels or {}

    def found() -> Iterator[_Found]:
        for slide, path in summaries:
            for one in _rows(slide, Path(path)):
                yield one._replace(row={**one.row, **known.get(slide, {})})
        for name, reason in bad_rows:
            yield _Found({"slide": name, "status": "failed", "step": "sheet", "reason": reason}, {})

    columns = _Columns()
    failed = []
    for one in found():
        columns.add(one)
        if one.row["status"] != "ok":
            failed.append(one.row)
    metadata = {"format": COHORT_FORMAT, "version": __version__, "digest": digest}
    with (
        atomic(out) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
        parquet_writer(table, columns.schema, metadata) as parquet,
    ):
        writer = csv.DictWriter(stream, columns.names, delimiter="\t", lineterminator="\n", restval="")
        writer.writeheader()
        rows = found()
        while batch := list(itertools.islice(rows, _BATCH)):
            writer.writerows({k: _cell(v) for k, v in one.row.items()} for one in batch)
            parquet.write_table(columns.table(batch))
    if pooled is not None:
        sources = [
            Source(
                Path(path).with_name("measurements.parquet"),
                known.get(slide, {}).get("preset", ""),
                known.get(slide, {}).get("group", ""),
            )
            for slide, path in summaries
        ]
        pool(sources, pooled, [per_cent / 100 for per_cent in sorted(columns.quantiles)])
    log.info("%d slides, %d failed", len(summaries) + len(bad_rows), len(failed))
    for row in failed:
        log.warning("slide '%s' failed at %s: %s", row["slide"], row["step"], row["reason"])
    return failed


class _Columns:
    """Columns of the cohort, learnt from its rows one by one; `quantiles` in per cent."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[type]] = {}
        self._more: dict[str, None] = {}
        self.quantiles = {50.0}

    def add(self, found: _Found) -> None:
        """Take in the columns of a row."""
        for name, value in found.row.items():
            kinds = self._kinds.setdefault(name, set())
            if value is not None:
                kinds.add(type(value))
        self._more |= dict.fromkeys(name for name in found.more if name not in self._more)
        self.quantiles |= found.quantiles

    @property
    def names(self) -> list[str]:
        """Columns of cohort.tsv, in order."""
        first = [name for name in _FIRST if name != "region" or name in self._kinds]
        return [*first, *sorted(set(self._kinds) - set(first))]

    @property
    def schema(self) -> pa.Schema:
        """Columns of cohort.parquet: those of cohort.tsv and the other statistics."""
        own = [(name, _type(self._kinds.get(name, set()))) for name in self.names]
        return pa.schema([*own, *((name, pa.float64()) for name in self._more)])

    def table(self, rows: Sequence[_Found]) -> pa.Table:
        """Some rows of cohort.parquet."""
        own = len(self.names)
        columns = [
            pa.array([(one.more if i >= own else one.row).get(field.name) for one in rows], field.type)
            for i, field in enumerate(self.schema)
        ]
        return pa.table(columns, self.schema)


def _rows(slide: str, path: Path) -> list[_Found]:
    """The row of a slide, and those of its regions."""
    failure = read_failure(path)
    if failure is not None:
        return [_Found({"slide": slide, "status": "failed", "step": failure[0], "reason": failure[1]}, {})]
    summary = read_json(path, SUMMARY_FORMAT)
    row: Row = {
        "slide": slide,
        "status": "ok",
        "segmenter": summary["segmenter"],
        "unit": summary["unit"],
    }
    whole = {**row, **cells(summary), "mean_score": summary["mean_score"], "flags": "; ".join(summary["flags"])}
    statistics = {name for found in summary["measurements"].values() for name in found} - {"mean", "sd"}
    quantiles = frozenset(float(name.removeprefix("q")) for name in statistics)
    regions = summary.get("regions", {})
    return [
        _Found(whole, _distributions(summary), quantiles),
        *(_Found({**row, "region": name, **cells(of)}, _distributions(of)) for name, of in regions.items()),
    ]


def cells(summary: dict[str, Any]) -> Row:
    """Cells of a slide or a region."""
    row: Row = {"instances": summary["instances"]}
    row |= {key: value for key, value in summary.items() if key.startswith(("foreground_", *_BY_AREA))}
    for name, found in summary["measurements"].items():
        row[f"{name}_mean"], row[f"{name}_median"] = found["mean"], found.get("q50")
    if len(summary["classes"]) > 1:
        for name, found in summary["classes"].items():
            row[f"instances_{name}"], row[f"fraction_{name}"] = found["instances"], found["fraction"]
            row |= {f"{key}_{name}": value for key, value in found.items() if key.startswith(_BY_AREA)}
        row |= {f"ratio_{name}": value for name, value in summary.get("ratios", {}).items()}
    return row


def _distributions(summary: dict[str, Any]) -> Distributions:
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


def _type(kinds: set[type]) -> pa.DataType:
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
