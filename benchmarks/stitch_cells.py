"""Synthetic cells of any number with a known truth, and the tile instances a noisy segmenter would make of them.

Cells stand on a jittered grid of 40 px (one in 1,600 px², a dense H&E slide at 0.25 µm/px) without touching: ellipses
of 16 points, mean radius about 12 px. Every tile that a cell reaches draws it anew, shifted by a random 0.4 px, and
cuts it at its border; pieces below 20 px² are not found. The shift is at most `most` = 1 px each way, so that no
drawing that stitching leaves alone falls short of the truth by itself. Everything is drawn row by row from seeds, so
that neither the truth nor the tiles need ever be held whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

PITCH = 40.0
POINTS = 16
REACH = 20.0
"""No point of a cell, as any tile draws it, lies farther from its place on the grid, px."""


@dataclass(frozen=True)
class Field:
    """n cells on a square slide."""

    n: int
    tile: int
    overlap: int
    seed: int = 0
    jitter: float = 0.4
    most: float = 1.0

    @property
    def columns(self) -> int:
        """Cells in a row of the slide."""
        return math.ceil(math.sqrt(self.n))

    @property
    def side(self) -> int:
        """Width and height of the slide, px."""
        return math.ceil(self.columns * PITCH)

    def rows(self, ymin: float, ymax: float) -> range:
        """Rows of cells whose outlines can reach into ymin..ymax."""
        last = math.ceil(self.n / self.columns)
        return range(max(0, math.floor((ymin - REACH) / PITCH - 0.5)), min(last, math.ceil((ymax + REACH) / PITCH)))

    def cells(self, row: int) -> np.ndarray:
        """(cells, 16, 2) outlines of a row of cells, slide px."""
        rng = np.random.default_rng([self.seed, row])
        count = min(self.columns, self.n - row * self.columns)
        centre = np.column_stack([np.arange(count) + 0.5, np.full(count, row + 0.5)]) * PITCH
        centre += rng.uniform(-4, 4, (count, 2))
        radius = np.clip(rng.normal(12, 2, count), 6, 15.5)[:, None] * [1, 1] * np.ones((count, 2))
        radius[:, 1] *= rng.uniform(0.8, 1, count)
        turn = rng.uniform(0, math.pi, count)
        angle = np.linspace(0, 2 * math.pi, POINTS, endpoint=False)
        along, across = radius[:, :1] * np.cos(angle), radius[:, 1:] * np.sin(angle)
        cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
        return centre[:, None] + np.stack([along * cos - across * sin, along * sin + across * cos], axis=-1)

    def truth(self, rows: range) -> np.ndarray:
        """Outlines of rows of cells as polygons."""
        return shapely.polygons(np.concatenate([self.cells(row) for row in rows]))


def tile_instances(field: Field, tiling, tile_row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polygons of a row of tiles, in tile order: geometry, column, bits of the borders touched."""
    y0 = tile_row * tiling.stride
    y1 = y0 + tiling.tile
    outlines = np.concatenate([field.cells(row) for row in field.rows(y0, y1)])
    rng = np.random.default_rng([field.seed, tile_row, 1])
    low, high = outlines[..., 0].min(axis=1) - 3, outlines[..., 0].max(axis=1) + 3
    first = np.maximum(0, np.floor((low - tiling.tile) / tiling.stride).astype(int) + 1)
    last = np.minimum(tiling.cols - 1, np.floor(high / tiling.stride).astype(int))
    times = last - first + 1
    cell = np.repeat(np.arange(len(outlines)), times)
    col = first[cell] + np.arange(len(cell)) - np.repeat(np.cumsum(times) - times, times)
    xy = outlines[cell] + rng.normal(0, field.jitter, (len(cell), 1, 2)).clip(-field.most, field.most)
    x0 = (col * tiling.stride).astype(float)
    border = np.column_stack([x0, np.full(len(x0), y0), x0 + tiling.tile, np.full(len(x0), y1)])
    border = np.minimum(border, field.side)
    geometry = shapely.polygons(xy)
    crosses = (xy.min(axis=1) < border[:, :2]).any(axis=1) | (xy.max(axis=1) > border[:, 2:]).any(axis=1)
    geometry[crosses] = shapely.intersection(geometry[crosses], shapely.box(*border[crosses].T))
    keep = (shapely.get_type_id(geometry) == 3) & (shapely.area(geometry) >= 20)
    order = np.flatnonzero(keep)[np.argsort(col[keep], kind="stable")]
    geometry, col, border = geometry[order], col[order], border[order]
    box = shapely.bounds(geometry)
    inside = np.column_stack([col > 0, np.full(len(col), tile_row > 0), border[:, 2:] < field.side])
    touch = np.column_stack([box[:, :2] == border[:, :2], box[:, 2:] == border[:, 2:]]) & inside
    return geometry, col, (touch @ [1, 2, 4, 8]).astype(np.uint8)


