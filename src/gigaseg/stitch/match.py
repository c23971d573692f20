"""Which tile instances are the same object (design.md §5): agreement inside the area both tiles saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.stitch.seam import Flags, Index, Seam, Values
from gigaseg.tiles.tiling import Tiling

_NOISE = 1e-9
"""Areas of clipped outlines carry rounding noise; a true 0.5 must not miss 0.5."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of tile instances that matter, by their position in the seam table, first < second.

    Attributes
    ----------
    first, second : (m,) pairs that are one object.
    agreement : (m,) in (0, 1], the larger of the parts' IoU and the cover.
    rival_first, rival_second : (k,) pairs that are not, though one lies in the other by at least the agreement wanted.
    rival_common : (k,) area that the two share, working px².
    doubted : positions of instances that seem whole, although a partner reaches far beyond their tile.
    """

    first: Index
    second: Index
    agreement: Values
    rival_first: Index
    rival_second: Index
    rival_common: Values
    doubted: Index


def match(seam: Seam, tiling: Tiling, agreement: float, last_row: int | None = None) -> Pairs:
    """Find all agreeing pairs.

    Parameters
    ----------
    seam : tile instances that reach into other tiles, ordered by tile.
    tiling : the grid.
    agreement : least agreement, in (0, 1].
    last_row : pairs whose first tile lies in this tile row or below are left to the next block; None for no limit.

    Notes
    -----
    Two instances agree when some connected part of one and some part of the other, both clipped to the rectangle that
    their tiles share, have IoU >= `agreement`; or when one of them is cut and at least that share of its clipped area
    lies in the other, its best-covering partner in that tile. Without overlap the shared rectangle is a line, and
    lengths along the seam take the place of areas; cover does not count there, since a piece that abuts a longer
    edge is as often a neighbour.

    What touches no border of its tile is whole, and then all of its partners lie where its tile saw. A partner that
    has more than half of what `agreement` tolerates, (1 - agreement) / 2 of its area, beyond gives the lie to it: a
    segmenter that stops short of the border drew a piece.
    """
    first, second = _candidates(seam, tiling, last_row)
    if len(first) == 0:
        nothing, none = np.empty(0, np.int64), np.empty(0)
        return Pairs(nothing, nothing, none, nothing, nothing, none, nothing)
    pairs = len(first)
    size = shapely.area if tiling.overlap else shapely.length
    shared = _shared_rectangles(seam, first, second, tiling)
    tile = seam.tile_row * tiling.cols + seam.tile_col
    part_a, pair_a = _clipped_parts(seam, first, tile[second], shared, tiling.overlap)
    part_b, pair_b = _clipped_parts(seam, second, tile[first], shared, tiling.overlap)
    size_a, size_b = size(part_a), size(part_b)
    total_a, total_b = _sums(pair_a, size_a, pairs), _sums(pair_b, size_b, pairs)
    a, b, pair = _combine(pair_a, pair_b, pairs)
    if tiling.overlap:
        useful = _promising(part_a[a], part_b[b], size_a[a], size_b[b], pair, total_a, total_b, agreement)
        a, b, pair = a[useful], b[useful], pair[useful]
        # of many parts most are apart, which is told ten times faster than what they share
        apart = np.bincount(pair, minlength=pairs)[pair] > 1
        apart[apart] = ~shapely.intersects(part_a[a[apart]], part_b[b[apart]])
        a, b, pair = a[~apart], b[~apart], pair[~apart]
    common = _common(part_a[a], part_b[b], size_a[a], size_b[b], size)
    best_iou = np.zeros(pairs)
    np.maximum.at(best_iou, pair, _ratio(common, size_a[a] + size_b[b] - common))
    total = _sums(pair, common, pairs)
    if tiling.overlap:
        whole = seam.whole
        cover_a, cover_b = _ratio(total, total_a), _ratio(total, total_b)
        best_a = _best_cover(cover_a, first, tile[second], ~whole[first])
        best_b = _best_cover(cover_b, second, tile[first], ~whole[second])
        found = np.maximum(best_iou, np.maximum(best_a, best_b))
        inside = np.maximum(cover_a, cover_b)
        area = shapely.area(seam.geometry)
        seen_a, seen_b = _ratio(total_a, area[first]), _ratio(total_b, area[second])
    else:
        found = np.maximum(best_iou, _ratio(total, total_a + total_b - total))
        inside, seen_a, seen_b = np.zeros(pairs), np.ones(pairs), np.ones(pairs)
    agree = found >= agreement - _NOISE
    believed = (1 + agreement) / 2
    rival = ~agree & (inside >= agreement - _NOISE)
    return Pairs(
        first[agree],
        second[agree],
        np.minimum(found[agree], 1.0),
        first[rival],
        second[rival],
        total[rival],
        np.concatenate([first[agree & (seen_b < believed)], second[agree & (seen_a < believed)]]),
    )


def _candidates(seam: Seam, tiling: Tiling, last_row: int | None) -> tuple[Index, Index]:
    """Pairs of instances of adjacent tiles that meet, in order."""
    left, right = shapely.STRtree(seam.geometry).query(seam.geometry)
    row, col = seam.tile_row, seam.tile_col
    keep = (left < right) & ((row[left] != row[right]) | (col[left] != col[right]))
    keep &= (np.abs(row[left] - row[right]) <= 1) & (np.abs(col[left] - col[right]) <= 1)
    if last_row is not None:
        keep &= row[left] < last_row
    first, second = left[keep].astype(np.int64), right[keep].astype(np.int64)
    if tiling.overlap:
        low = np.maximum(seam.box[first, :2], seam.box[second, :2])
        solid = (np.minimum(seam.box[first, 2:], seam.box[second, 2:]) > low).all(axis=1)
        first, second = first[solid], second[solid]
    # the bounding boxes of long, thin objects meet far more often than they do; clipping costs ten times this test
    meets = shapely.intersects(seam.geometry[first], seam.geometry[second])
    first, second = first[meets], second[meets]
    order = np.lexsort((second, first))
    return first[order], second[order]


def _shared_rectangles(seam: Seam, first: Index, second: Index, tiling: Tiling) -> Values:
    """(m, 4) the rectangle (a segment without overlap, a point at a corner) that the tiles of each pair share."""
    stride = float(tiling.stride)
    xmin = np.maximum(seam.tile_col[first], seam.tile_col[second]) * stride
    ymin = np.maximum(seam.tile_row[first], seam.tile_row[second]) * stride
    xmax = np.minimum(seam.tile_col[first], seam.tile_col[second]) * stride + tiling.tile
    ymax = np.minimum(seam.tile_row[first], seam.tile_row[second]) * stride + tiling.tile
    return np.column_stack([xmin, ymin, xmax, ymax])


def _clipped_parts(
    seam: Seam, index: Index, other_tile: Index, shared: Values, overlap: int
) -> tuple[npt.NDArray[np.object_], Index]:
    """Connected parts of each geometry inside its shared area, and the pair each part belongs to."""
    # an instance with several partners in a tile is clipped once for all of them
    key = index * (int(other_tile.max()) + 1) + other_tile
    _, once, back = np.unique(key, return_index=True, return_inverse=True)
    clipped, area = seam.geometry[index[once]], shared[once]
    if overlap:
        box = seam.box[index[once]]
        outside = ((box[:, :2] < area[:, :2]) | (box[:, 2:] > area[:, 2:])).any(axis=1)
        clipped[outside] = shapely.intersection(clipped[outside], shapely.box(*area[outside].T))
    else:
        clipped = shapely.line_merge(shapely.intersection(clipped, shapely.linestrings(area.reshape(-1, 2, 2))))
    clipped = clipped[back]
    wanted = 3 if overlap else 1
    kind = shapely.get_type_id(clipped)
    single = np.flatnonzero((kind == wanted) & ~shapely.is_empty(clipped))
    several = np.flatnonzero(kind != wanted)
    parts, pair = shapely.get_parts(clipped[several], return_index=True)
    # an outline that only touches the shared area leaves points or lines behind, also inside collections
    nested = shapely.get_type_id(parts) >= 4
    inner, where = shapely.get_parts(parts[nested], return_index=True)
    parts, pair = np.concatenate([parts[~nested], inner]), np.concatenate([pair[~nested], pair[nested][where]])
    solid = shapely.get_type_id(parts) == wanted
    pair = np.concatenate([single, several[pair[solid]]]).astype(np.int64)
    order = np.argsort(pair, kind="stable")
    return np.concatenate([clipped[single], parts[solid]])[order], pair[order]


def _combine(pair_a: Index, pair_b: Index, pairs: int) -> tuple[Index, Index, Index]:
    """All combinations of a part of a and a part of b of the same pair: positions in each list, and the pair."""
    count_b = np.bincount(pair_b, minlength=pairs)
    start_b = np.cumsum(count_b) - count_b
    repeats = count_b[pair_a]
    a = np.repeat(np.arange(len(pair_a)), repeats)
    pair = pair_a[a]
    within = np.arange(len(a)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return a, start_b[pair] + within, pair


def _promising(
    part_a: npt.NDArray[np.object_],
    part_b: npt.NDArray[np.object_],
    size_a: Values,
    size_b: Values,
    pair: Index,
    total_a: Values,
    total_b: Values,
    agreement: float,
) -> Flags:
    """(combinations,) bool, false where no combination of the pair can reach the agreement, by bounding boxes alone."""
    box_a, box_b = shapely.bounds(part_a).reshape(-1, 4), shapely.bounds(part_b).reshape(-1, 4)
    extent = np.minimum(box_a[:, 2:], box_b[:, 2:]) - np.maximum(box_a[:, :2], box_b[:, :2])
    most = np.minimum(np.maximum(extent, 0).prod(axis=1), np.minimum(size_a, size_b))
    enough = agreement - 2 * _NOISE
    hopeful = np.zeros(len(total_a), bool)
    hopeful[pair[most >= enough * np.maximum(size_a, size_b)]] = True
    hopeful |= _sums(pair, most, len(total_a)) >= enough * np.minimum(total_a, total_b)
    return np.asarray(hopeful[pair] & (most > 0))


def _common(
    part_a: npt.NDArray[np.object_], part_b: npt.NDArray[np.object_], size_a: Values, size_b: Values, size: np.ufunc
) -> Values:
    """Size of what the parts of each combination share; equal outlines, a sure segmenter's, are not intersected."""
    common = size_a.copy()
    differ = np.ones(len(common), bool)
    alike = np.flatnonzero(size_a == size_b)
    differ[alike] = ~shapely.equals_identical(shapely.normalize(part_a[alike]), shapely.normalize(part_b[alike]))
    common[differ] = size(shapely.intersection(part_a[differ], part_b[differ]))
    return common


def _sums(group: Index, values: Values, groups: int) -> Values:
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64)


def _ratio(part: Values, total: Values) -> Values:
    return np.divide(part, total, out=np.zeros_like(part), where=total > 0)


def _best_cover(cover: Values, piece: Index, tile: Index, cut: Flags) -> Values:
    """Cover of each cut piece by its best partner in each tile; 0 for all other pairs."""
    order = np.lexsort((np.arange(len(cover)), -cover, tile, piece))
    is_best = np.r_[True, (piece[order][1:] != piece[order][:-1]) | (tile[order][1:] != tile[order][:-1])]
    best = np.zeros(len(cover))
    chosen = order[is_best]
    best[chosen] = cover[chosen]
    return np.where(cut, best, 0.0)
