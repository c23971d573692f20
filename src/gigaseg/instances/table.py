"""The table of instances: its columns in memory, and GeoParquet 1.1 on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from gigaseg.columns import class_probabilities, probability_column
from gigaseg.errors import FormatError
from gigaseg.files import parquet_writer, read_metadata, read_parquet

INSTANCES_FORMAT = "gigaseg/instances/1"
"""Instances of one shard: geometry in working px."""

STITCHED_FORMAT = "gigaseg/stitched/1"
"""Instances of a slide: geometry in level-0 px."""

ROW_GROUP = 8192
"""Rows of a Parquet row group: what a reader holds at least (some 8 MB of outlines), whatever the slide's size."""

PLAIN_COLUMNS = ("geometry", "bbox", "score", "class_prob", "instance")
"""Columns whose values hardly repeat: a dictionary of them costs time and saves no space."""


@dataclass(frozen=True)
class Instances:
    """n instances as columns.

    Attributes
    ----------
    geometry : (n,) shapely polygons or multipolygons; working px per shard, level-0 px once stitched.
    score : (n,) float32 in [0, 1].
    class_index : (n,) int32 into `classes`.
    class_prob : (n, classes) float32.
    tile_row, tile_col : (n,) int32, the tile the instance (its representative, once stitched) comes from.
    cut : (n,) uint8 mask of the tile borders it touches (`gigaseg.tiles.tiling`).
    prompt : (n,) int64 row of prompts.parquet, -1 for none.
    classes : names of the classes.
    members : (n,) int16, tile instances merged into it; None before `stitch`.
    """

    geometry: npt.NDArray[np.object_]
    score: npt.NDArray[np.float32]
    class_index: npt.NDArray[np.int32]
    class_prob: npt.NDArray[np.float32]
    tile_row: npt.NDArray[np.int32]
    tile_col: npt.NDArray[np.int32]
    cut: npt.NDArray[np.uint8]
    prompt: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    members: npt.NDArray[np.int16] | None = None

    def __len__(self) -> int:
        return len(self.geometry)

    def take(self, index: npt.NDArray[Any]) -> Instances:
        """The rows `index` (positions or a bool mask)."""
        columns = {
            f.name: getattr(self, f.name)[index]
            for f in fields(self)
            if f.name != "classes" and getattr(self, f.name) is not None
        }
        return replace(self, **columns)

    @classmethod
    def empty(cls, classes: Sequence[str]) -> Instances:
        """No instances of the given classes."""
        return cls(
            geometry=np.empty(0, dtype=object),
            score=np.empty(0, np.float32),
            class_index=np.empty(0, np.int32),
            class_prob=np.empty((0, len(classes)), np.float32),
            tile_row=np.empty(0, np.int32),
            tile_col=np.empty(0, np.int32),
            cut=np.empty(0, np.uint8),
            prompt=np.empty(0, np.int64),
            classes=tuple(classes),
        )

    @classmethod
    def concat(cls, parts: Sequence[Instances]) -> Instances:
        """All rows of `parts`, in order.

        Parts without rows have no say in the classes: a segmenter may learn them from a file that an empty shard never
        opens. Raises FormatError when the classes of the others differ.
        """
        parts = [part for part in parts if len(part)] or parts[:1]
        classes = parts[0].classes
        for part in parts:
            if part.classes != classes:
                raise one_list(part.classes, classes)
        columns: dict[str, Any] = {
            f.name: np.concatenate([getattr(part, f.name) for part in parts])
            for f in fields(cls)
            if f.name != "classes" and getattr(parts[0], f.name) is not None
        }
        return replace(parts[0], **columns)

    def to_arrow(self) -> pa.Table:
        """The table of design.md §3 (geometry as WKB), without provenance."""
        n = len(self)
        columns: dict[str, pa.Array] = {
            "geometry": pa.array(shapely.to_wkb(self.geometry, byte_order=1), pa.binary()),
            "bbox": box_column(shapely.bounds(self.geometry).reshape(n, 4)),
            "score": pa.array(self.score, pa.float32()),
            "class": class_column(self.class_index, self.classes),
        }
        if len(self.classes) > 1:
            columns["class_prob"] = probability_column(self.class_prob)
        columns["tile_row"] = pa.array(self.tile_row, pa.int32())
        columns["tile_col"] = pa.array(self.tile_col, pa.int32())
        columns["cut"] = pa.array(self.cut, pa.uint8())
        columns["prompt"] = pa.array(self.prompt, pa.int64(), mask=self.prompt < 0)
        if self.members is not None:
            columns["instance"] = pa.array(np.arange(1, n + 1), pa.int64())
            columns["members"] = pa.array(self.members, pa.int16())
        return pa.table(columns)

    def write(self, path: str | Path, metadata: Mapping[str, Any]) -> None:
        """Write GeoParquet with `metadata` (its ``format`` and ``classes`` are added here)."""
        format = INSTANCES_FORMAT if self.members is None else STITCHED_FORMAT
        table = with_geo_metadata(self.to_arrow())
        metadata = {**metadata, "format": format, "classes": list(self.classes)}
        with parquet_writer(path, table.schema, metadata, PLAIN_COLUMNS) as writer:
            writer.write_table(table, row_group_size=ROW_GROUP)