def write_slide(field: Field, folder: Path, per_shard: int = 300_000) -> int:
    """Write grid.parquet and instances/NNN.parquet of about `per_shard` rows; returns the number of tile instances."""
    from gigaseg.instances.table import Instances
    from gigaseg.tiles.grid import Grid
    from gigaseg.tiles.tiling import Tiling

    tiling = Tiling(field.tile, field.overlap, field.side, field.side, (1.0, 1.0), (0.25, 0.25), "um")
    shard_of_row, parts, rows, total = [], [], 0, 0

    def flush() -> None:
        nonlocal parts, rows
        Instances.concat(parts).write(
            folder / "instances" / f"{shard_of_row[-1]:03d}.parquet",
            {"slide": "cells", "grid": tiling.to_dict(), "shard": shard_of_row[-1], "digest": ""},
        )
        parts, rows = [], 0

    for tile_row in range(tiling.rows):
        shard_of_row.append((shard_of_row[-1] + (not parts)) if shard_of_row else 0)
        geometry, col, cut = tile_instances(field, tiling, tile_row)
        n = len(geometry)
        rng = np.random.default_rng([field.seed, tile_row, 2])
        parts.append(
            Instances(
                geometry=geometry,
                score=rng.uniform(0.5, 1, n).astype(np.float32),
                class_index=np.zeros(n, np.int32),
                class_prob=np.ones((n, 1), np.float32),
                tile_row=np.full(n, tile_row, np.int32),
                tile_col=col.astype(np.int32),
                cut=cut,
                prompt=np.full(n, -1),
                classes=("cell",),
            )
        )
        rows, total = rows + n, total + n
        if rows >= per_shard:
            flush()
    if parts:
        flush()
    shard = np.repeat(np.asarray(shard_of_row, np.int32), tiling.cols)
    row, col = (axis.reshape(-1).astype(np.int32) for axis in np.indices((tiling.rows, tiling.cols)))
    Grid(tiling, "cells", row, col, np.ones(len(row), np.float32), shard, int(shard[-1]) + 1).write(
        folder / "grid.parquet"
    )
    return total


@dataclass
class Score:
    """Cells that are missing, found more than once, or found but cut (IoU below 0.7)."""

    missing: int = 0
    doubled: int = 0
    cut: int = 0


def score(field: Field, held: np.ndarray) -> Score:
    """Compare outlines with the truth, some rows of cells at a time.

    A cell counts as found by every outline that shares more than half of the smaller of the two areas with it.
    """
    result, done, last = Score(), 0, math.ceil(field.n / field.columns)
    stripe = max(1, 200_000 // field.columns)
    box = shapely.bounds(held)
    order = np.argsort(box[:, 1], kind="stable")
    held, top = held[order], box[order, 1]
    height = float((box[:, 3] - box[:, 1]).max(initial=0))
    while done < last:
        rows = range(done, min(last, done + stripe))
        cells = field.truth(rows)
        span = slice(*np.searchsorted(top, [rows.start * PITCH - REACH - height, rows.stop * PITCH + REACH]))
        near = held[span]
        cell, found = shapely.STRtree(near).query(cells)
        common = shapely.area(shapely.intersection(cells[cell], near[found]))
        size, other = shapely.area(cells)[cell], shapely.area(near)[found]
        times = np.bincount(cell[common > 0.5 * np.minimum(size, other)], minlength=len(cells))
        best = np.zeros(len(cells))
        np.maximum.at(best, cell, common / (size + other - common))
        result.missing += int((times == 0).sum())
        result.doubled += int((times > 1).sum())
        result.cut += int(((best < 0.7) & (times > 0)).sum())
        done = rows.stop
    return result
