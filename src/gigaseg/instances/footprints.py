"""Right-angled footprints: outlines of buildings with straight walls along two axes, as a map draws them.

An outline is simplified, the direction that most of its length follows (modulo a right angle) becomes its axes, and
every simplified edge a line: along an axis, or along itself where it is a long diagonal. Consecutive lines meet in the
corners. A line lies where the outline itself lies on average, not where the simplified edge happens to end, so that
pixel noise cancels out and the area stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

LEAST_IOU = 0.9
"""IoU with the outline as drawn below which a result is not accepted."""

MOST_CHANGE = 0.05
"""Relative change of the area above which it is not."""

ROUND = 0.88
"""4 pi area / perimeter² of the simplified outline from which it counts as round: a square has 0.79, a regular hexagon
0.91."""

LEAST_ALIGNED = 0.6
"""Share of the length that must lie within `_NEAR` of the axes; of a circle 0.33 does."""

_NEAR, _SNAP = np.radians(15.0), np.radians(25.0)
"""Angles to an axis: of edges that tell its direction, and up to which an edge is laid along it whatever its length."""

_DIAGONAL = 5.0
"""Tolerances that an edge farther from the axes must be long to stay a diagonal."""

_STRAIGHT = 4.0
"""Tolerances from which the outline along an edge, not only its ends, tells its direction."""

_MEET = float(np.sin(np.radians(20.0)))
"""Sine of the least angle at which two lines make a corner."""

Values = npt.NDArray[np.float64]
Geometry = npt.NDArray[np.object_]


@dataclass
class _Line:
    """The line of points p with p · (-sin angle, cos angle) = offset.

    Attributes
    ----------
    kind : 0 or 1 along the first or second axis, larger numbers for diagonals, each its own.
    weight : length of the outline that it stands for.
    """

    kind: int
    angle: float
    offset: float
    weight: float


@dataclass(frozen=True)
class _Edges:
    """The n edges of a simplified ring, and what they stand for in the outline.

    Attributes
    ----------
    length : (n,) distance of the ends.
    angle : (n,) direction, modulo 180°.
    middle : (n, 2) mean point of the outline between the ends.
    """

    length: Values
    angle: Values
    middle: Values


def regularise(polygons: Sequence[Any] | Geometry, tolerance: float, step: float = 0.0) -> Geometry:
    """Outlines with mostly right angles.

    Accepted is what is valid, changes the area by 5 % at most and has an IoU of at least 0.9 with the outline as drawn;
    else the simplified outline under the same conditions, else the outline as drawn. What is round, or has no two axes
    that most of its length follows, stays as drawn.

    Parameters
    ----------
    polygons : (n,) valid polygons or multipolygons, in a frame in which right angles are right; parts of a multipolygon
        are treated one by one.
    tolerance : how far the outline may lie from the simplified one (Douglas-Peucker), and the least jog of a wall, in
        the unit of the coordinates.
    step : side of the pixels whose edges the outlines follow; 0 for free outlines. What stays as drawn loses its steps.

    Returns
    -------
    (n,) polygons or multipolygons; those that stay are the same objects.
    """
    geometry = np.empty(len(polygons), object)
    geometry[:] = polygons
    whole = shapely.get_type_id(geometry) == 3
    parts, owner = shapely.get_parts(geometry, return_index=True)
    parts[whole[owner]] = geometry[whole]  # shapely makes new objects
    drawn = _first_accepted(parts, [shapely.simplify(parts, step)] if step else [])
    simple = shapely.simplify(drawn, tolerance)
    perimeter = shapely.length(simple)
    compact = 4 * np.pi * np.divide(shapely.area(simple), perimeter**2, out=np.ones(len(parts)), where=perimeter > 0)
    fitted, straightened = drawn.copy(), drawn.copy()
    for i in np.flatnonzero(compact < ROUND):
        rings = _paired_rings(parts[i], simple[i], tolerance)
        axis = _axis(rings) if rings else None
        if axis is not None:
            straightened[i] = simple[i]
            fitted[i] = _fit(simple[i], rings, axis, tolerance)
    done = _first_accepted(parts, [fitted, straightened, drawn])
    result = geometry.copy()
    result[whole] = done[whole[owner]]
    for i in np.flatnonzero(~whole):
        joined = shapely.multipolygons(done[owner == i])
        if any(a is not b for a, b in zip(done[owner == i], parts[owner == i])) and shapely.is_valid(joined):
            result[i] = joined
    return result


def _first_accepted(drawn: Geometry, candidates: Sequence[Geometry]) -> Geometry:
    """The first candidate that is accepted for each outline, else the outline itself."""
    result, open_ = drawn.copy(), np.ones(len(drawn), bool)
    area = shapely.area(drawn)
    for candidate in candidates:
        good = open_ & (shapely.get_type_id(candidate) == 3) & shapely.is_valid(candidate)
        good &= np.abs(shapely.area(candidate) - area) <= MOST_CHANGE * area
        index = np.flatnonzero(good)
        common = shapely.area(shapely.intersection(candidate[index], drawn[index]))
        union = shapely.area(candidate[index]) + area[index] - common
        index = index[common >= LEAST_IOU * union]
        result[index] = candidate[index]
        open_[index] = False
    return result


def _paired_rings(drawn: Any, simple: Any, tolerance: float) -> list[_Edges]:
    """The edges of every ring of the simplified polygon; none when a ring went missing."""
    before, after = shapely.get_rings(drawn), shapely.get_rings(simple)
    if len(before) != len(after):
        return []
    return [_edges(shapely.get_coordinates(a), shapely.get_coordinates(b), tolerance) for a, b in zip(before, after)]


def _edges(outline: Values, simple: Values, tolerance: float) -> _Edges:
    """Edges of a closed ring of which every vertex is one of the outline's."""
    place = {tuple(xy): i for i, xy in enumerate(outline[:-1].tolist())}
    at = np.array([place[tuple(xy)] for xy in simple[:-1].tolist()])
    outline = np.roll(outline[:-1], -at[0], axis=0)
    at = (at - at[0]) % len(outline)
    origin = outline[0]
    start, end = outline - origin, np.roll(outline, -1, axis=0) - origin
    side, middle = end - start, (start + end) / 2
    weight = np.hypot(*side.T)
    moments = np.column_stack([
        np.ones(len(outline)), middle, middle**2 + side**2 / 12, middle.prod(axis=1) + side.prod(axis=1) / 12,
    ]) * weight[:, None]  # fmt: skip
    total, x, y, xx, yy, xy = np.add.reduceat(moments, at).T
    x, y, xx, yy, xy = (sums / total for sums in (x, y, xx, yy, xy))
    chord = np.diff(simple, axis=0)
    length = np.hypot(*chord.T)
    fitted = np.arctan2(2 * (xy - x * y), xx - x * x - (yy - y * y)) / 2
    angle = np.where(length >= _STRAIGHT * tolerance, fitted, np.arctan2(chord[:, 1], chord[:, 0]))
    return _Edges(length, angle % np.pi, np.column_stack([x, y]) + origin)


