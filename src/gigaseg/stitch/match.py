"""Which tile instances are the same object (design.md §5): agreement inside the area both tiles saw.

All functions work on the seam only: an instance that reaches into no other tile never becomes part of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.instances.table import Instances
from gigaseg.tiles.tiling import Tiling

Index = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Edges:
    """Pairs of tile instances that are one object.

    Attributes
    ----------
    first, second : (m,) positions in the instance table, first < second.
    agreement : (m,) in (0, 1], the larger of the parts' IoU and the cover.
    """

    first: Index
    second: Index
    agreement: Values


def match(instances: Instances, whole: npt.NDArray[np.bool_], tiling: Tiling, agreement: float) -> Edges:
    """Find all agreeing pairs.

    Parameters
    ----------
    instances : tile instances in working px, ordered by (tile_row, tile_col, index in the tile).
    whole : (n,) bool, the instance touches no border of its tile inside the slide.
    tiling : the grid.
    agreement : least agreement, in (0, 1].

    Returns
    -------
    The edges, in descending order of agreement, ties by position.

    Notes
    -----
    Two instances agree when some connected part of one and some part of the other, both clipped to the rectangle that
    their tiles share, have IoU >= `agreement`; or when one of them is cut and at least that share of its clipped area
    lies in the other, its best-covering partner in that tile. Without overlap the shared rectangle is a line, and
    lengths along the seam take the place of areas; cover does not count there, since a piece that abuts a longer
    edge is as often a neighbour.
    """
    first, second = _candidates(instances, tiling)
    if len(first) == 0:
        return Edges(first, second, np.empty(0))
    shared = _shared_rectangles(instances, first, second, tiling)
    size = shapely.area if tiling.overlap else shapely.length
    part_a, pair_a = _clipped_parts(instances.geometry[first], shared, tiling.overlap)
    part_b, pair_b = _clipped_parts(instances.geometry[second], shared, tiling.overlap)
    a, b, pair = _combine(pair_a, pair_b, len(first))
    size_a, size_b = size(part_a), size(part_b)
    common = size(shapely.intersection(part_a[a], part_b[b]))
    iou = _ratio(common, size_a[a] + size_b[b] - common)
    best_iou = np.zeros(len(first))
    np.maximum.at(best_iou, pair, iou)
    total_common = _sums(pair, common, len(first))
    total_a = _sums(pair_a, size_a, len(first))
    total_b = _sums(pair_b, size_b, len(first))
    if tiling.overlap:
        tile = instances.tile_row.astype(np.int64) * tiling.cols + instances.tile_col
        cover_a = _best_cover(_ratio(total_common, total_a), first, tile[second], ~whole[first])
        cover_b = _best_cover(_ratio(total_common, total_b), second, tile[first], ~whole[second])
        found = np.maximum(best_iou, np.maximum(cover_a, cover_b))
    else:
        found = np.maximum(best_iou, _ratio(total_common, total_a + total_b - total_common))
    # areas of clipped outlines carry rounding noise; a true 0.5 must not miss 0.5
    agree = found >= agreement - 1e-9
    first, second, found = first[agree], second[agree], np.minimum(found[agree], 1.0)
    order = np.lexsort((second, first, -np.round(found, 9)))
    return Edges(first[order], second[order], found[order])


def _candidates(instances: Instances, tiling: Tiling) -> tuple[Index, Index]:
    """Pairs of instances of adjacent tiles whose geometries meet, first < second."""
    x0 = instances.tile_col.astype(np.int64) * tiling.stride
    y0 = instances.tile_row.astype(np.int64) * tiling.stride
    boxes = shapely.bounds(instances.geometry).reshape(-1, 4)
    inner = tiling.tile - tiling.overlap
    # touching the shared strip is enough here; `reach` keeps outlines that end on the border by rounding
    reach = 1e-6
    near = (
        ((boxes[:, 0] <= x0 + tiling.overlap + reach) & (x0 > 0))
        | ((boxes[:, 1] <= y0 + tiling.overlap + reach) & (y0 > 0))
        | (boxes[:, 2] >= x0 + inner - reach)
        | (boxes[:, 3] >= y0 + inner - reach)
    )
    seam = np.flatnonzero(near)
    geometry = instances.geometry[seam]
    tree = shapely.STRtree(geometry)
    left, right = tree.query(geometry)
    first, second = seam[left], seam[right]
    down = instances.tile_row[second] - instances.tile_row[first]
    along = instances.tile_col[second] - instances.tile_col[first]
    adjacent = (first < second) & ((down != 0) | (along != 0)) & (np.abs(down) <= 1) & (np.abs(along) <= 1)
    return first[adjacent].astype(np.int64), second[adjacent].astype(np.int64)


def _shared_rectangles(instances: Instances, first: Index, second: Index, tiling: Tiling) -> npt.NDArray[np.object_]:
    """The rectangle (a segment without overlap, a point at a corner) that the tiles of each pair share."""

    def span(of: npt.NDArray[np.integer[Any]]) -> tuple[Values, Values]:
        start = np.maximum(of[first], of[second]) * float(tiling.stride)
        end = np.minimum(of[first], of[second]) * float(tiling.stride) + tiling.tile
        return start, end

    xmin, xmax = span(instances.tile_col)
    ymin, ymax = span(instances.tile_row)
    if tiling.overlap:
        return np.asarray(shapely.box(xmin, ymin, xmax, ymax), dtype=object)
    ends = np.stack([np.column_stack([xmin, ymin]), np.column_stack([xmax, ymax])], axis=1)
    return np.asarray(shapely.linestrings(ends), dtype=object)


def _clipped_parts(
    geometry: npt.NDArray[np.object_], shared: npt.NDArray[np.object_], overlap: int
) -> tuple[npt.NDArray[np.object_], Index]:
    """Connected parts of each geometry inside its shared area, and the pair each part belongs to."""
    clipped = shapely.intersection(geometry, shared)
    if not overlap:
        clipped = shapely.line_merge(clipped)
    parts, pair = shapely.get_parts(clipped, return_index=True)
    # an outline that only touches the shared area leaves points or lines behind
    nested = shapely.get_type_id(parts) >= 4
    if nested.any():
        inner, index = shapely.get_parts(parts[nested], return_index=True)
        parts = np.concatenate([parts[~nested], inner])
        pair = np.concatenate([pair[~nested], pair[nested][index]])
    solid = shapely.get_dimensions(parts) == (2 if overlap else 1)
    return parts[solid], pair[solid].astype(np.int64)


def _combine(pair_a: Index, pair_b: Index, pairs: int) -> tuple[Index, Index, Index]:
    """All combinations of a part of a and a part of b of the same pair: positions in each list, and the pair."""
    order_a, order_b = np.argsort(pair_a, kind="stable"), np.argsort(pair_b, kind="stable")
    count_b = np.bincount(pair_b, minlength=pairs)
    start_b = np.cumsum(count_b) - count_b
    repeats = count_b[pair_a[order_a]]
    a = np.repeat(order_a, repeats)
    pair = pair_a[a]
    within = np.arange(len(a)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return a, order_b[start_b[pair] + within], pair


def _sums(group: Index, values: Values, groups: int) -> Values:
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64)


def _ratio(part: Values, total: Values) -> Values:
    return np.divide(part, total, out=np.zeros_like(part), where=total > 0)


def _best_cover(cover: Values, piece: Index, tile: Index, cut: npt.NDArray[np.bool_]) -> Values:
    """Cover of each cut piece by its best partner in each tile; 0 for all other pairs."""
    order = np.lexsort((np.arange(len(cover)), -cover, tile, piece))
    is_best = np.r_[True, (piece[order][1:] != piece[order][:-1]) | (tile[order][1:] != tile[order][:-1])]
    best = np.zeros(len(cover))
    chosen = order[is_best]
    best[chosen] = cover[chosen]
    return np.where(cut, best, 0.0)
