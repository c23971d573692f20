"""Measurements of a whole cohort: all instances of a group, region and class together, streamed from all tables."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.files import atomic, read_failure, read_metadata
from gigaseg.measure.measure import MEASUREMENTS_FORMAT, NO_MEASUREMENT
from gigaseg.measure.sketch import Sketch

log = logging.getLogger(__name__)

ALL = ""
"""Region and class of the rows that pool every region and class; the only rows of slides without regions, and with
one class."""

_Key = tuple[str, str, str, str, str]
"""Preset, group, region, class, measurement."""

_BATCH = 131_072


@dataclass(frozen=True)
class Source:
    """measurements.parquet of a slide, with the labels it is pooled by."""

    path: Path
    preset: str = ""
    group: str = ""


@dataclass
class _Pool:
    """What is known of one measurement of one preset, group, region and class."""

    sketch: Sketch = field(default_factory=Sketch)
    slides: int = 0


def pool(sources: Sequence[Source], out: str | Path, quantiles: Sequence[float]) -> list[dict[str, Any]]:
    """Write cohort_measurements.tsv: one row a preset, group, region, class and measurement.

    Every file is read once, a batch at a time; memory is that of a batch and of the histograms, whatever the number of
    slides and instances. Counts, mean, sd, min and max are exact, quantiles within 0.05 % of a value.

    Parameters
    ----------
    sources : measurements of the slides; failure records are left out.
    out : the table to write.
    quantiles : 0..1.

    Returns
    -------
    The rows, in the order of the sheet's presets and groups, of columns, and of regions and classes as they come.

    Raises
    ------
    FormatError
        A file is missing, partial or foreign.
    """
    pools: dict[_Key, _Pool] = {}
    used = [source for source in sources if read_failure(source.path) is None]
    for source in used:
        _add(source, pools)
    rows = [
        {
            "preset": preset,
            "group": group,
            "region": region,
            "class": label,
            "measurement": name,
            "slides": found.slides,
            "n": found.sketch.count,
            "mean": found.sketch.mean,
            "sd": found.sketch.sd,
            "min": found.sketch.low if found.sketch.count else None,
            **{f"q{q * 100:g}": found.sketch.quantile(q) for q in quantiles},
            "max": found.sketch.high if found.sketch.count else None,
        }
        for (preset, group, region, label, name), found in pools.items()
    ]
    names = ["preset", "group", "region", "class", "measurement", "slides", "n", "mean", "sd", "min"]
    names += [*(f"q{q * 100:g}" for q in quantiles), "max"]
    with atomic(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    log.info("measurements of %d slides pooled, %d failed left out", len(used), len(sources) - len(used))
    return rows


def _add(source: Source, pools: dict[_Key, _Pool]) -> None:
    read_metadata(source.path, MEASUREMENTS_FORMAT)
    seen = set()
    try:
        with pq.ParquetFile(source.path, pre_buffer=False, buffer_size=1 << 20) as file:
            schema = file.schema_arrow
            numbers = [f.name for f in schema if f.name not in NO_MEASUREMENT and _is_number(f.type)]
            texts = [name for name in ("region", "class") if name in schema.names]
            for batch in file.iter_batches(batch_size=_BATCH, columns=[*numbers, *texts]):
                parts = list(_parts(batch))
                for column in numbers:
                    values = batch[column].to_numpy(zero_copy_only=False).astype(np.float64)
                    for region, label, mine in parts:
                        key = source.preset, source.group, region, label, column
                        if key not in pools:
                            pools[key] = _Pool()
                        pools[key].sketch.add(values if mine is None else values[mine])
                        seen.add(key)
    except (OSError, pa.ArrowException) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{source.path}: damaged Parquet file ({one_line(error)})") from error
    for key in seen:
        pools[key].slides += 1


def _parts(batch: pa.RecordBatch) -> Iterator[tuple[str, str, npt.NDArray[np.bool_] | None]]:
    """Region, class and rows of what is pooled: everything, each class, each region, each class of each region."""
    regions: list[tuple[str, Any]] = [(ALL, None)]
    labels: list[tuple[str, Any]] = [(ALL, None)]
    if "region" in batch.schema.names:
        regions += _rows_by_value(batch["region"])
    if "class" in batch.schema.names and len(batch["class"].dictionary) > 1:
        labels += _rows_by_value(batch["class"].cast(pa.string()))
    for region, inside in regions:
        for label, of_class in labels:
            masks = [mask for mask in (inside, of_class) if mask is not None]
            yield region, label, np.logical_and.reduce(masks) if masks else None


def _rows_by_value(texts: pa.Array) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    present = [text for text in pc.unique(texts).to_pylist() if text is not None]
    return [(text, np.asarray(pc.fill_null(pc.equal(texts, text), False), bool)) for text in present]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
