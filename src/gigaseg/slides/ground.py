"""True sizes on the ground: of a raster's central pixel, and of what lies anywhere in it.

A georeferenced raster has its places on the ellipsoid of its CRS. Two steps of a pixel there, along x and along y, tell
what lengths and areas become around a place, so degrees, the 1/cos(latitude) of EPSG:3857, the scale factor of a UTM
zone and a rotated or sheared affine need no case of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

from gigaseg.slides.base import SlideInfo

Affine = tuple[float, float, float, float, float, float]
Values = npt.NDArray[np.float64]

_PER_METRE = {"m": 1.0, "um": 1e6}

_NODES = 65
"""Places along x and y at which a raster is asked for its least size of a pixel."""


class Ground(Protocol):
    """What lengths and areas of a slide are on the specimen or on the ground, in the slide's unit."""

    def place(self, xy: Values) -> Values:
        """(n, 2 or 3) places of (n, 2) level-0 px whose straight distances are the true ones of neighbours."""
        ...

    def stretch(self, xy: Values) -> Values:
        """(n, 2, 2) symmetric matrices that make vectors in level-0 px around (n, 2) places into lengths."""
        ...

    def least_rise(self, width: int, height: int) -> float:
        """Least true distance, anywhere in a slide of that size, of two lines of pixels one row apart."""
        ...


@dataclass(frozen=True)
class Flat:
    """Pixels of one size everywhere."""

    pixel_size: tuple[float, float]

    def place(self, xy: Values) -> Values:
        """See `Ground`."""
        return np.asarray(xy * np.asarray(self.pixel_size))

    def stretch(self, xy: Values) -> Values:
        """See `Ground`."""
        return np.asarray(np.broadcast_to(np.diag(self.pixel_size), (len(xy), 2, 2)))

    def least_rise(self, width: int, height: int) -> float:
        """See `Ground`."""
        return self.pixel_size[1]


@dataclass(frozen=True)
class Geodetic:
    """Pixels of a georeferenced raster, on the ellipsoid of its CRS.

    Attributes
    ----------
    crs : WKT, with a geographic base.
    transform : affine (a, b, c, d, e, f) from level-0 px to the CRS.
    per_metre : units of length a metre.
    """

    crs: str
    transform: Affine
    per_metre: float = 1.0

    def place(self, xy: Values) -> Values:
        """(n, 3) geocentric places: the chord of neighbours 10 km apart is 1e-7 shorter than the way on the ground."""
        base = _base_of(self.crs)
        assert base is not None
        longitude, latitude = _geographic(base, self.transform, xy)
        a, b = base.axes
        squared = 1 - (b / a) ** 2
        sine, cosine = np.sin(latitude), np.cos(latitude)
        across = a / np.sqrt(1 - squared * sine**2)
        found = [
            across * cosine * np.cos(longitude),
            across * cosine * np.sin(longitude),
            across * (1 - squared) * sine,
        ]
        return np.column_stack(found) * self.per_metre

    def stretch(self, xy: Values) -> Values:
        """See `Ground`; not a number outside the area in which the CRS is defined.

        The square root of the metric tensor J'J, J the two steps of a pixel: it keeps the pixels' own directions,
        and no rotation of the raster against north gets in.
        """
        xy = np.asarray(xy, np.float64).reshape(-1, 2)
        half = np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])
        left, right, up, down = self.place((xy + half[:, None]).reshape(-1, 2)).reshape(4, -1, 3)
        x, y = right - left, down - up
        xx, xy_, yy = (np.einsum("ij,ij->i", *pair) for pair in ((x, x), (x, y), (y, y)))
        area = np.sqrt(np.maximum(xx * yy - xy_**2, 0))
        root = np.sqrt(xx + yy + 2 * area)
        return np.asarray(np.stack([xx + area, xy_, xy_, yy + area], axis=1).reshape(-1, 2, 2) / root[:, None, None])

    def least_rise(self, width: int, height: int) -> float:
        """See `Ground`; of 65 x 65 places, a hundredth less, since the least one may lie between."""
        y, x = (side.reshape(-1) for side in np.meshgrid(np.linspace(0, height, _NODES), np.linspace(0, width, _NODES)))
        stretch = self.stretch(np.column_stack([x, y]))
        along = np.hypot(stretch[:, 0, 0], stretch[:, 1, 0])
        rise = areas_of(stretch) / np.where(along > 0, along, np.nan)
        finite = rise[np.isfinite(rise)]
        return float(finite.min() * 0.99) if len(finite) else 0.0