def _off(angle: Values | float, axis: float) -> Values:
    """Angle to the nearer of two axes, -45°..45°."""
    return np.asarray((angle - axis + np.pi / 4) % (np.pi / 2) - np.pi / 4)


def _axis(rings: Sequence[_Edges]) -> float | None:
    """The direction, modulo 90°, that most of the length follows; None when there is none."""
    angle, length = (np.concatenate([getattr(ring, name) for ring in rings]) for name in ("angle", "length"))
    count = np.bincount((np.degrees(angle) % 90).astype(int) % 90, length, 90)
    around = sum(np.roll(count, shift) for shift in range(-6, 7))
    axis = float(np.radians(int(np.argmax(around)) + 0.5))
    for _ in range(2):
        near = np.abs(_off(angle, axis)) <= _NEAR
        axis += float(np.average(_off(angle, axis)[near], weights=length[near]))
    aligned = length[np.abs(_off(angle, axis)) <= _NEAR].sum()
    return axis if aligned >= LEAST_ALIGNED * length.sum() else None


def _fit(simple: Any, rings: Sequence[_Edges], axis: float, tolerance: float) -> Any:
    """The polygon of lines; a hole without one keeps its simplified ring. None when the shell has none."""
    corners = [_corners(_lines(ring, axis, tolerance)) for ring in rings]
    if corners[0] is None:
        return None
    holes = [ring if found is None else found for ring, found in zip(simple.interiors, corners[1:])]
    return shapely.Polygon(corners[0], holes)


def _lines(ring: _Edges, axis: float, tolerance: float) -> list[_Line]:
    """Lines of a ring in their order: edges of one kind in a row are one line, jogs below `tolerance` are left out."""
    off = np.abs(_off(ring.angle, axis))
    kind = np.rint((ring.angle - axis) / (np.pi / 2)).astype(int) % 2
    diagonal = (off > _SNAP) & (ring.length >= _DIAGONAL * tolerance)
    kind[diagonal] = 2 + np.flatnonzero(diagonal)
    starts = np.flatnonzero(kind != np.roll(kind, 1))
    lines = []
    for run in np.split(np.roll(np.arange(len(kind)), -starts[0]), np.cumsum(np.diff(starts))) if len(starts) else []:
        strong = run[(off[run] <= _SNAP) | diagonal[run]]
        used = strong if len(strong) else run
        own = int(kind[run[0]])
        angle = axis + own * np.pi / 2 if own < 2 else float(ring.angle[run[0]])
        across = ring.middle[used] @ (-np.sin(angle), np.cos(angle))
        lines.append(
            _Line(own, angle, float(np.average(across, weights=ring.length[used])), float(ring.length[used].sum()))
        )
    while len(lines) > 4:
        jogs = [_jog(lines[i - 2], lines[i - 1], lines[i]) for i in range(len(lines))]
        last = int(np.argmin(jogs))
        if jogs[last] >= tolerance:
            break
        first, joined = lines[last - 2], lines[last]
        weight = first.weight + joined.weight
        joined.offset = (first.offset * first.weight + joined.offset * joined.weight) / weight
        joined.weight = weight
        gone = {(last - 2) % len(lines), (last - 1) % len(lines)}
        lines = [line for i, line in enumerate(lines) if i not in gone]
    return lines


def _jog(first: _Line, between: _Line, second: _Line) -> float:
    """Distance of two parallel lines along the axes that a third one joins; infinite for others."""
    if first.kind != second.kind or first.kind > 1 or between.kind > 1:
        return np.inf
    return abs(first.offset - second.offset)


def _corners(lines: Sequence[_Line]) -> Values | None:
    """Where consecutive lines meet, closed; None when two of them hardly do, or there are too few."""
    if len(lines) < 3:
        return None
    angle, offset = (np.array([getattr(line, name) for line in lines]) for name in ("angle", "offset"))
    normal = np.column_stack([-np.sin(angle), np.cos(angle)])
    pairs = np.stack([normal, np.roll(normal, -1, axis=0)], axis=1)
    if (np.abs(np.linalg.det(pairs)) < _MEET).any():
        return None
    found = np.linalg.solve(pairs, np.column_stack([offset, np.roll(offset, -1)])[..., None])[..., 0]
    return np.concatenate([found, found[:1]])
