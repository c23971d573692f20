"""Where instances lie to each other: distances, neighbours, density; from centroids, strip by strip of the slide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gigaseg.measure.delaunay import Triangles, degrees_of_rest, grains
from gigaseg.measure.store import Store
from gigaseg.measure.strips import Neighbourhood, Points, measure_strip
from gigaseg.runner import Runner
from gigaseg.slides.base import SlideInfo
from gigaseg.slides.ground import Ground, areas_of
from gigaseg.tiles.foreground import Foreground

AREA_OF_DENSITY = {"um": ("mm2", 1e6), "m": ("km2", 1e6), "px": ("megapixel", 1e6)}
"""Area that densities refer to, and how many square units it holds."""

STRIP = 4
"""Centroids of a strip for each instance of a block: they need a few hundred bytes, outlines and pixels thousands."""

_CHUNK = 200_000

Values = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


def spatial_columns(unit: str, radius: float) -> tuple[str, str, str, str]:
    """Columns of `spatial`, in order."""
    within = f"{radius:g}{unit}"
    return (
        f"nn_distance_{unit}",
        f"neighbours_within_{within}",
        f"local_density_per_{AREA_OF_DENSITY[unit][0]}",
        "delaunay_degree",
    )


def spatial(
    store: Store, info: SlideInfo, ground: Ground, radius: float, foreground: Foreground, runner: Runner, block: int
) -> None:
    """Measure the neighbourhood of every instance; the result depends on neither `runner` nor `block`.

    Parameters
    ----------
    store : has columns centroid_x_px and centroid_y_px, level-0 px; gets those of `spatial_columns`:

        nn_distance : to the nearest other centroid; NaN for an only instance.
        neighbours_within : other centroids within `radius`.
        local_density : those neighbours and the instance itself over the area of the disc, of which only the share
            counts that is foreground (taken from the square around the disc), so that a border does not look empty.
        delaunay_degree : number of other centroids whose Voronoi cell shares an edge with its own. Centroids that
            coincide (within 1/256 px) count as one and have the same degree; NaN for fewer than three, or all on a
            line. Drawn with the shape that pixels have in the middle of the slide.
    info : pixel size and unit of the slide.
    ground : tells distances anywhere in it.
    radius : within which others count as neighbours, in the slide's unit.
    foreground : what of the neighbourhood can hold instances at all.
    runner : works on the strips.
    block : instances of a block.
    """
    names = spatial_columns(info.unit, radius)
    points = Points.of(store)
    rise = ground.least_rise(info.width, info.height)
    job = Neighbourhood(points, ground, rise, info.pixel_size, info.width, info.height, radius)
    strips = points.strips(STRIP * block, info.height)
    far, near, rest, same, known = [], [], [], [], []
    for found in runner.map(measure_strip, job, strips):
        nearest = np.where(np.isinf(found.nearest), np.nan, found.nearest)
        for name, values in zip((names[0], names[1], names[3]), (nearest, found.within, found.degree)):
            store.write(name, found.row, values)
        far.append(found.row[found.far])
        near.append(found.nearest[found.far])
        rest.append(found.unsettled)
        same.append(found.same)
        known.append(found.known)
    rows = np.concatenate(far)
    store.write(names[0], rows, _nearest(job, strips, rows, np.concatenate(near)))
    degree = _degrees(points, info.pixel_size, np.concatenate(same), known)
    store.write(names[3], np.concatenate(rest), degree)
    _density(store, info, ground, radius, foreground, names)


def _nearest(job: Neighbourhood, strips: Sequence[tuple[float, float]], rows: Index, known: Values) -> Values:
    """Distance to the nearest other centroid, for those whose own strip and its reach held none near enough."""
    from scipy.spatial import cKDTree

    best = known.copy()
    if len(rows) == 0:
        return best
    centroid = job.points.at(rows)
    place = job.ground.place(centroid)
    for low, high in strips:
        gap = np.maximum(low - centroid[:, 1], centroid[:, 1] - high) * job.rise
        asked = np.flatnonzero((gap >= 0) & (gap <= best))  # its own strip has been searched
        if len(asked):
            _, others = job.points.between(low, high)
            others = job.ground.place(others)
            others = others[np.isfinite(others).all(axis=1)]
            if len(others):
                found = cKDTree(others).query(place[asked])[0]
                best[asked] = np.minimum(best[asked], found)
    return np.where(np.isinf(best), np.nan, best)


def _degrees(points: Points, size: tuple[float, float], same: Index, known: Sequence[Triangles]) -> Values:
    """Degree of each of `same`, rows of points that no strip could settle."""
    if len(same) == 0:
        return np.empty(0)
    corner, tied = (np.concatenate([getattr(part, name) for part in known]) for name in ("corner", "tied"))
    row, position = np.unique(np.concatenate([same, corner.reshape(-1)]), return_inverse=True)
    asked = position[: len(same)]
    unsettled = np.zeros(len(row), bool)
    unsettled[asked] = True
    triangles = Triangles(position[len(same) :].reshape(-1, 3), tied, np.full(corner.shape, -1))
    return degrees_of_rest(grains(points.at(row), size), unsettled, triangles)[asked]


def _density(
    store: Store, info: SlideInfo, ground: Ground, radius: float, foreground: Foreground, names: Sequence[str]
) -> None:
    disc = np.pi * radius**2 / AREA_OF_DENSITY[info.unit][1]
    for first in range(0, store.count, _CHUNK):
        part = slice(first, first + _CHUNK)
        centroid = np.column_stack([store.read(name, part) for name in ("centroid_x_px", "centroid_y_px")])
        stretch = ground.stretch(centroid)
        # of the box around the disc, which a sheared pixel makes an ellipse
        along = np.hypot(stretch[:, 0], stretch[:, 1])
        reach = np.nan_to_num(radius * along[:, ::-1] / areas_of(stretch)[:, None])
        share = foreground.fraction(np.concatenate([centroid - reach, centroid + reach], axis=1))
        found = store.read(names[1], part).astype(np.float64) + 1
        density = np.divide(found, disc * share, out=np.full(len(found), np.nan), where=share > 0)
        store.write(names[2], part, density)
