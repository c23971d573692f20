"""instances.parquet of a slide: what its columns tell without the outlines, and the instances of a window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.files import read_metadata, require_columns
from gigaseg.instances.table import STITCHED_FORMAT, box_array, class_indices

BATCH = 8192
"""Instances that are decoded at once."""

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Some consecutive instances without their outlines.

    Attributes
    ----------
    first : row of the first of them.
    box : (n, 4) bounds, level-0 px.
    score, cut, class_index : (n,) as in `gigaseg.instances.table.Instances`.
    """

    first: int
    box: npt.NDArray[np.float64]
    score: npt.NDArray[np.float32]
    cut: npt.NDArray[np.uint8]
    class_index: npt.NDArray[np.int32]


class InstanceFile:
    """instances.parquet of a slide, read in parts.

    Attributes
    ----------
    metadata : its provenance.
    classes : names of the classes.
    count : number of instances.

    Raises
    ------
    UpstreamFailure
        The file is a failure record.
    FormatError
        The file is missing, partial or not of a whole slide.
    """

    def __init__(self, path: str | Path, batch: int = BATCH) -> None:
        self.metadata: dict[str, Any] = read_metadata(path, STITCHED_FORMAT)
        self.classes: tuple[str, ...] = tuple(self.metadata["classes"])
        found = pq.read_metadata(path)
        self.count: int = found.num_rows
        rows = [found.row_group(k).num_rows for k in range(found.num_row_groups)]
        self._start = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        self._reach = np.empty((0, 2))
        self._path, self._batch = Path(path), batch

    def scan(self) -> Iterator[Batch]:
        """All instances without their outlines; where each row group reaches is remembered for `window`."""
        reach = np.full((len(self._start) - 1, 2), (np.inf, -np.inf))
        for k in range(len(reach)):
            for first, table in self._tables(["bbox", "score", "class", "cut"], k):
                box = box_array(table["bbox"])
                reach[k] = min(reach[k, 0], box[:, 1].min()), max(reach[k, 1], box[:, 3].max())
                yield Batch(
                    first,
                    box,
                    table["score"].to_numpy(),
                    table["cut"].to_numpy(),
                    class_indices(table["class"], self.classes),
                )
        self._reach = reach

    def window(
        self, bounds: tuple[float, float, float, float]
    ) -> Iterator[tuple[Index, npt.NDArray[np.float64], npt.NDArray[np.int32], npt.NDArray[np.object_]]]:
        """Row, bounds, class and outline of the instances whose bounds meet `bounds`, in level-0 px; after `scan`."""
        left, top, right, bottom = bounds
        for k in np.flatnonzero((self._reach[:, 0] <= bottom) & (self._reach[:, 1] >= top)).tolist():
            for first, table in self._tables(["bbox", "class", "geometry"], k):
                box = box_array(table["bbox"])
                meets = (box[:, 0] <= right) & (box[:, 2] >= left) & (box[:, 1] <= bottom) & (box[:, 3] >= top)
                index = np.flatnonzero(meets)
                if len(index):
                    packed = table["geometry"].take(pa.array(index)).to_numpy()
                    try:
                        geometry = np.asarray(shapely.from_wkb(packed), dtype=object).reshape(len(index))
                    except shapely.errors.ShapelyError as error:
                        raise FormatError(f"{self._path}: damaged outline ({one_line(error)})") from error
                    label = class_indices(table["class"], self.classes)
                    yield first + index, box[index], label[index], geometry

    def _tables(self, columns: Sequence[str], k: int) -> Iterator[tuple[int, pa.Table]]:
        """A row group, `batch` rows at a time, with the row of the first of them."""
        first = int(self._start[k])
        try:
            with pq.ParquetFile(self._path, pre_buffer=False, buffer_size=1 << 20) as file:
                require_columns(self._path, columns, file.schema_arrow.names)
                for batch in file.iter_batches(self._batch, row_groups=[k], columns=list(columns), use_threads=False):
                    yield first, pa.table(batch)
                    first += len(batch)
        except (OSError, pa.ArrowException) as error:
            if is_machine_fault(error):
                raise
            raise FormatError(f"{self._path}: damaged Parquet file ({one_line(error)})") from error
