"""Instances and measurements of a slide read and written batch by batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.files import METADATA_KEY, atomic, read_metadata
from gigaseg.instances.table import STITCHED_FORMAT

BATCH = 8192
"""Instances a batch, and rows a row group of measurements.parquet."""


@dataclass(frozen=True)
class InstanceBatch:
    """Some consecutive instances.

    Attributes
    ----------
    geometry : (n,) polygons or multipolygons, level-0 px.
    score, cut : (n,) as in `gigaseg.instances.table.Instances`.
    class_index : (n,) int32 into the stream's classes.
    """

    geometry: npt.NDArray[np.object_]
    score: npt.NDArray[np.float32]
    cut: npt.NDArray[np.uint8]
    class_index: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.geometry)


class InstanceStream:
    """instances.parquet of a slide, as often as needed, a batch in memory.

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
        self.metadata = read_metadata(path, STITCHED_FORMAT)
        self.classes: tuple[str, ...] = tuple(self.metadata["classes"])
        self.count: int = pq.read_metadata(path).num_rows
        self._path, self._batch = path, batch

    def __iter__(self) -> Iterator[InstanceBatch]:
        try:
            with pq.ParquetFile(self._path, pre_buffer=False, buffer_size=1 << 20) as file:
                columns = ["geometry", "score", "class", "cut"]
                for table in file.iter_batches(batch_size=self._batch, columns=columns):
                    yield self._batch_of(table)
        except (OSError, pa.ArrowException) as error:
            if is_machine_fault(error):
                raise
            raise FormatError(f"{self._path}: damaged Parquet file ({one_line(error)})") from error

    def _batch_of(self, table: pa.RecordBatch) -> InstanceBatch:
        named = table["class"]
        # a file's dictionary may be ordered differently from the list of classes, or differ between batches
        order = np.array([self.classes.index(name) for name in named.dictionary.to_pylist()], np.int32)
        return InstanceBatch(
            geometry=np.asarray(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)), dtype=object),
            score=table["score"].to_numpy(),
            cut=table["cut"].to_numpy(),
            class_index=order[named.indices.to_numpy(zero_copy_only=False)],
        )


@contextmanager
def parquet_writer(path: str | Path, schema: pa.Schema, metadata: Mapping[str, Any]) -> Iterator[pq.ParquetWriter]:
    """A writer of tables of `schema` to `path`, which appears when the block ends without an error."""
    packed = json.dumps(metadata, ensure_ascii=False, allow_nan=False, sort_keys=True).encode()
    with (
        atomic(path) as temporary,
        pq.ParquetWriter(temporary, schema.with_metadata({METADATA_KEY: packed}), compression="zstd") as writer,
    ):
        yield writer


def read_column(path: str | Path, name: str) -> npt.NDArray[np.float64]:
    """One column of numbers of a Parquet file, (n,), NaN where it has no value."""
    column = pq.read_table(path, columns=[name]).column(0)
    return np.asarray(column.to_numpy(), dtype=np.float64)
