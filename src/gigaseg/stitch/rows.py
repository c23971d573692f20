"""The stitched rows: tile instances stream through as Arrow columns, the few that changed are put in their place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from gigaseg.columns import class_probabilities, probability_column
from gigaseg.instances.footprints import regularise
from gigaseg.instances.simplified import simplify
from gigaseg.instances.table import (
    box_array,
    box_column,
    class_column,
    class_indices,
)
from gigaseg.slides.ground import Ground
from gigaseg.stitch.blocks import Layout, from_wkb
from gigaseg.stitch.decisions import Decided
from gigaseg.stitch.seam import Index
from gigaseg.stitch.united import United, unite_stored
from gigaseg.tiles.grid import Grid

_WKB_HEADER = 13
"""Bytes before the coordinates of a polygon with one ring: byte order, type, number of rings, number of points."""


def numbered_rows(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The rows of `tables`, numbered from 1, in tables of exactly `size` rows, the last one shorter."""
    count = 0
    for table in regrouped(tables, size):
        instance = pa.array(np.arange(count + 1, count + len(table) + 1), pa.int64())
        count += len(table)
        yield table.add_column(table.num_columns - 1, "instance", instance)


def stitched_run(layout: Layout, decided: Decided) -> pa.Table:
    """A run of the tile instances as rows of instances.parquet without their number, level-0 px."""
    prob = ["class_prob"] if len(layout.classes) > 1 else []
    columns = ["geometry", "bbox", "score", "class", *prob, "tile_row", "tile_col", "cut", "prompt"]
    end = decided.begin + len(decided.members)
    table = pa.concat_tables(part for _, part in layout.read(columns, decided.begin, end))
    united = unite_stored(layout, decided.union) if len(decided.union.row) else None
    with layout.blamed(decided.begin, end):
        return stitched_table(table, layout.grid, layout.classes, decided, united)


@dataclass(frozen=True)
class Redraw:
    """How outlines are drawn anew: regular, or with fewer corners (one of them).

    Attributes
    ----------
    regularise, simplify : tolerance in the unit of the ground, of `gigaseg.instances.footprints` and `.simplified`.
    stepped : whether outlines follow the edges of working pixels.
    ground : what lengths are where an outline lies.
    """

    regularise: float | None
    simplify: float | None
    stepped: bool
    ground: Ground


def redrawn_run(redraw: Redraw, layout: Layout, decided: Decided) -> pa.Table:
    """As `stitched_run`, with outlines drawn anew."""
    table = stitched_run(layout, decided)
    tiling = layout.grid.tiling
    with layout.blamed(decided.begin, decided.begin + len(decided.members)):
        outlines = from_wkb(table["geometry"])
        centre = shapely.get_coordinates(shapely.centroid(outlines)).reshape(-1, 2)
        stretch = redraw.ground.stretch(centre)
        nowhere = np.asarray(~np.isfinite(stretch).all(axis=(1, 2)))
        stretch = np.where(nowhere[:, None, None], np.diag(np.asarray(tiling.pixel_size) / tiling.scale), stretch)
        drawn = _stretched(outlines, stretch)
        if redraw.regularise is not None:
            new = regularise(drawn, redraw.regularise, max(tiling.pixel_size) if redraw.stepped else 0.0)
        else:
            new = simplify(drawn, redraw.simplify or 0.0)
    changed = np.flatnonzero([before is not after for before, after in zip(drawn, new)])
    if not len(changed):
        return table
    geometry = _stretched(new[changed], np.asarray(np.linalg.inv(stretch[changed]), np.float64))
    wkb = pa.array(shapely.to_wkb(geometry, byte_order=1), pa.binary())
    box = box_array(table["bbox"])
    box[changed] = shapely.bounds(geometry)
    columns = {name: table[name] for name in table.column_names}
    columns["geometry"] = replaced(columns["geometry"], changed, wkb)
    columns["bbox"] = box_column(box)
    return pa.table(columns)


def _stretched(geometry: npt.NDArray[np.object_], stretch: npt.NDArray[np.float64]) -> npt.NDArray[np.object_]:
    """Each geometry with its coordinates through its own (2, 2) matrix."""
    xy, owner = shapely.get_coordinates(geometry, return_index=True)
    (xx, xy_), (yx, yy) = stretch[owner].transpose(1, 2, 0)
    moved = np.column_stack([xx * xy[:, 0] + xy_ * xy[:, 1], yx * xy[:, 0] + yy * xy[:, 1]])
    return np.asarray(shapely.set_coordinates(geometry.copy(), moved), dtype=object)


