"""Which tiles hold a prompt, and which of them decodes an object: the one in which it lies most centrally.

Points alone need numpy only, since models that propose them also run where they train.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.tiles.tiling import Tiling


def centrality(
    extent: npt.NDArray[np.float64],
    row: npt.NDArray[np.integer[Any]],
    col: npt.NDArray[np.integer[Any]],
    tiling: Tiling,
) -> npt.NDArray[np.float64]:
    """Distance of each extent to the inner borders of a tile.

    Parameters
    ----------
    extent : (n, 4) xmin, ymin, xmax, ymax, working px.
    row, col : (n,) the tile of each.
    tiling : the grid; a tile's border is an inner one when the grid has a tile beyond it.

    Returns
    -------
    (n, 2) float64, working px: the distance to the nearest inner border, and to the nearest one of the other axis.
    Negative where the extent crosses a border, infinite where a tile has none.
    """
    x, y = col * tiling.stride, row * tiling.stride
    sides = np.column_stack([extent[:, 0] - x, extent[:, 1] - y, x - extent[:, 2], y - extent[:, 3]])
    sides[:, 2:] += tiling.tile
    outer = np.column_stack([col == 0, row == 0, col == tiling.cols - 1, row == tiling.rows - 1])
    sides[outer] = np.inf
    axes = np.column_stack([sides[:, [0, 2]].min(axis=1), sides[:, [1, 3]].min(axis=1)])
    return np.sort(axes, axis=1)


def holders(
    parts: npt.NDArray[np.object_], tiles: Sequence[npt.NDArray[np.int32]], tiling: Tiling
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All tiles that hold each of some points and polygons.

    Parameters
    ----------
    parts : (p,) points and polygons, working px.
    tiles : row and col of the k kept tiles.
    tiling : the grid.

    Returns
    -------
    part, tile : (n,) positions among `parts` and among the kept tiles, one pair for each tile of each part.
    """
    import shapely

    row, col = (axis.astype(np.int64) for axis in tiles)
    x, y = col * tiling.stride, row * tiling.stride
    # tiles are half-open: a point on the right border is the next tile's
    ends = [np.nextafter(start + float(tiling.tile), 0) for start in (x, y)]
    part, tile = shapely.STRtree(shapely.box(x, y, *ends)).query(parts, predicate="intersects")
    return part, tile


def owners(
    extent: npt.NDArray[np.float64],
    parts: npt.NDArray[np.object_],
    part_of: npt.NDArray[np.int64],
    tiles: Sequence[npt.NDArray[np.int32]],
    tiling: Tiling,
) -> npt.NDArray[np.int64]:
    """The tile that owns each object.

    Of the tiles that hold a part of it, the one with the largest distance of the object's extent to the tile's inner
    borders; among equals the most central one along the other axis, then the first in the grid's order.

    Parameters
    ----------
    extent : (m, 4) float64 bounds of each object, working px.
    parts, part_of : (p,) points and polygons, and the object each belongs to.
    tiles : row and col of the k kept tiles, in the grid's order.
    tiling : the grid.

    Returns
    -------
    (m,) position of the owner among the kept tiles; -1 for an object that none of them holds.
    """
    row, col = (axis.astype(np.int64) for axis in tiles)
    found, tile = holders(parts, tiles, tiling)
    pairs = np.unique(np.column_stack([part_of[found], tile]), axis=0)
    who, tile = pairs.T
    near, far = centrality(extent[who], row[tile], col[tile], tiling).T
    order = np.lexsort((tile, -far, -near, who))
    owned, first = np.unique(who[order], return_index=True)
    owner = np.full(len(extent), -1, np.int64)
    owner[owned] = tile[order][first]
    return owner


def point_owners(
    xy: npt.NDArray[np.float64], tiles: Sequence[npt.NDArray[np.int32]], tiling: Tiling
) -> npt.NDArray[np.int64]:
    """The tile that owns each point: what `owners` finds for objects of one point.

    Parameters
    ----------
    xy : (n, 2) points, working px.
    tiles : row and col of the k kept tiles, in the grid's order.
    tiling : the grid.

    Returns
    -------
    (n,) position of the owner among the kept tiles; -1 for a point that none of them holds.
    """
    number = np.full((tiling.rows, tiling.cols), -1, np.int64)
    number[tiles[0], tiles[1]] = np.arange(len(tiles[0]))
    best = np.full((len(xy), 2), -np.inf)
    owner = np.full(len(xy), -1, np.int64)
    # tiles are half-open and share at most half: two hold a place of an axis, no more; the earlier one first
    last = np.array([tiling.cols - 1, tiling.rows - 1])
    here = np.clip(np.floor(xy / tiling.stride), 0, last).astype(np.int64)
    for up, left in ((1, 1), (1, 0), (0, 1), (0, 0)):
        col, row = here[:, 0] - left, here[:, 1] - up
        inside = (xy >= 0).all(axis=1) & (col >= 0) & (row >= 0)
        inside &= (xy < np.column_stack([col, row]) * tiling.stride + tiling.tile).all(axis=1)
        found = np.where(inside, number[row.clip(0), col.clip(0)], -1)
        key = centrality(np.tile(xy, 2), row, col, tiling)
        better = (key[:, 0] > best[:, 0]) | ((key[:, 0] == best[:, 0]) & (key[:, 1] > best[:, 1]))
        better = (found >= 0) & (better | (owner < 0))
        best[better], owner[better] = key[better], found[better]
    return owner


def seen_better(
    xy: npt.NDArray[np.float64],
    tile: Sequence[npt.NDArray[np.int32]],
    tiles: Sequence[npt.NDArray[np.int32]],
    tiling: Tiling,
) -> npt.NDArray[np.bool_]:
    """Whether each point lies so near to a border of the tile that found it that a neighbour surely sees it better.

    That is within a quarter of the overlap, beyond which a kept tile sees on: it has the point at least three quarters
    of the overlap from its own border. So every place of the kept tiles counts in at least one of them.

    Parameters
    ----------
    xy : (n, 2) points, working px.
    tile : (n,) row and (n,) col of the tile that found each.
    tiles : row and col of the k kept tiles.
    tiling : the grid.

    Returns
    -------
    (n,) bool.
    """
    kept = np.zeros((tiling.rows + 2, tiling.cols + 2), bool)
    kept[np.asarray(tiles[0]) + 1, np.asarray(tiles[1]) + 1] = True
    row, col = (np.asarray(axis, np.int64) for axis in tile)
    x, y = xy[:, 0] - col * tiling.stride, xy[:, 1] - row * tiling.stride
    near = tiling.overlap / 4
    return np.asarray(
        ((x < near) & kept[row + 1, col])
        | ((y < near) & kept[row, col + 1])
        | ((x >= tiling.tile - near) & kept[row + 1, col + 2])
        | ((y >= tiling.tile - near) & kept[row + 2, col + 1])
    )
