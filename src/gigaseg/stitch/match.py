"""Which tile instances are the same object (design.md §5): agreement inside the area both tiles saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from gigaseg.stitch.clip import Parts, clipped_parts
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
    edge is as often a neighbour. Answers to different prompts are different objects, whatever they look like.

    What touches no border of its tile is whole, and then all of its partners lie where its tile saw. A partner that
    has more than half of what `agreement` tolerates, (1 - agreement) / 2 of its area, beyond gives the lie to it: a
    segmenter that stops short of the border drew a piece.
    """
    parts = clipped_parts(seam, tiling, last_row)
    a, b = _meeting(parts, seam, tiling)
    if tiling.overlap:
        useful = _promising(parts, a, b, agreement)
        a, b = a[useful], b[useful]
    common = _common(parts, a, b, shapely.area if tiling.overlap else shapely.length, agreement)
    clip_a, clip_b, pair = _pairs(parts, a, b)
    pairs = len(clip_a)
    first, second = parts.instance[clip_a], parts.instance[clip_b]
    total_a, total_b = parts.total[clip_a], parts.total[clip_b]
    best_iou = np.zeros(pairs)
    np.maximum.at(best_iou, pair, _ratio(common, parts.size[a] + parts.size[b] - common))
    total = _sums(pair, common, pairs)
    if tiling.overlap:
        whole = seam.whole
        cover_a, cover_b = _ratio(total, total_a), _ratio(total, total_b)
        best_a = _best_cover(cover_a, clip_a, ~whole[first])
        best_b = _best_cover(cover_b, clip_b, ~whole[second])
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


def _meeting(parts: Parts, seam: Seam, tiling: Tiling) -> tuple[Index, Index]:
    """Combinations of a part and one of a later tile in the area that their tiles share, whose boxes meet; in order."""
    own = (seam.tile_row * tiling.cols + seam.tile_col)[parts.instance]
    early = own[parts.clip] < parts.tile[parts.clip]
    one, other = np.flatnonzero(early), np.flatnonzero(~early)
    area = np.minimum(own, parts.tile) * (tiling.rows * tiling.cols) + np.maximum(own, parts.tile)
    left, right = shapely.STRtree(parts.geometry[other]).query(parts.geometry[one])
    a, b = one[left], other[right]
    same = area[parts.clip[a]] == area[parts.clip[b]]
    prompt_a, prompt_b = seam.prompt[parts.instance[parts.clip[a]]], seam.prompt[parts.instance[parts.clip[b]]]
    same &= (prompt_a == prompt_b) | (prompt_a < 0) | (prompt_b < 0)
    a, b = a[same], b[same]
    order = np.lexsort((b, a))
    return a[order], b[order]


def _pairs(parts: Parts, a: Index, b: Index) -> tuple[Index, Index, Index]:
    """The clips of each pair of instances, in the order of instances, and the pair of each combination."""
    clips = np.int64(len(parts.instance) + 1)
    key, pair = np.unique(parts.clip[a] * clips + parts.clip[b], return_inverse=True)
    return key // clips, key % clips, pair


def _promising(parts: Parts, a: Index, b: Index, agreement: float) -> Flags:
    """(combinations,) bool, false where no combination of the pair can reach the agreement, by bounding boxes alone."""
    extent = np.minimum(parts.box[a, 2:], parts.box[b, 2:]) - np.maximum(parts.box[a, :2], parts.box[b, :2])
    size_a, size_b = parts.size[a], parts.size[b]
    most = np.minimum(np.maximum(extent, 0).prod(axis=1), np.minimum(size_a, size_b))
    enough = agreement - 2 * _NOISE
    clip_a, clip_b, pair = _pairs(parts, a, b)
    hopeful = np.zeros(len(clip_a), bool)
    hopeful[pair[most >= enough * np.maximum(size_a, size_b)]] = True
    least = np.minimum(parts.total[clip_a], parts.total[clip_b])
    hopeful |= _sums(pair, most, len(clip_a)) >= enough * least
    return np.asarray(hopeful[pair] & (most > 0))


def _common(parts: Parts, a: Index, b: Index, size: np.ufunc, agreement: float) -> Values:
    """Size of what the parts of each combination share; intersecting outlines is the last resort."""
    common = np.zeros(len(a))
    size_a, size_b = parts.size[a], parts.size[b]
    # equal outlines: a sure segmenter's
    alike = np.flatnonzero((size_a == size_b) & (parts.box[a] == parts.box[b]).all(axis=1))
    used, place = np.unique(np.concatenate([a[alike], b[alike]]), return_inverse=True)
    outline = shapely.normalize(parts.geometry[used])
    same = alike[shapely.equals_identical(outline[place[: len(alike)]], outline[place[len(alike) :]])]
    common[same] = size_a[same]
    # of long, thin parts and their many small neighbours most are apart or touch: both is told several times faster
    rest = np.setdiff1d(np.arange(len(a)), same, assume_unique=True)
    rest = rest[shapely.intersects(parts.geometry[a[rest]], parts.geometry[b[rest]])]
    unlike = np.minimum(size_a[rest], size_b[rest]) < agreement * np.maximum(size_a[rest], size_b[rest])
    touches = np.zeros(len(rest), bool)
    touches[unlike] = shapely.touches(parts.geometry[a[rest[unlike]]], parts.geometry[b[rest[unlike]]])
    rest = rest[~touches]
    common[rest] = size(shapely.intersection(parts.geometry[a[rest]], parts.geometry[b[rest]]))
    return common


def _sums(group: Index, values: Values, groups: int) -> Values:
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64)


def _ratio(part: Values, total: Values) -> Values:
    return np.divide(part, total, out=np.zeros_like(part), where=total > 0)


def _best_cover(cover: Values, clip: Index, cut: Flags) -> Values:
    """Cover of each cut piece by its best partner in each tile, that is of each clip; 0 for all other pairs."""
    order = np.lexsort((np.arange(len(cover)), -cover, clip))
    chosen = order[np.r_[True, np.diff(clip[order]) > 0][: len(order)]]
    best = np.zeros(len(cover))
    best[chosen] = cover[chosen]
    return np.where(cut, best, 0.0)
