"""Class, score and measurements of all instances, for the browser: column by column, and in files of some rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gigaseg.export.measured import Batch, MeasuredInstances
from gigaseg.export.names import display_name
from gigaseg.export.palette import class_color
from gigaseg.files import read_parquet
from gigaseg.measure.measure import MEASUREMENTS_FORMAT
from gigaseg.viewer.archive import Writer

ROWS = 1024
"""Instances in a file of rows: what the browser fetches to show the measurements of one."""

OWN = ("members", "cut")
"""Columns of instances.parquet that are shown beside the measurements."""

_TITLES = {"score": "Score", "members": "Joined from", "cut": "Cut by tile borders"}


def write_columns(
    found: MeasuredInstances, table: pa.Table, measurements: Path, archive: Writer
) -> list[dict[str, Any]]:
    """Write all columns one by one; returns what meta.json says of them."""
    columns = [_category("class", table["class"], list(found.classes), archive, found.colors)]
    columns.append(_number("score", table["score"], archive))
    for field in found.measurements:
        values = read_parquet(measurements, MEASUREMENTS_FORMAT, [field.name])[0][field.name]
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            columns.append(_number(field.name, values, archive))
        else:
            text = values.cast(pa.string())
            columns.append(_category(field.name, text, sorted(set(pc.unique(text).to_pylist()) - {None}), archive))
    columns += [_number(name, table[name], archive) for name in OWN]
    return columns


def _number(name: str, column: pa.ChunkedArray, archive: Writer) -> dict[str, Any]:
    values = column.to_numpy()
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:  # browsers have no plain numbers of 64 bits
        values = values.astype(np.float64)
    archive.compress(f"columns/{name}.gz", values.astype(values.dtype.newbyteorder("<")).tobytes())
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    spread = np.quantile(finite, [0.0, 0.02, 0.98, 1.0]) if len(finite) else np.zeros(4)
    title = _TITLES.get(name, display_name(name, "²"))
    described = dict(zip(("min", "low", "high", "max"), spread.astype(float).tolist()))
    return {"name": name, "title": title, "type": values.dtype.name, **described, "missing": len(values) - len(finite)}


def _category(
    name: str,
    column: pa.ChunkedArray,
    categories: list[str],
    archive: Writer,
    colors: Sequence[tuple[int, int, int]] = (),
) -> dict[str, Any]:
    index = _places(column, categories)
    archive.compress(f"columns/{name}.gz", index.astype("<u2").tobytes())
    counts = np.bincount(index, minlength=len(categories) + 1)[: len(categories)].tolist()
    told = {"name": name, "title": display_name(name), "type": "uint16", "categories": categories, "counts": counts}
    chosen = colors or [class_color(i) for i in range(len(categories))]
    return told | {"colors": ["#{:02x}{:02x}{:02x}".format(*color) for color in chosen]}


def _places(column: pa.ChunkedArray | pa.Array, categories: list[str]) -> npt.NDArray[np.uint16]:
    """Position of each value among `categories`; the one after the last for none."""
    found = pc.index_in(column.cast(pa.string()), value_set=pa.array(categories, pa.string()))
    return np.asarray(found.fill_null(len(categories)).to_numpy(), np.uint16)


class Rows:
    """Rows of all columns, gathered into files of `ROWS` instances."""

    def __init__(self, archive: Writer) -> None:
        self._archive = archive
        self._held: list[npt.NDArray[np.float64]] = []
        self._written = 0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Take (columns, n) values of further instances."""
        whole = np.concatenate([*self._held, values], axis=1)
        for start in range(0, whole.shape[1] - ROWS + 1, ROWS):
            self._write(whole[:, start : start + ROWS])
        self._held = [whole[:, whole.shape[1] // ROWS * ROWS :]]

    def flush(self) -> None:
        """Write what is left."""
        if self._held and self._held[0].shape[1]:
            self._write(self._held[0])

    def _write(self, values: npt.NDArray[np.float64]) -> None:
        self._archive.compress(f"rows/{self._written}.gz", np.ascontiguousarray(values).astype("<f8").tobytes())
        self._written += 1


def row_values(
    batch: Batch, columns: list[dict[str, Any]], own: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[np.float64]:
    """(columns, n) values of a batch, in the order of `columns`."""

    def of(column: dict[str, Any]) -> npt.NDArray[Any]:
        name = column["name"]
        if name == "class":
            return batch.class_index
        if name == "score":
            return batch.score
        if name in own:
            return own[name]
        values = batch.measurements.column(batch.measurements.schema.get_field_index(name))
        if "categories" in column:
            return _places(values, column["categories"])
        return np.asarray(values.to_numpy(zero_copy_only=False))

    return np.stack([of(column).astype(np.float64) for column in columns])
