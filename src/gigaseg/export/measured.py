"""What the formats write: the instances of a slide with their measurements, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.export.palette import class_colors as colors_of
from gigaseg.files import read_metadata, same_slide
from gigaseg.instances.table import STITCHED_FORMAT
from gigaseg.measure.measure import MEASUREMENTS_FORMAT
from gigaseg.slides.base import SlideInfo

BATCH = 8192
"""Instances a batch: a few tens of MB in memory, and long enough for vectorised calls."""


@dataclass(frozen=True)
class Batch:
    """Some consecutive instances.

    Attributes
    ----------
    instance : (n,) int64, 1-based number of each instance in the slide.
    geometry : (n,) shapely polygons or multipolygons, level-0 px.
    score : (n,) float32 in [0, 1].
    class_index : (n,) int32 into `MeasuredInstances.classes`.
    tile_row, tile_col : (n,) int32, the tile each instance comes from.
    measurements : n rows, the columns named in `MeasuredInstances.measurements`.
    """

    instance: npt.NDArray[np.int64]
    geometry: npt.NDArray[np.object_]
    score: npt.NDArray[np.float32]
    class_index: npt.NDArray[np.int32]
    tile_row: npt.NDArray[np.int32]
    tile_col: npt.NDArray[np.int32]
    measurements: pa.RecordBatch

    def __len__(self) -> int:
        return len(self.instance)


class MeasuredInstances:
    """Reads instances.parquet and measurements.parquet side by side in bounded memory.

    Parameters
    ----------
    instances, measurements : the files of one slide.
    info : path of its slide.json.
    class_colors : colour of each class, #rrggbb, that does not get the palette's.

    Attributes
    ----------
    info : the slide.
    classes, colors : names of the classes, and their RGB colours, 0..255.
    measurements : arrow field of each measurement.
    path : of the instances.
    count : number of instances.

    Raises
    ------
    UpstreamFailure
        An input is a failure record.
    FormatError
        An input is missing, partial or foreign, or the two tables are not of the same instances.
    """

    def __init__(
        self, instances: Path, measurements: Path, info: Path, class_colors: Mapping[str, str] | None = None
    ) -> None:
        self.info = SlideInfo.read(info)
        same_slide(self.info.slide, read_metadata(instances, STITCHED_FORMAT)["slide"], instances)
        metadata = read_metadata(instances, STITCHED_FORMAT)
        read_metadata(measurements, MEASUREMENTS_FORMAT)
        self.classes: tuple[str, ...] = tuple(metadata["classes"])
        self.colors = colors_of(self.classes, class_colors or {})
        self.path = instances
        self._measured = measurements
        self.count: int = pq.read_metadata(instances).num_rows
        rows, schema = pq.read_metadata(measurements).num_rows, pq.read_schema(measurements)
        if rows != self.count:
            raise FormatError(f"{measurements}: has {rows} rows, but {instances} has {self.count}; run measure again")
        self.measurements: list[pa.Field] = [f for f in schema if f.name not in ("instance", "class")]

    def __iter__(self) -> Iterator[Batch]:
        instances, measurements = self.path, self._measured
        left = _batches(instances, ["geometry", "score", "class", "tile_row", "tile_col", "instance"])
        right = _batches(measurements, ["instance", *(field.name for field in self.measurements)])
        for table, measured in zip(left, right, strict=True):
            numbers = table["instance"].to_numpy()
            if not np.array_equal(numbers, measured["instance"].to_numpy()):
                raise FormatError(
                    f"{measurements}: column 'instance' differs from that of {instances}; run measure again"
                )
            yield Batch(
                instance=numbers,
                geometry=shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)),
                score=table["score"].to_numpy(),
                class_index=self._class_index(table["class"]),
                tile_row=table["tile_row"].to_numpy(),
                tile_col=table["tile_col"].to_numpy(),
                measurements=measured.drop_columns(["instance"]),
            )

    def _class_index(self, column: pa.DictionaryArray) -> npt.NDArray[np.int32]:
        # a file's dictionary may be ordered differently from the list of classes, or differ between batches
        order = np.array([self.classes.index(name) for name in column.dictionary.to_pylist()], np.int32)
        index: npt.NDArray[np.int32] = order[column.indices.to_numpy(zero_copy_only=False)]
        return index


def _batches(path: Path, columns: list[str]) -> Iterator[Any]:
    """Record batches of `BATCH` rows (the last one shorter)."""
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            # batches must have the same length in both files, whatever their row groups
            yield from _rebatch(file.iter_batches(batch_size=BATCH, columns=columns))
    except (OSError, pa.ArrowException) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: damaged Parquet file ({one_line(error)})") from error


def _rebatch(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly `BATCH` rows: Arrow's own end at the ends of row groups."""
    pending: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        pending.append(batch)
        rows += len(batch)
        while rows >= BATCH:
            table = pa.Table.from_batches(pending).unify_dictionaries().combine_chunks()
            yield table.slice(0, BATCH).to_batches()[0]
            pending = table.slice(BATCH).to_batches()
            rows -= BATCH
    if rows:
        yield pa.Table.from_batches(pending).unify_dictionaries().combine_chunks().to_batches()[0]
