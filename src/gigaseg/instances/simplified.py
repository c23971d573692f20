"""Outlines with fewer corners that lie nowhere farther from what was drawn than a tolerance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

Geometry = npt.NDArray[np.object_]


def simplify(polygons: Geometry, tolerance: float) -> Geometry:
    """Douglas-Peucker that keeps the topology of each outline.

    What results is valid, has every part and every hole, and lies within `tolerance` of the outline as drawn, as that
    does of it (Hausdorff). Each outline stands for itself: of neighbours that touch, the common border may part or
    overlap by up to two tolerances.

    Parameters
    ----------
    polygons : (n,) valid polygons or multipolygons.
    tolerance : in the unit of the coordinates.

    Returns
    -------
    (n,) polygons or multipolygons; those that stay as drawn are the same objects.
    """
    result = np.array(polygons, dtype=object)
    open_ = np.arange(len(result))
    # GEOS may drop the vertex at which a ring begins without another look at those it dropped before
    for wanted in (tolerance, tolerance / 2):
        drawn = result[open_]
        found = np.asarray(shapely.simplify(drawn, wanted), dtype=object)
        good = shapely.is_valid(found) & (shapely.get_type_id(found) == shapely.get_type_id(drawn))
        good &= _rings(found) == _rings(drawn)
        good &= _farthest(drawn, found) <= tolerance * (1 + 1e-9)
        fewer = shapely.get_num_coordinates(found) < shapely.get_num_coordinates(drawn)
        result[open_[good & fewer]] = found[good & fewer]
        open_ = open_[~good]
    return result


def _rings(geometry: Geometry) -> npt.NDArray[np.int64]:
    parts, owner = shapely.get_parts(geometry, return_index=True)
    return np.bincount(owner, shapely.get_num_interior_rings(parts) + 1, len(geometry)).astype(np.int64)


def _farthest(drawn: Geometry, found: Geometry) -> npt.NDArray[np.float64]:
    """(n,) distance of the farthest corner as drawn from the simplified outline: no other point is farther."""
    xy, owner = shapely.get_coordinates(drawn, return_index=True)
    border = shapely.boundary(found)
    distance = shapely.distance(shapely.points(xy), border[owner])
    farthest = np.zeros(len(drawn))
    np.maximum.at(farthest, owner, np.where(np.isnan(distance), np.inf, distance))
    return farthest
