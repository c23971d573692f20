"""Triangles of whole-numbered points made Delaunay: the incircle test without rounding, flips where it fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_ROUNDING = 2.0**-49
"""Bound of the rounding error of `_determinant` in float64, relative to the sum of its absolute terms: Shewchuk's
static filter (Discrete & Computational Geometry 18 (1997) 305) has 10 units of 2^-53 and a little."""

_EXACT = 2**14
"""Differences of coordinates up to which the determinant, below 12 times their fourth power, is exact in int64."""


def cross(a: npt.NDArray[np.int64 | np.float64], b: npt.NDArray[np.int64 | np.float64]) -> Values:
    """(n,) cross products of (n, 2) vectors; exact for whole numbers up to 2^30."""
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])


def side_of_circle(a: Index, b: Index, c: Index, d: Index) -> Index:
    """(n,) 1, 0 or -1 where `d` lies in, on or outside the circle through `a`, `b`, `c`, counter-clockwise; exact.

    All are (n, 2) whole numbers. Most are decided in float64, what rounding could hide in int64, and the few of these
    that are far apart in Python's integers.
    """
    parts = np.concatenate([a - d, b - d, c - d], axis=1)
    found, scale = _determinant(*parts.T.astype(np.float64))
    sign: Index = np.sign(found).astype(np.int64)
    doubtful = np.flatnonzero(np.abs(found) <= _ROUNDING * scale)
    near = np.abs(parts[doubtful]).max(axis=1, initial=0) <= _EXACT
    sign[doubtful[near]] = np.sign(_determinant(*parts[doubtful[near]].T)[0])
    for i in doubtful[~near].tolist():
        value = _determinant(*parts[i].tolist())[0]
        sign[i] = (value > 0) - (value < 0)
    return sign


def _determinant(ax: Any, ay: Any, bx: Any, by: Any, cx: Any, cy: Any) -> tuple[Any, Any]:
    """Determinant of rows (x, y, x² + y²), and the sum of its absolute terms; of floats or whole numbers."""
    terms = (
        (ax * ax + ay * ay, bx * cy, by * cx),
        (bx * bx + by * by, cx * ay, cy * ax),
        (cx * cx + cy * cy, ax * by, ay * bx),
    )
    found = sum(lift * (left - right) for lift, left, right in terms)
    return found, sum(lift * (abs(left) + abs(right)) for lift, left, right in terms)


def make_delaunay(place: Index, corner: Index, beside: Index) -> Mask:
    """Flip sides (Lawson) until a triangulation is Delaunay; returns (t, 3) whether what lies across is on the circle.

    Parameters
    ----------
    place : (n, 2) points.
    corner, beside : (t, 3) counter-clockwise triangles and what lies across the side opposite each corner, -1 for
        none, of a triangulation that is Delaunay but for rounding; changed in place.
    """
    sign = _signs(place, corner, beside)
    waiting = list(zip(*(axis.tolist() for axis in np.nonzero(sign > 0))))
    flipped = False
    while waiting:
        t, k = waiting.pop()
        other = int(beside[t, k])
        if other < 0 or _across(place, corner, beside, np.array([t]), k)[0] <= 0:
            continue
        m = beside[other].tolist().index(t)
        p, q, r = (int(corner[t, (k + i) % 3]) for i in range(3))
        s = int(corner[other, m])
        a, b, c = place[[q, s, r]] - place[p]
        if (cross(np.array([a, b]), np.array([b, c])) <= 0).any():
            continue  # no triangulation here: Qhull's rounding folded it
        of_q, of_r = int(beside[t, (k + 1) % 3]), int(beside[t, (k + 2) % 3])
        to_r, to_q = int(beside[other, (m + 1) % 3]), int(beside[other, (m + 2) % 3])
        corner[t], beside[t] = (p, q, s), (to_r, other, of_r)
        corner[other], beside[other] = (p, s, r), (to_q, of_q, t)
        for outer, before, now in ((to_r, other, t), (of_q, t, other)):
            if outer >= 0:
                beside[outer, beside[outer].tolist().index(before)] = now
        waiting += [(t, 0), (t, 2), (other, 0), (other, 1)]
        flipped = True
    if flipped:
        sign = _signs(place, corner, beside)
    tied = sign == 0
    one, side = np.nonzero(tied)
    across = beside[one, side]
    tied[across, np.argmax(beside[across] == one[:, np.newaxis], axis=1)] = True
    return np.asarray(tied)


def _signs(place: Index, corner: Index, beside: Index) -> Index:
    """(t, 3) `side_of_circle` of the point across each side, told by the first of two triangles; -1 elsewhere."""
    sign = np.full(corner.shape, -1)
    for k in range(3):
        one = np.flatnonzero(beside[:, k] > np.arange(len(corner)))
        sign[one, k] = _across(place, corner, beside, one, k)
    return sign


def _across(place: Index, corner: Index, beside: Index, one: Index, k: int) -> Index:
    """`side_of_circle` of the point across side `k` of each of the triangles `one`."""
    side = corner[one][:, [(k + 1) % 3, (k + 2) % 3]]
    across = corner[beside[one, k]].sum(1) - side.sum(1)
    return side_of_circle(*(place[point] for point in (corner[one, k], side[:, 0], side[:, 1], across)))
