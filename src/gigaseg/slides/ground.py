"""True size of a raster's pixels on the ground."""

from __future__ import annotations

import math

import numpy as np
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

Affine = tuple[float, float, float, float, float, float]


def ground_pixel_size(crs: str, transform: Affine, width: int, height: int) -> tuple[float, float]:
    """Size of the raster's central pixel on the ground.

    The geodesic length, on the ellipsoid of the CRS, of one pixel's step along x and along y around the
    centre of the raster. So degrees, the 1/cos(latitude) of EPSG:3857 and the scale factor of a UTM zone need
    no case of their own. A CRS without a geographic base (local, engineering) has no ellipsoid: the affine's
    steps in its own linear unit are taken.

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
    a, b, c, d, e, f = transform
    centre = np.array([width / 2, height / 2])
    steps = np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]]) + centre
    x = a * steps[:, 0] + b * steps[:, 1] + c
    y = d * steps[:, 0] + e * steps[:, 1] + f
    base = system.geodetic_crs
    if base is None or system.is_geocentric:
        metres = system.axis_info[0].unit_conversion_factor if system.axis_info else 1.0
        return math.hypot(a, d) * metres, math.hypot(b, e) * metres
    try:
        longitude, latitude = Transformer.from_crs(system, base, always_xy=True).transform(x, y)
    except ProjError:
        return math.nan, math.nan
    to_degrees = math.degrees(base.axis_info[0].unit_conversion_factor)
    ellipsoid = base.ellipsoid
    if ellipsoid is None:
        return math.nan, math.nan
    geod = Geod(a=ellipsoid.semi_major_metre, b=ellipsoid.semi_minor_metre)
    longitude, latitude = np.asarray(longitude) * to_degrees, np.asarray(latitude) * to_degrees
    _, _, length = geod.inv(longitude[::2], latitude[::2], longitude[1::2], latitude[1::2])
    return float(length[0]), float(length[1])
