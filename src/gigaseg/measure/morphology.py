"""Shape of instances from their geometry, vectorised over all of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.measure.runs import edges
from gigaseg.slides.ground import areas_of

Values = npt.NDArray[np.float64]

DIMENSION = {
    "area": 2, "perimeter": 1, "equivalent_diameter": 1, "major_axis": 1, "minor_axis": 1,
    "eccentricity": 0, "solidity": 0,
}  # fmt: skip
"""Power of the unit of length of each measurement of `morphology`, but for the orientation."""


def morphology(
    geometry: npt.NDArray[np.object_],
    step: tuple[float, float] | None,
    stretch: Values | None = None,
    origin: Values | None = None,
) -> dict[str, Values]:
    """Measure polygons and multipolygons, holes left out.

    Parameters
    ----------
    geometry : (n,) x right, y down.
    step : size (x, y) of the pixel whose edges the outlines follow, in units of the geometry; None for free outlines.
    stretch : (n, 2, 2) symmetric matrices that make vectors of each geometry's coordinates into lengths
        (`gigaseg.slides.ground`); None: they are lengths.
    origin : (n, 2) centroids in the units of the geometry, where they are known.

    Returns
    -------
    Columns of (n,):

    area, perimeter : holes subtracted; lengths of all rings. An outline along pixel edges is measured through the
        midpoints of its unit edges (each corner of the staircase is cut), since the staircase itself is up to 4/π
        times too long at any resolution: length - corners * ((x + y) / 2 - hypot(x, y) / 2).
    equivalent_diameter : of the circle of the same area.
    major_axis, minor_axis, eccentricity, orientation : of the ellipse with the same second central moments
        (4 sqrt of the eigenvalues); orientation is the angle of the major axis to x in degrees, (-90, 90], positive
        towards y (clockwise on the screen).
    solidity : area over the area of the convex hull.
    """
    n = len(geometry)
    if origin is None:
        origin = shapely.get_coordinates(shapely.centroid(geometry)).reshape(n, 2)
    if stretch is None:
        stretch = np.broadcast_to(np.eye(2), (n, 2, 2))
    lines = _Edges(geometry, origin, stretch)
    area = lines.sum(lines.cross) / 2
    mxx = lines.sum(lines.cross * (lines.x0**2 + lines.x0 * lines.x1 + lines.x1**2)) / 12
    myy = lines.sum(lines.cross * (lines.y0**2 + lines.y0 * lines.y1 + lines.y1**2)) / 12
    mxy = (
        lines.sum(
            lines.cross
            * (lines.x0 * lines.y1 + 2 * lines.x0 * lines.y0 + 2 * lines.x1 * lines.y1 + lines.x1 * lines.y0)
        )
        / 24
    )
    vxx, vyy, vxy = (np.divide(m, area, out=np.zeros(n), where=area > 0) for m in (mxx, myy, mxy))
    spread = np.hypot((vxx - vyy) / 2, vxy)
    large, small = (vxx + vyy) / 2 + spread, np.maximum((vxx + vyy) / 2 - spread, 0)
    # stretching the axes does not change what is convex
    hull = shapely.area(shapely.convex_hull(geometry)) * areas_of(stretch)
    # a round shape's rounding noise has no direction
    round_ = spread <= 1e-9 * large
    return {
        "area": area,
        "perimeter": _perimeter(lines, step, stretch),
        "equivalent_diameter": np.sqrt(4 * area / np.pi),
        "major_axis": 4 * np.sqrt(large),
        "minor_axis": 4 * np.sqrt(small),
        "eccentricity": np.sqrt(np.clip(1 - np.divide(small, large, out=np.ones(n), where=large > 0), 0, 1)),
        "orientation": np.where(round_, 0.0, _half_turn(np.degrees(np.arctan2(2 * vxy, vxx - vyy)) / 2)),
        "solidity": np.divide(area, hull, out=np.ones(n), where=hull > 0).clip(0, 1),
    }


def _half_turn(degrees: Values) -> Values:
    return np.where(degrees <= -90, degrees + 180, degrees)


class _Edges:
    """All edges of all rings, oriented so that shells add and holes subtract, about each instance's own origin."""

    def __init__(self, geometry: npt.NDArray[np.object_], origin: Values, stretch: Values) -> None:
        self.n = len(geometry)
        start, end, self.owner = edges(shapely.orient_polygons(geometry))
        (xx, xy), (_, yy) = stretch[self.owner].transpose(1, 2, 0)
        (x0, y0), (x1, y1) = (start - origin[self.owner]).T, (end - origin[self.owner]).T
        self.x0, self.y0 = xx * x0 + xy * y0, xy * x0 + yy * y0
        self.x1, self.y1 = xx * x1 + xy * y1, xy * x1 + yy * y1
        self.cross = self.x0 * self.y1 - self.x1 * self.y0

    def sum(self, values: Values) -> Values:
        """Sum over the edges of each instance."""
        return np.bincount(self.owner, weights=values, minlength=self.n).astype(np.float64)


def _perimeter(lines: _Edges, step: tuple[float, float] | None, stretch: Values) -> Values:
    length = lines.sum(np.hypot(lines.x1 - lines.x0, lines.y1 - lines.y0))
    if step is None:
        return length
    corners = np.bincount(lines.owner, minlength=lines.n)
    right, down = stretch[:, :, 0] * step[0], stretch[:, :, 1] * step[1]
    # a sheared pixel has two diagonals
    diagonal = (_length(right + down) + _length(right - down)) / 2
    return np.asarray(length - corners * ((_length(right) + _length(down)) / 2 - diagonal / 2))


def _length(vectors: Values) -> Values:
    return np.hypot(vectors[:, 0], vectors[:, 1])
