"""Which tiles hold a prompt, and which of them decodes an object: the one in which it lies most centrally."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

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
