"""What each tile instance has in the areas that its tile shares with others: clipped there, in connected parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.stitch.seam import Index, Seam, Values
from gigaseg.tiles.tiling import Tiling

_POLYGON, _LINE = 3, 1


@dataclass(frozen=True)
class Parts:
    """Connected parts of c clips: a clip is what an instance has in the area that its tile shares with another.

    Attributes
    ----------
    instance : (c,) position in the seam table.
    tile : (c,) number of the other tile.
    total : (c,) size of the clip, working px² (without overlap px).
    clip : (k,) clip of each part, ascending.
    geometry : (k,) polygons (without overlap lines).
    box : (k, 4) their bounds.
    size : (k,) area, working px² (without overlap length, px).
    """

    instance: Index
    tile: Index
    total: Values
    clip: Index
    geometry: npt.NDArray[np.object_]
    box: Values
    size: Values


def clipped_parts(seam: Seam, tiling: Tiling, last_row: int | None) -> Parts:
    """Clip every instance to each area that its tile shares with another tile that has instances.

    Parameters
    ----------
    seam : tile instances that reach into other tiles, ordered by tile.
    tiling : the grid.
    last_row : areas whose first tile lies in this tile row or below are left out; None for no limit.
    """
    instance, tile, shared = _shared_areas(seam, tiling, last_row)
    clipped = seam.geometry[instance]
    if tiling.overlap:
        box = seam.box[instance]
        outside = ((box[:, :2] < shared[:, :2]) | (box[:, 2:] > shared[:, 2:])).any(axis=1)
        clipped[outside] = shapely.intersection(clipped[outside], shapely.box(*shared[outside].T))
    else:
        clipped = shapely.line_merge(shapely.intersection(clipped, shapely.linestrings(shared.reshape(-1, 2, 2))))
    geometry, clip = _connected(clipped, _POLYGON if tiling.overlap else _LINE)
    size = np.asarray(shapely.area(geometry) if tiling.overlap else shapely.length(geometry))
    return Parts(
        instance=instance,
        tile=tile,
        total=np.bincount(clip, weights=size, minlength=len(instance)).astype(np.float64),
        clip=clip,
        geometry=geometry,
        box=shapely.bounds(geometry).reshape(-1, 4),
        size=size,
    )


def _shared_areas(seam: Seam, tiling: Tiling, last_row: int | None) -> tuple[Index, Index, Values]:
    """Instance, other tile and (c, 4) the rectangle (without overlap a segment) that the two tiles share."""
    place = np.column_stack([seam.tile_col, seam.tile_row])
    start = place * float(tiling.stride)
    filled = np.zeros((tiling.rows + 2, tiling.cols + 2), bool)
    filled[seam.tile_row + 1, seam.tile_col + 1] = True
    instances, tiles, areas = [], [], []
    for step in ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)):
        if not tiling.overlap and all(step):
            continue  # the tiles share a corner
        other = place + step
        low = start + np.maximum(step, 0) * float(tiling.stride)
        high = start + np.minimum(step, 0) * float(tiling.stride) + tiling.tile
        inner, outer = np.maximum(seam.box[:, :2], low), np.minimum(seam.box[:, 2:], high)
        meets = (outer > inner if tiling.overlap else outer >= inner).all(axis=1)
        meets &= filled[other[:, 1] + 1, other[:, 0] + 1]
        if last_row is not None:
            meets &= np.minimum(other[:, 1], seam.tile_row) < last_row
        mine = np.flatnonzero(meets)
        instances.append(mine)
        tiles.append(other[mine, 1] * tiling.cols + other[mine, 0])
        areas.append(np.column_stack([low[mine], high[mine]]))
    instance, tile = np.concatenate(instances), np.concatenate(tiles)
    order = np.lexsort((tile, instance))
    return instance[order], tile[order], np.concatenate(areas)[order]


def _connected(clipped: npt.NDArray[np.object_], wanted: int) -> tuple[npt.NDArray[np.object_], Index]:
    """Connected parts of the type `wanted` of each geometry, and the position of the geometry."""
    kind = shapely.get_type_id(clipped)
    single = np.flatnonzero((kind == wanted) & ~shapely.is_empty(clipped))
    several = np.flatnonzero(kind != wanted)
    parts, owner = shapely.get_parts(clipped[several], return_index=True)
    # an outline that only touches the shared area leaves points or lines behind, also inside collections
    nested = shapely.get_type_id(parts) >= 4
    inner, where = shapely.get_parts(parts[nested], return_index=True)
    parts, owner = np.concatenate([parts[~nested], inner]), np.concatenate([owner[~nested], owner[nested][where]])
    solid = shapely.get_type_id(parts) == wanted
    owner = np.concatenate([single, several[owner[solid]]]).astype(np.int64)
    order = np.argsort(owner, kind="stable")
    return np.concatenate([clipped[single], parts[solid]])[order], owner[order]