def join_parts(parts: Sequence[Path], out: str | Path, metadata: Mapping[str, Any]) -> int:
    """Write the tables of a shard's parts as one, in order, a row group in memory at a time.

    Parameters
    ----------
    metadata : of the table, as `Instances.write` takes it.

    Returns
    -------
    Number of rows.

    Raises
    ------
    FormatError
        The parts that have rows differ in their classes; those without have no say (`Instances.concat`).
    """
    classes = [tuple(read_metadata(part, INSTANCES_FORMAT)["classes"]) for part in parts]
    filled = [i for i, part in enumerate(parts) if pq.read_metadata(part).num_rows] or [0]
    for i in filled:
        if classes[i] != classes[filled[0]]:
            raise one_list(classes[i], classes[filled[0]])
    first, _ = read_parquet(parts[filled[0]], INSTANCES_FORMAT)
    metadata = {**metadata, "format": INSTANCES_FORMAT, "classes": list(classes[filled[0]])}
    waiting = with_geo_metadata(first.slice(0, 0).replace_schema_metadata(None))
    rows = 0
    with parquet_writer(out, waiting.schema, metadata, PLAIN_COLUMNS) as writer:
        for i in filled:
            table, _ = read_parquet(parts[i], INSTANCES_FORMAT)
            rows += len(table)
            waiting = pa.concat_tables([waiting, table])
            while len(waiting) >= ROW_GROUP:
                writer.write_table(waiting.slice(0, ROW_GROUP).combine_chunks())
                waiting = waiting.slice(ROW_GROUP)
        if len(waiting) or not rows:
            writer.write_table(waiting.combine_chunks())
    return rows


def one_list(some: Sequence[str], other: Sequence[str]) -> FormatError:
    """The error of tables that differ in their classes."""
    return FormatError(f"instances have classes {list(some)} and {list(other)}; expected one list")


def with_geo_metadata(table: pa.Table) -> pa.Table:
    """`table` with the GeoParquet 1.1 header: WKB, no CRS (pixels), the bbox column as covering."""
    covering = {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}}
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon", "MultiPolygon"],
        "crs": None,
        "covering": covering,
    }
    header = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"geo": json.dumps(header).encode()})


def read_instances(path: str | Path, *, stitched: bool) -> tuple[Instances, dict[str, Any]]:
    """Read instances and their provenance.

    Raises
    ------
    UpstreamFailure
        The file is a failure record.
    FormatError
        The file is missing, partial, or not of the expected kind.
    """
    table, metadata = read_parquet(path, STITCHED_FORMAT if stitched else INSTANCES_FORMAT)
    return instances_from_arrow(table, tuple(metadata["classes"])), metadata


def instances_from_arrow(table: pa.Table, classes: tuple[str, ...]) -> Instances:
    """Inverse of `Instances.to_arrow`; stitched instances are told by their column ``members``."""
    return Instances(
        geometry=np.asarray(shapely.from_wkb(table["geometry"].to_numpy()), dtype=object).reshape(len(table)),
        score=table["score"].to_numpy(),
        class_index=class_indices(table["class"], classes),
        class_prob=class_probabilities(table, classes),
        tile_row=table["tile_row"].to_numpy(),
        tile_col=table["tile_col"].to_numpy(),
        cut=table["cut"].to_numpy(),
        prompt=table["prompt"].fill_null(-1).to_numpy(),
        classes=classes,
        members=table["members"].to_numpy() if "members" in table.column_names else None,
    )


def box_array(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """(n, 4) bounds xmin, ymin, xmax, ymax of a bbox column."""
    sides = [
        np.concatenate([chunk.field(i).to_numpy() for chunk in column.chunks]) if column.num_chunks else np.empty(0)
        for i in range(4)
    ]
    return np.column_stack(sides)


def box_column(box: npt.NDArray[np.float64]) -> pa.StructArray:
    """Inverse of `box_array`."""
    sides = [pa.array(box[:, i], pa.float64()) for i in range(4)]
    return pa.StructArray.from_arrays(sides, names=["xmin", "ymin", "xmax", "ymax"])


def class_indices(column: pa.ChunkedArray, classes: Sequence[str]) -> npt.NDArray[np.int32]:
    """(n,) position in `classes` of each name of a class column, whatever the dictionaries of its chunks."""
    found = [
        np.array([classes.index(name) for name in chunk.dictionary.to_pylist()], np.int32)[chunk.indices.to_numpy()]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(found) if found else np.empty(0, np.int32)


def class_column(index: npt.NDArray[np.integer[Any]], classes: Sequence[str]) -> pa.DictionaryArray:
    """Inverse of `class_indices`."""
    return pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), pa.array(classes, pa.string()))