def ground_of(info: SlideInfo) -> Ground:
    """The ground of a slide: geodetic where its pixel size comes from its CRS, else flat, of the size it has.

    A pixel size from the sheet counts everywhere.
    """
    if info.crs is None or info.transform is None or info.unit not in _PER_METRE:
        return Flat(info.pixel_size)
    if info.pixel_size_source != "metadata" or _base_of(info.crs) is None:
        return Flat(info.pixel_size)
    return Geodetic(info.crs, info.transform, _PER_METRE[info.unit])


def areas_of(stretch: Values) -> Values:
    """(n,) area of a pixel with each of (n, 2, 2) stretches."""
    return np.asarray(stretch[..., 0, 0] * stretch[..., 1, 1] - stretch[..., 0, 1] * stretch[..., 1, 0])


@dataclass(frozen=True)
class _Base:
    """The geographic CRS below another one: the way to it, radians of its unit, semi-axes of its ellipsoid (m)."""

    to_base: Transformer
    radians: float
    axes: tuple[float, float]


@lru_cache(maxsize=8)
def _base_of(crs: str) -> _Base | None:
    """None for a CRS without one (local, engineering) or without an ellipsoid."""
    system = CRS.from_wkt(crs)
    base = system.geodetic_crs
    if base is None or system.is_geocentric or base.ellipsoid is None:
        return None
    ellipsoid = base.ellipsoid
    transformer = Transformer.from_crs(system, base, always_xy=True)
    axes = ellipsoid.semi_major_metre, ellipsoid.semi_minor_metre
    return _Base(transformer, base.axis_info[0].unit_conversion_factor, axes)


def _geographic(base: _Base, transform: Affine, xy: Values) -> tuple[Values, Values]:
    """Longitude and latitude in radians of (n, 2) px."""
    a, b, c, d, e, f = transform
    x = a * xy[:, 0] + b * xy[:, 1] + c
    y = d * xy[:, 0] + e * xy[:, 1] + f
    try:
        found: tuple[Any, Any] = base.to_base.transform(x, y)
    except ProjError:
        found = np.full(len(x), np.nan), np.full(len(x), np.nan)
    longitude, latitude = (np.where(np.isfinite(angle), angle, np.nan) * base.radians for angle in found)
    return longitude, latitude


def ground_pixel_size(crs: str, transform: Affine, width: int, height: int) -> tuple[float, float]:
    """Size of the raster's central pixel on the ground.

    The geodesic length, on the ellipsoid of the CRS, of one pixel's step along x and along y around the centre of the
    raster. A CRS without a geographic base (local, engineering) has no ellipsoid: the affine's steps in its own linear
    unit are taken.

    Parameters
    ----------
    crs : WKT.
    transform : affine (a, b, c, d, e, f) from px to the CRS.
    width, height : px.

    Returns
    -------
    (x, y) in metres; not finite where the centre lies outside the area in which the CRS is defined.

    Examples
    --------
    At 60 degrees north a metre of EPSG:3857 is about half a metre on the ground.

    >>> from pyproj import CRS
    >>> x, y = ground_pixel_size(CRS(3857).to_wkt(), (1, 0, 0, 0, -1, 8399738), 10, 10)
    >>> round(x, 3), round(y, 3)
    (0.501, 0.5)
    """
    system = CRS.from_wkt(crs)
    a, b, _, d, e, _ = transform
    base = _base_of(crs)
    if base is None:
        if system.geodetic_crs is not None and not system.is_geocentric:
            return math.nan, math.nan
        metres = system.axis_info[0].unit_conversion_factor if system.axis_info else 1.0
        return math.hypot(a, d) * metres, math.hypot(b, e) * metres
    centre = np.array([width / 2, height / 2])
    steps = np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]]) + centre
    longitude, latitude = (np.degrees(angle) for angle in _geographic(base, transform, steps))
    geod = Geod(a=base.axes[0], b=base.axes[1])
    _, _, length = geod.inv(longitude[::2], latitude[::2], longitude[1::2], latitude[1::2])
    return float(length[0]), float(length[1])
