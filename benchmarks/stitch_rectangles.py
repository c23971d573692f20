"""Objects larger than the overlap, and larger than a tile: every tile draws its part of them exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely

from gigaseg.instances.table import Instances
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tiling

TILE = 1024
KINDS = ("buildings 150-600 px", "blocks 700-2500 px with courtyards")


def rectangles(kind: str, overlap: int, folder: Path) -> np.ndarray:
    """Write a slide of rectangles as grid.parquet and one shard; returns the true outlines.

    784 buildings on a grid of 640 px, or 49 blocks on one of 2,560 px with a courtyard of half their size.
    """
    rng = np.random.default_rng(7)
    side, pitch, low, high = (28, 640, 150, 600) if kind == KINDS[0] else (7, 2560, 700, 2500)
    size = rng.integers(low, high, (side * side, 2))
    corner = np.stack(np.divmod(np.arange(side * side), side)[::-1], axis=1) * pitch
    corner = corner + rng.integers(0, pitch - size, size.shape)
    truth = shapely.box(*corner.T, *(corner + size).T)
    if kind != KINDS[0]:
        truth = shapely.difference(truth, shapely.box(*(corner + size // 4).T, *(corner + 3 * size // 4).T))
    tiling = Tiling(TILE, overlap, side * pitch, side * pitch, (1.0, 1.0), (1.0, 1.0), "px")
    row, col = (axis.reshape(-1) for axis in np.indices((tiling.rows, tiling.cols)))
    bounds = np.array([tiling.bounds(r, c) for r, c in zip(row, col)])
    of_tile, of_object = shapely.STRtree(truth).query(shapely.box(*bounds.T))
    piece = shapely.intersection(truth[of_object], shapely.box(*bounds[of_tile].T))
    pieces, source = shapely.get_parts(piece, return_index=True)
    tile = of_tile[source]
    keep = shapely.area(pieces) > 0
    order = np.flatnonzero(keep)[np.argsort(tile[keep], kind="stable")]
    pieces, tile = pieces[order], tile[order]
    box, end = shapely.bounds(pieces), side * pitch
    touch = np.column_stack([box[:, :2] == bounds[tile, :2], box[:, 2:] == bounds[tile, 2:]])
    inside = np.column_stack([bounds[tile, :2] > 0, bounds[tile, 2:] < end])
    n = len(pieces)
    Instances(
        geometry=pieces,
        score=np.ones(n, np.float32),
        class_index=np.zeros(n, np.int32),
        class_prob=np.ones((n, 1), np.float32),
        tile_row=row[tile].astype(np.int32),
        tile_col=col[tile].astype(np.int32),
        cut=((touch & inside) @ [1, 2, 4, 8]).astype(np.uint8),
        prompt=np.full(n, -1),
        classes=("building",),
    ).write(folder / "instances" / "000.parquet", {"slide": "rectangles", "grid": tiling.to_dict(), "shard": 0})
    zero = np.zeros(len(row), np.int32)
    grid = Grid(
        tiling, "rectangles", row.astype(np.int32), col.astype(np.int32), np.ones(len(row), np.float32), zero, 1
    )
    grid.write(folder / "grid.parquet")
    return truth
