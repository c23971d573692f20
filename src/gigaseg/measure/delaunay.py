"""Delaunay degrees of points that are known strip by strip: exactly those of all points.

A triangle of the points in reach is one of all points when its circumcircle lies in the area whose points are all in
reach. A point of which all triangles are known so is settled. For the rest (the hull, rims of voids wider than the
reach) the triangles that any strip is sure of are kept; what is missing between them has only unsettled corners, and a
Delaunay triangle of all points stays one among fewer. So it is found in the triangulation of the unsettled points,
where it is told from those that overlap a known triangle.

Of four points on one circle either diagonal makes a triangulation, and neither counts: neighbours are points whose
Voronoi cells share an edge. Points are whole numbers of grains, and what lies on, in or outside a circle is decided
exactly (`gigaseg.measure.incircle`), so the degrees depend neither on how Qhull breaks ties nor on its rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gigaseg.measure.incircle import Index, Mask, Values, cross, make_delaunay

GRAIN = 256
"""Points are rounded to 1/256 of a pixel, and coincide when they round alike; Qhull loses smaller distances."""


def grains(centroid: Values, pixel_size: tuple[float, float]) -> Values:
    """(n, 2) whole numbers from (n, 2) level-0 px: 1/256 px along x, lengths along y in the same measure."""
    return np.asarray(np.rint(centroid * (GRAIN, GRAIN * pixel_size[1] / pixel_size[0])))


@dataclass(frozen=True)
class Triangles:
    """t triangles, counter-clockwise where y points up; corner k is opposite side k.

    Attributes
    ----------
    corner : (t, 3) points.
    tied : (t, 3) whether what lies across a side is on the same circle.
    beside : (t, 3) triangle across each side, -1 for none.
    """

    corner: Index
    tied: Mask
    beside: Index

    def take(self, index: Index | Mask) -> Triangles:
        """The triangles `index`; `beside` loses its meaning."""
        return Triangles(self.corner[index], self.tied[index], self.beside[index])


def triangulate(place: Values) -> Triangles:
    """Delaunay triangles of (n, 2) distinct points of `grains`; none for fewer than three, or all on a line."""
    from scipy.spatial import Delaunay, QhullError

    nothing = Triangles(np.empty((0, 3), np.int64), np.empty((0, 3), bool), np.empty((0, 3), np.int64))
    if len(place) < 3:
        return nothing
    try:
        # about their middle, since Qhull loses small differences of large coordinates
        found = Delaunay(place - np.rint(place.mean(0)))
    except QhullError:
        return nothing
    whole = place.astype(np.int64)
    corner, beside = found.simplices.astype(np.int64), found.neighbors.astype(np.int64)
    a, b, c = (whole[corner[:, k]] for k in range(3))
    double_area = cross(b - a, c - a)
    turned = double_area < 0
    corner[turned] = corner[turned][:, [0, 2, 1]]
    beside[turned] = beside[turned][:, [0, 2, 1]]
    keep = double_area != 0  # Qhull may close the hull with flat triangles
    number = np.append(np.where(keep, np.cumsum(keep) - 1, -1), -1)
    corner, beside = corner[keep], number[beside[keep]]
    return Triangles(corner, make_delaunay(whole, corner, beside), beside)


def circles(place: Values, corner: Index) -> tuple[Values, Values]:
    """Least and largest y of the circumcircle of each of (t, 3) triangles."""
    a = place[corner[:, 0]]
    b, c = place[corner[:, 1]] - a, place[corner[:, 2]] - a
    divisor = 2 * cross(b, c)
    x = (c[:, 1] * _square(b) - b[:, 1] * _square(c)) / divisor
    y = (b[:, 0] * _square(c) - c[:, 0] * _square(b)) / divisor
    radius = np.hypot(x, y) * (1 + 1e-6)  # what rounding may hide
    return a[:, 1] + y - radius, a[:, 1] + y + radius


@dataclass(frozen=True)
class Settled:
    """What a strip knows of the triangulation of all points.

    Attributes
    ----------
    degree : (n,) of each point in reach, NaN where unsettled.
    unsettled : (n,) own points whose triangles are not all known.
    known : triangles of all points that the rest needs: those at own points with an unsettled or foreign corner.
    """

    degree: Values
    unsettled: Mask
    known: Triangles


def settle(place: Values, own: Mask, low: float, high: float) -> Settled:
    """Triangulate the points in reach and tell what is final.

    Parameters
    ----------
    place : (n, 2) distinct points: all there are with low <= y <= high.
    own : (n,) the points asked for.
    """
    found = triangulate(place)
    n, corner = len(place), found.corner
    bottom, top = circles(place, corner)
    sure = (bottom > low) & (top < high)
    open_ = np.ones(n, bool)
    open_[corner] = False
    open_[corner[~sure]] = True
    for k in range(3):
        rim = found.beside[:, k] < 0
        open_[corner[rim, (k + 1) % 3]] = open_[corner[rim, (k + 2) % 3]] = True
    degree = np.bincount(corner.reshape(-1), minlength=n).astype(np.float64)
    for k in range(3):
        tied = found.tied[:, k]
        # a side belongs to two triangles
        for i in (1, 2):
            degree -= np.bincount(corner[tied, (k + i) % 3], minlength=n) / 2
    settled = own & ~open_
    degree[~settled] = np.nan
    wanted = sure & own[corner].any(1) & ~settled[corner].all(1)
    while True:  # all triangles of points on one circle, or none
        across = found.beside[wanted][found.tied[wanted]]
        if wanted[across].all():
            break
        wanted[across] = True
    return Settled(degree, own & open_, found.take(wanted))


def degrees_of_rest(place: Values, unsettled: Mask, known: Triangles) -> Values:
    """(n,) degrees of the unsettled points, NaN for others and where there is no triangle.

    Parameters
    ----------
    place : (n, 2) the unsettled points of all strips and the corners of `known`.
    unsettled : (n,) which are unsettled.
    known : triangles that strips were sure of, possibly several times.
    """
    n = len(place)
    known = known.take(np.flatnonzero(unsettled[known.corner].any(1)))
    rest = np.flatnonzero(unsettled)
    found = triangulate(place[rest])
    missing = Triangles(rest[found.corner], found.tied, found.beside)
    missing = missing.take(~_covered(place, missing.corner, known.corner))
    key, tie = [], []
    for part in (known, missing):
        for k in range(3):
            side = np.sort(part.corner[:, [(k + 1) % 3, (k + 2) % 3]], axis=1)
            key.append(side[:, 0] * n + side[:, 1])
            tie.append(part.tied[:, k])
    edge, position = np.unique(np.concatenate(key), return_inverse=True)
    # a diagonal between points of one circle is none, whoever drew it
    real = np.bincount(position, np.concatenate(tie), len(edge)) == 0
    degree = np.bincount(np.concatenate(np.divmod(edge[real], max(n, 1))), minlength=n).astype(np.float64)
    degree[~unsettled | (degree == 0)] = np.nan
    return degree


def _covered(place: Values, corner: Index, known: Index) -> Mask:
    """(t,) whether a triangle overlaps a known one: they tile the same area, so its first corner tells."""
    whole = place.astype(np.int64)
    right, left = (whole[corner[:, k]] - whole[corner[:, 0]] for k in (1, 2))
    # each known triangle once at each of its corners, by corner
    fan = np.concatenate([np.roll(known, -k, axis=1) for k in range(3)])
    fan = fan[np.argsort(fan[:, 0], kind="stable")]
    first = np.searchsorted(fan[:, 0], corner[:, 0])
    count = np.searchsorted(fan[:, 0], corner[:, 0], "right") - first
    pair = np.repeat(np.arange(len(corner)), count)
    of = np.arange(len(pair)) + np.repeat(first - (np.cumsum(count) - count), count)
    start, end = (whole[fan[of, k]] - whole[fan[of, 0]] for k in (1, 2))
    # two angles overlap when one begins in the other
    begins = (cross(start, right[pair]) >= 0) & (cross(right[pair], end) > 0)
    begins |= (cross(right[pair], start) >= 0) & (cross(start, left[pair]) > 0)
    covered = np.zeros(len(corner), bool)
    covered[pair[begins]] = True
    return covered


def _square(a: Values) -> Values:
    return np.asarray(a[:, 0] ** 2 + a[:, 1] ** 2)
