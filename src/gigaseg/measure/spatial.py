"""Where instances lie to each other: distances, neighbours, density; from centroids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gigaseg.tiles.foreground import Foreground

AREA_OF_DENSITY = {"um": ("mm2", 1e6), "m": ("km2", 1e6), "px": ("megapixel", 1e6)}
"""Area that densities refer to, and how many square units it holds."""

_CHUNK = 200_000

Values = npt.NDArray[np.float64]


def spatial_names(unit: str, radius: float) -> tuple[str, str, str, str]:
    """Columns of `spatial`, in order."""
    within = f"{radius:g}{unit}"
    return (
        f"nn_distance_{unit}",
        f"neighbours_within_{within}",
        f"local_density_per_{AREA_OF_DENSITY[unit][0]}",
        "delaunay_degree",
    )


def spatial(
    centroid: Values, pixel_size: tuple[float, float], unit: str, radius: float, foreground: Foreground
) -> dict[str, Values]:
    """Measure the neighbourhood of every instance.

    Parameters
    ----------
    centroid : (n, 2) x, y in level-0 px.
    pixel_size, unit : of a level-0 pixel.
    radius : within which others count as neighbours, in `unit`.
    foreground : what of the neighbourhood can hold instances at all.

    Returns
    -------
    Columns of (n,) by `spatial_names`:

    nn_distance : to the nearest other centroid; NaN for an only instance.
    neighbours_within : other centroids within `radius`.
    local_density : those neighbours and the instance itself over the area of the disc, of which only the share counts
        that is foreground (taken from the square around the disc), so that a border does not look empty.
    delaunay_degree : number of neighbours in the Delaunay triangulation of all centroids; NaN where there is none
        (fewer than three, all on a line, or a centroid that coincides with another).
    """
    from scipy.spatial import cKDTree

    names = spatial_names(unit, radius)
    n = len(centroid)
    if n == 0:
        return {name: np.empty(0) for name in names}
    place = centroid * np.asarray(pixel_size)
    tree = cKDTree(place)
    nearest, count, density = (np.empty(n) for _ in range(3))
    disc = np.pi * radius**2 / AREA_OF_DENSITY[unit][1]
    reach = radius / np.asarray(pixel_size)
    for first in range(0, n, _CHUNK):
        part = slice(first, first + _CHUNK)
        nearest[part] = tree.query(place[part], k=2)[0][:, 1]
        found = tree.query_ball_point(place[part], radius, return_length=True)
        share = foreground.fraction(np.concatenate([centroid[part] - reach, centroid[part] + reach], axis=1))
        count[part] = found - 1
        density[part] = np.divide(found, disc * share, out=np.full(len(found), np.nan), where=share > 0)
    nearest[np.isinf(nearest)] = np.nan
    return dict(zip(names, (nearest, count, density, delaunay_degree(place))))


def delaunay_degree(place: Values) -> Values:
    """(n,) neighbours of each of (n, 2) points in their Delaunay triangulation; NaN where it has none."""
    from scipy.spatial import Delaunay, QhullError

    try:
        # about their middle, since Qhull loses small differences of large coordinates
        found = Delaunay(place - place.mean(0))
    except (QhullError, ValueError):  # fewer than three points, or all on a line
        return np.full(len(place), np.nan)
    degree = np.bincount(found.simplices.reshape(-1), minlength=len(place)).astype(np.float64)
    # as many neighbours as triangles, and one more at the hull
    degree[np.unique(found.convex_hull)] += 1
    degree[degree == 0] = np.nan
    return degree
