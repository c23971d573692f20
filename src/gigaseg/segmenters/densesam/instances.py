"""From DenseSAM's two maps of a tile, objects and boundaries, to its instances: a marker-controlled watershed.

`robust` looks at a pixel and the component of foreground around it, never at where the tile lies, so that two tiles
mostly agree where they overlap. It needs no more than scipy: it runs in training too. `paper` is the published rule,
for published figures; its thresholds depend on the whole tile, so that one object may differ between two tiles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.segmenters.regions import connected, large_enough, renumbered

_Labels = npt.NDArray[np.int32]
_Mask = npt.NDArray[np.bool_]
_Map = npt.NDArray[np.float32]
_Indices = npt.NDArray[np.signedinteger[Any]]

OBJECT, BOUNDARY = 0.5, 0.25
"""Probabilities from which a pixel is an object's, and from which it is a boundary's.

Chosen by benchmarks/densesam_instances.py on the true maps of 150 training images of the 2018 Data Science Bowl, scaled
to a median diameter of 26 px, as they are and blurred, on a coarser grid or with noise: a line of two pixels that is
blurred hardly reaches 0.5. Blurred by 2 px, PQ is 0.938 at 0.25 and 0.805 at 0.5, on a grid of 4 px 0.916 and 0.778
(0.880 at 0.3). Sharper maps would gain from 0.5: blurred by 1 px 0.982 and 0.985, at half the scale 0.944 and 0.965;
as they are it makes no difference. On the 67 validation images `robust` has 0.994, `paper` 0.942, components alone
0.868; blurred by 2 px 0.938, 0.886 and 0.791."""

MARKER_AREA = 5
"""Least area of a marker where a component of foreground has several, px: a 3×3 cross. So it is the opening that keeps
specks from being objects, and only what the border cuts can be smaller. More helps noisy maps little (10: PQ 0.886, 5:
0.885) and costs at half the scale (0.978 and 0.981 on true maps; 20: 0.967). A least share of the component's
largest marker was tried on 50 of the images: 0.05 loses 0.008 of AJI on true maps, 0.2 0.023."""

CONTOUR_SHARE = 5
"""`paper` drops contours of no more than the mean area divided by this."""

_ALONG = ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1]))
"""Each pixel and its neighbour: down, and to the right."""


def paper(objects: _Map, boundaries: _Map) -> _Labels:
    """The published rule (Zhou et al., IJCAI 2025; the released code says what the text on eq. 10 leaves open).

    Both maps in 8 bits. Foreground: objects above their threshold of Otsu. Boundary: stretched to 10..350, saturating
    at 255, above the threshold of Otsu. What is foreground and no boundary is opened by a 3×3 cross; outer contours of
    more than a fifth of their mean area, filled, are the markers (4 neighbours) of a watershed that leaves a line
    between objects. So a component without a marker is lost, and where the boundaries are constant there is nothing.

    One departure: objects of one constant value are none, where OpenCV's Otsu would call all above 0 foreground.

    Parameters
    ----------
    objects, boundaries : (h, w) float32 probabilities, 0 to 1.

    Returns
    -------
    (h, w) int32: 0 background and lines, 1..n.
    """
    import cv2
    from skimage.segmentation import watershed

    none = np.zeros(objects.shape, np.int32)
    if objects.size == 0:
        return none
    eight_bit, boundaries_eight_bit = ((255 * values).astype(np.uint8) for values in (objects, boundaries))
    if eight_bit.min() == eight_bit.max():
        return none
    _, foreground = cv2.threshold(eight_bit, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    stretched = cv2.normalize(boundaries_eight_bit, np.empty_like(eight_bit), 10, 350, cv2.NORM_MINMAX)
    _, inner = cv2.threshold(stretched, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    interior = cv2.morphologyEx(cv2.bitwise_and(foreground, inner), cv2.MORPH_OPEN, cross)
    contours, _ = cv2.findContours(interior, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = [cv2.contourArea(contour) for contour in contours]
    large = [contour for contour, area in zip(contours, areas) if CONTOUR_SHARE * len(areas) * area > sum(areas)]
    if not large:
        return none
    filled = cv2.drawContours(np.zeros_like(interior), large, -1, 255, cv2.FILLED)
    markers, _ = connected(filled > 0, corners=False)
    inside = np.asarray(foreground > 0)
    labels: _Labels = watershed(inside, markers, mask=inside, watershed_line=True)  # type: ignore[no-untyped-call]
    numbers: _Labels = renumbered(np.bincount(labels.ravel()) > 0)[labels]
    return numbers


def robust(
    objects: _Map,
    boundaries: _Map,
    *,
    threshold: float = OBJECT,
    boundary: float = BOUNDARY,
    marker_area: float = MARKER_AREA,
    min_area: float = 0.0,
) -> _Labels:
    """Objects that part where boundaries run between them, without what `paper` loses.

    Markers are what an opening by a 3×3 cross leaves of the foreground that is no boundary. A component of foreground
    with one marker or none is one object; where there are several, each pixel goes to the nearest by steps within the
    foreground. A hole that one object alone surrounds is filled, for nuclei have none; a gap between objects stays.
    But for holes, and what `min_area` leaves out, the union of the objects is the foreground.

    Parameters
    ----------
    objects, boundaries : (h, w) float32 probabilities, 0 to 1. The tile's border is a cut, no boundary.
    threshold, boundary : probabilities, see `BOUNDARY`.
    marker_area : px, see `MARKER_AREA`.
    min_area : px; smaller objects are left out, see `gigaseg.segmenters.regions.large_enough`.

    Returns
    -------
    (h, w) int32: 0 background, 1..n: one object of each component in the order of their first pixels, then the others.
    """
    # with a rim of background, neighbours are a fixed step apart in the flat arrays
    foreground = np.pad(objects >= threshold, 1)
    if not foreground.any():
        return np.zeros(objects.shape, np.int32)
    labels, count = connected(foreground)
    interior = np.pad(_opened(foreground[1:-1, 1:-1] & (boundaries < boundary)), 1)
    flat, width = labels.ravel(), labels.shape[1]
    seeds, number, parted = _seeds(interior, flat, count, marker_area)
    if len(seeds):
        shared = np.flatnonzero(foreground)
        shared = shared[parted[flat[shared]]]
        flat[shared] = 0
        flat[seeds] = number
        _spread(flat, shared[flat[shared] == 0], width)
    _fill(flat, width)
    return large_enough(np.ascontiguousarray(labels[1:-1, 1:-1]), min_area)


def dilated(mask: _Mask) -> _Mask:
    """Dilation by a 3×3 cross."""
    result = mask.copy()
    for one, other in _ALONG:
        result[one] |= mask[other]
        result[other] |= mask[one]
    return result


def _opened(mask: _Mask) -> _Mask:
    """Opening by a 3×3 cross; beyond the border the mask goes on."""
    eroded = mask.copy()
    for one, other in _ALONG:
        eroded[one] &= mask[other]
        eroded[other] &= mask[one]
    return dilated(eroded)


def _seeds(interior: _Mask, component: _Labels, count: int, least: float) -> tuple[_Indices, _Labels, _Mask]:
    """Where the markers lie in those of `count` components that have several, and their objects.

    Returns
    -------
    Flat indices (m,) and object numbers (m,): the first marker of a component keeps its number, the others have
    numbers after `count`; and whether each component has several, (count + 1,).
    """
    marker, markers = connected(interior, corners=False)
    inside = np.flatnonzero(interior)
    of_pixel = marker.ravel()[inside]
    home = np.zeros(markers + 1, np.int32)
    home[of_pixel] = component[inside]
    kept = np.bincount(of_pixel, minlength=markers + 1) >= least
    kept[0] = False
    parted = np.bincount(home[kept], minlength=count + 1) > 1
    several = np.flatnonzero(kept & parted[home])
    _, first = np.unique(home[several], return_index=True)
    others = np.delete(several, first)
    number = np.zeros(markers + 1, np.int32)
    number[several] = home[several]
    number[others] = np.arange(count + 1, count + 1 + len(others))
    of_pixel = number[of_pixel]
    return inside[of_pixel > 0], of_pixel[of_pixel > 0], parted


def _spread(labels: _Labels, rest: _Indices, width: int) -> None:
    """Label the pixels `rest` of flat labels, in place, by waves over 8 neighbours from those that have a label.

    What two labels reach in one wave goes to the one above, left, right, below, then over a corner. After the first,
    only the front of the wave is visited: skimage's watershed, which sorts all pixels, takes several times as long.
    """
    steps = (width, 1, -1, -width, width + 1, width - 1, 1 - width, -width - 1)
    label = labels[rest - steps[0]]
    for step in steps[1:]:
        none = np.flatnonzero(label == 0)
        label[none] = labels[rest[none] - step]
    front = rest[label > 0]
    labels[front] = label[label > 0]
    waiting = np.zeros(len(labels), np.bool_)
    waiting[rest[label == 0]] = True
    while len(front):
        reached = []
        for step in steps:
            places = front + step
            free = np.flatnonzero(waiting[places])
            places = places[free]
            labels[places] = labels[front[free]]
            waiting[places] = False
            reached.append(places)
        front = np.concatenate(reached)


def _fill(labels: _Labels, width: int) -> None:
    """Give holes that one object alone surrounds to it, in flat labels with a rim of background, in place.

    Works on runs of background along the rows, which are far fewer than pixels; a run goes on from the end of a row to
    the start of the next, both outside. Runs are neighbours if one, a row further, meets the other.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.flatnonzero(np.diff(labels == 0, prepend=False, append=False))
    start, stop = edges[::2], edges[1::2]
    low = np.searchsorted(stop, start + width, side="right")
    below = np.searchsorted(start, stop + width, side="left") - low
    pairs = np.repeat(np.arange(len(start)), below), _ranges(low, below)
    joined = coo_array((np.ones(len(pairs[0]), np.bool_), pairs), shape=(len(start), len(start)))
    count, background = connected_components(joined, directed=False)
    hole = background != background[0]
    length = (stop - start)[hole]
    inside, of_pixel = _ranges(start[hole], length), np.repeat(background[hole], length)
    least, most = np.full(count, np.iinfo(np.int32).max, np.int32), np.zeros(count, np.int32)
    for step in (-width, -1, 1, width):
        beside = labels[inside + step]
        object_there = beside > 0
        np.minimum.at(least, of_pixel[object_there], beside[object_there])
        np.maximum.at(most, of_pixel[object_there], beside[object_there])
    labels[inside] = np.where(least == most, most, 0)[of_pixel]


def _ranges(start: _Indices, length: _Indices) -> _Indices:
    """All of start, start + 1, … of each range, one after the other."""
    end = np.cumsum(length)
    return np.arange(length.sum()) + np.repeat(start - end + length, length)
