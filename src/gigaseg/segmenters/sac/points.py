"""SAC's auto-prompting: positive and negative points from the probability map of the U-Net.

The paper (arXiv 2401.13220, section 3.3) takes the centroid of each region (O), or random pixels (R), of the map P and
of 1 - P. Thresholds, the order of regions, what fills up missing points and what stands for a centroid beside its
region it leaves open; the rules here are our choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

POSITIVE, NEGATIVE, PADDING = 1, 0, -1
"""Labels of points, as SAM names them."""

LEAST_AREA = 16
"""Pixels of a region from which a point is taken."""

SURE, UNSURE = 0.9, 0.5
"""Least probability of random points, and what it is relaxed to where fewer than wanted have that."""

_GRID = 4
"""Px: a grid of every so many pixels is dense enough for negative points far from each other."""

_Map = npt.NDArray[np.float32]
_Mask = npt.NDArray[np.bool_]
_Pixels = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Points:
    """Points of one image, positive ones first.

    Attributes
    ----------
    xy : (k, 2) float32, px of the map, pixel corners at integers; zeros for padding.
    labels : (k,) int8, `POSITIVE`, `NEGATIVE` or `PADDING`.
    """

    xy: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]


def select_points(
    probability: _Map, pairs: int, rule: str = "centroid", *, rng: np.random.Generator | None = None
) -> Points:
    """Pick as many positive as negative points.

    Centroid: those of the regions where P >= 0.5 (8-connected, at least `LEAST_AREA` px), the region of the largest
    sum of P first, ties by (y, x). A centroid beside its region becomes the region's innermost pixel. The background is
    mostly one region, whose centroid often lies in a nucleus: the first negative point is its innermost pixel, each
    further one the pixel farthest from those before. Random: pixels with P (or 1 - P) >= `SURE`, or >= `UNSURE` where
    these are too few. Points that a rule does not find are filled up with random pixels of their sign, then padded.

    Parameters
    ----------
    probability : (h, w) in [0, 1].
    pairs : points of each sign; 0: none at all.
    rule : "centroid" or "random".
    rng : of training: regions are drawn at random too, and negative points begin at a random place. None: the same
        points for the same map; random ones from seed 0.

    Returns
    -------
    Points
        2 `pairs` points, padding among them where a sign has too few pixels.
    """
    if pairs == 0:
        return Points(np.zeros((0, 2), np.float32), np.zeros(0, np.int8))
    draw = np.random.default_rng(0) if rng is None else rng
    if rule == "random":
        positive = _random(probability, pairs, draw)
        negative = _random(1 - probability, pairs, draw)
    else:
        inside = probability >= UNSURE
        positive = _filled(_centroids(probability, inside, pairs, rng), inside, pairs, draw)
        outside = ~inside
        negative = _filled(_spread(outside, pairs, rng), outside, pairs, draw)
    xy = np.zeros((2 * pairs, 2), np.float32)
    labels = np.full(2 * pairs, PADDING, np.int8)
    width = probability.shape[1]
    for start, label, found in ((0, POSITIVE, positive), (pairs, NEGATIVE, negative)):
        rows, cols = np.divmod(found, width)
        xy[start : start + len(found)] = np.column_stack([cols, rows]) + 0.5
        labels[start : start + len(found)] = label
    return Points(xy, labels)


def _random(probability: _Map, most: int, rng: np.random.Generator) -> _Pixels:
    """At most `most` different pixels, flat."""
    candidates = np.flatnonzero(probability >= SURE)
    if len(candidates) < most:
        candidates = np.flatnonzero(probability >= UNSURE)
    return np.sort(rng.choice(candidates, min(most, len(candidates)), replace=False))


def _filled(found: _Pixels, mask: _Mask, most: int, rng: np.random.Generator) -> _Pixels:
    """`found`, filled up to `most` with other pixels of `mask`."""
    if len(found) >= most:
        return found[:most]
    free = mask.ravel().copy()
    free[found] = False
    candidates = np.flatnonzero(free)
    more = rng.choice(candidates, min(most - len(found), len(candidates)), replace=False)
    return np.concatenate([found, np.sort(more)])


def _centroids(probability: _Map, inside: _Mask, most: int, rng: np.random.Generator | None) -> _Pixels:
    """The pixel of the centroid of each region, or its innermost one, by descending sum of the probability."""
    labels, count = ndimage.label(inside, np.ones((3, 3), bool))
    area = np.bincount(labels.ravel(), minlength=count + 1)
    regions = np.flatnonzero(area >= LEAST_AREA)
    regions = regions[regions > 0]
    if not len(regions):
        return np.zeros(0, np.intp)
    flat = labels.ravel()
    rows, cols = np.divmod(np.arange(flat.size), labels.shape[1])
    centre = [np.bincount(flat, weights=axis)[regions] / area[regions] for axis in (rows, cols)]
    if rng is None:
        weight = np.bincount(flat, weights=probability.ravel())[regions]
        order = np.lexsort((centre[1], centre[0], -weight))
    else:
        order = rng.permutation(len(regions))
    regions, (y, x) = regions[order[:most]], (axis[order[:most]] for axis in centre)
    pixel: _Pixels = np.rint(y).astype(np.intp) * labels.shape[1] + np.rint(x).astype(np.intp)
    outlines = ndimage.find_objects(labels)
    for i in np.flatnonzero(flat[pixel] != regions):
        box = outlines[regions[i] - 1]
        row, col = _innermost(labels[box] == regions[i])
        pixel[i] = (row + box[0].start) * labels.shape[1] + col + box[1].start
    return pixel


def _innermost(region: _Mask) -> tuple[int, int]:
    """Row and column of the pixel farthest from the region's rim, which the border of the array is too."""
    distance = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    row, col = np.unravel_index(int(np.argmax(distance)), region.shape)
    return int(row), int(col)


def _spread(outside: _Mask, most: int, rng: np.random.Generator | None) -> _Pixels:
    """Pixels of the background, each the farthest from those before (Gonzalez 1985); the first is the innermost one."""
    labels, _ = ndimage.label(outside, np.ones((3, 3), bool))
    large = np.bincount(labels.ravel()) >= LEAST_AREA
    large[0] = False
    outside = large[labels]
    if not outside.any():
        return np.zeros(0, np.intp)
    width = outside.shape[1]
    rows, cols = np.nonzero(outside)
    if rng is None:
        row, col = _innermost(outside)
    else:
        first = rng.integers(len(rows))
        row, col = int(rows[first]), int(cols[first])
    if len(rows) > _GRID**2 * most:
        on_grid = (rows % _GRID == 0) & (cols % _GRID == 0)
        rows, cols = rows[on_grid], cols[on_grid]
    found = [row * width + col]
    nearest = np.full(len(rows), np.inf)
    while len(found) < most and len(rows):
        np.minimum(nearest, (rows - row) ** 2 + (cols - col) ** 2, out=nearest)
        place = int(np.argmax(nearest))
        if nearest[place] == 0:
            break
        row, col = int(rows[place]), int(cols[place])
        found.append(row * width + col)
    return np.array(found, np.intp)