def stitched_table(
    table: pa.Table, grid: Grid, classes: tuple[str, ...], decided: Decided, united: United | None
) -> pa.Table:
    """Tile instances as stitched rows without their number; `united` are the unions that were decided for them."""
    keep, lead = decided.members > 0, decided.members > 1
    cut = table["cut"].to_numpy() & ~grid.open_sides(table["tile_row"].to_numpy(), table["tile_col"].to_numpy())
    cut[lead] = decided.cut_left[lead]
    columns = {name: table[name] for name in table.column_names}
    index = class_indices(table["class"], classes)
    if united is not None:
        _put(columns, index, united, decided.begin, classes)
    columns["class"] = class_column(index, classes)
    columns["cut"], columns["members"] = pa.array(cut, pa.uint8()), pa.array(decided.members, pa.int16())
    result = pa.table(columns)
    if not keep.all():
        result = result.filter(pa.array(keep))
    return scaled(result, grid.tiling.scale)


def _put(
    columns: dict[str, pa.ChunkedArray | pa.Array],
    index: npt.NDArray[np.int32],
    united: United,
    begin: int,
    classes: tuple[str, ...],
) -> None:
    """Put united objects into the columns and class indices of the rows they replace."""
    where = united.row - begin
    outlines = pa.array(shapely.to_wkb(united.geometry, byte_order=1), pa.binary())
    columns["geometry"] = replaced(columns["geometry"], where, outlines)
    box = box_array(columns["bbox"])
    box[where] = shapely.bounds(united.geometry).reshape(-1, 4)
    columns["bbox"] = box_column(box)
    score = columns["score"].to_numpy().copy()
    score[where] = united.score
    columns["score"] = pa.array(score, pa.float32())
    index[where] = united.class_prob.argmax(axis=1)
    if len(classes) > 1:
        prob = class_probabilities(pa.table({"class_prob": columns["class_prob"]}), classes)
        prob[where] = united.class_prob
        columns["class_prob"] = probability_column(prob)


def replaced(column: pa.ChunkedArray, where: Index, values: pa.Array) -> pa.ChunkedArray:
    """`column` with `values` at the positions `where`."""
    order = np.arange(len(column))
    order[where] = len(column) + np.arange(len(where))
    return pa.chunked_array([*column.chunks, values]).take(pa.array(order))


def scaled(table: pa.Table, scale: tuple[float, float]) -> pa.Table:
    """The same table with geometry and bounds multiplied by `scale` (x, y)."""
    if scale == (1.0, 1.0) or not len(table):
        return table
    box = box_array(table["bbox"]) * np.tile(scale, 2)
    names = table.column_names
    table = table.set_column(names.index("geometry"), "geometry", _scaled_wkb(table["geometry"], scale))
    return table.set_column(names.index("bbox"), "bbox", box_column(box))


def _scaled_wkb(column: pa.ChunkedArray, scale: tuple[float, float]) -> pa.Array:
    """WKB with its coordinates multiplied: in place for polygons with one ring, through shapely for the others."""
    array = pa.chunked_array([column]).combine_chunks() if isinstance(column, pa.Array) else column.combine_chunks()
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].copy()
    offsets = offsets - offsets[0]
    start = offsets[:-1].astype(np.int64)
    header = data[
        np.minimum(start[:, None] + np.arange(9), len(data) - 1)
    ]  # byte order, type, rings: all that tells the simple case
    simple = (header == np.array([1, 3, 0, 0, 0, 1, 0, 0, 0], np.uint8)).all(axis=1)
    points = data[np.minimum(start[:, None] + np.arange(9, 13), len(data) - 1)].copy().view("<u4").reshape(-1)
    simple &= np.diff(offsets) == _WKB_HEADER + 16 * points.astype(np.int64)  # shapely tells what a damaged one lacks
    of_header = np.zeros(len(data), bool)
    for byte in range(_WKB_HEADER):
        of_header[start[simple] + byte] = True
    others = np.flatnonzero(~simple)
    for k in others.tolist():
        of_header[offsets[k] : offsets[k + 1]] = True
    coordinates = data[~of_header].view("<f8").reshape(-1, 2) * np.asarray(scale)
    data[~of_header] = coordinates.reshape(-1).view(np.uint8)
    result = pa.Array.from_buffers(
        pa.binary(), len(array), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data.tobytes())]
    )
    if not len(others):
        return result
    geometry = from_wkb(pa.chunked_array([array.take(pa.array(others))]))
    moved = shapely.transform(geometry, lambda xy: xy * np.asarray(scale))
    return replaced(pa.chunked_array([result]), others, pa.array(shapely.to_wkb(moved, byte_order=1), pa.binary()))


def regrouped(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `size` rows, the last one shorter."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += len(table)
        while rows >= size:
            joined = pa.concat_tables(held)
            # pages end where chunks end: the file must not tell where one run of rows met the next
            yield joined.slice(0, size).combine_chunks()
            held, rows = [joined.slice(size)], rows - size
    if rows:
        yield pa.concat_tables(held).combine_chunks()
