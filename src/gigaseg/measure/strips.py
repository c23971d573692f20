"""Where instances lie to each other, strip by strip: what a strip of the slide tells, and what it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gigaseg.measure.delaunay import GRAIN, Triangles, grains, settle
from gigaseg.measure.store import Store
from gigaseg.slides.ground import Ground

_NOWHERE = 1e15
"""Coordinate, in units of length, of what has no place on the ground."""

Values = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_CHUNK = 8192

_REACH = 8
"""How far beyond a strip its points are known, in mean distances of neighbours: few nearest neighbours and triangles
reach farther but for the rims of voids."""


@dataclass(frozen=True)
class Points:
    """Centroids of all instances, on disk.

    Attributes
    ----------
    store : with columns centroid_x_px and centroid_y_px.
    reach : (k, 2) least and largest y of every `_CHUNK` rows, level-0 px.
    """

    store: Store
    reach: Values

    @classmethod
    def of(cls, store: Store) -> Points:
        """Index the centroids of `store`, for workers to read."""
        for name in ("centroid_x_px", "centroid_y_px"):
            store.publish(name)
        reach = np.empty((-(-store.count // _CHUNK), 2))
        for k in range(len(reach)):
            y = store.read("centroid_y_px", slice(k * _CHUNK, (k + 1) * _CHUNK))
            reach[k] = y.min(), y.max()
        return cls(store, reach)

    def between(self, low: float, high: float) -> tuple[Index, Values]:
        """Rows, ascending, and (n, 2) centroids with low <= y < high."""
        rows, found = [np.empty(0, np.int64)], [np.empty((0, 2))]
        for k in np.flatnonzero((self.reach[:, 0] < high) & (self.reach[:, 1] >= low)).tolist():
            part = slice(k * _CHUNK, (k + 1) * _CHUNK)
            y = self.store.read("centroid_y_px", part)
            index = np.flatnonzero((y >= low) & (y < high))
            rows.append(k * _CHUNK + index)
            found.append(np.column_stack([self.store.read("centroid_x_px", part)[index], y[index]]))
        return np.concatenate(rows), np.concatenate(found)

    def at(self, rows: Index) -> Values:
        """(n, 2) centroids of `rows`."""
        return np.column_stack([self.store.read(name, rows) for name in ("centroid_x_px", "centroid_y_px")])

    def strips(self, size: int, height: int) -> list[tuple[float, float]]:
        """Cut the slide, `height` level-0 px high, into strips (low, high) of about `size` centroids, -inf .. inf."""
        edges = np.linspace(0, height, 4097)
        found = np.zeros(len(edges) - 1, np.int64)
        for first in range(0, self.store.count, 2**20):
            y = self.store.read("centroid_y_px", slice(first, first + 2**20))
            found += np.histogram(y.clip(0, height), edges)[0]
        number = max(1, round(self.store.count / size))
        target = self.store.count * np.arange(1, number) / number
        cuts = np.unique(edges[np.searchsorted(found.cumsum(), target) + 1]).tolist()
        limits = [-np.inf, *(y for y in cuts if 0 < y < height), np.inf]
        return list(pairwise(limits))


@dataclass(frozen=True)
class Neighbourhood:
    """What a worker has to know to measure a strip.

    Attributes
    ----------
    points : all of them.
    ground : tells distances.
    rise : least distance of two lines of pixels one row apart.
    pixel_size : (x, y) of a level-0 pixel, for the triangulation.
    width, height : of the slide, level-0 px.
    radius : within which others count as neighbours, in the unit of the pixel size.
    """

    points: Points
    ground: Ground
    rise: float
    pixel_size: tuple[float, float]
    width: int
    height: int
    radius: float


@dataclass(frozen=True)
class StripFound:
    """What a strip tells of the m instances in it.

    Attributes
    ----------
    row : (m,) ascending.
    nearest : (m,) distance to the nearest other centroid in reach, inf for none.
    within : (m,) number of other centroids within the radius.
    degree : (m,) Delaunay degree; NaN where `known` has to be asked.
    far : positions among them whose nearest neighbour may lie out of reach.
    unsettled, same : (u,) rows without a degree, and the first row of those that coincide with each.
    known : triangles, by row, for `gigaseg.measure.delaunay.degrees_of_rest`.
    """

    row: Index
    nearest: Values
    within: Index
    degree: Values
    far: Index
    unsettled: Index
    same: Index
    known: Triangles


def measure_strip(job: Neighbourhood, strip: tuple[float, float]) -> StripFound:
    """Measure the neighbourhoods of the centroids of a strip (low, high), level-0 px."""
    from scipy.spatial import cKDTree

    low, high = strip
    row, _ = job.points.between(low, high)
    # the slide's ends are open
    top, bottom = max(low, 0.0), min(high, float(job.height))
    apart = np.sqrt(job.width * job.pixel_size[0] * (bottom - top) * job.pixel_size[1] / max(len(row), 1))
    # without a rise (a pole, the rim of a CRS) all are in reach
    reach = max(_REACH * apart, job.radius * 1.001) / job.rise if job.rise > 0 else np.inf
    low, high = low - reach, high + reach
    every, centroid = job.points.between(low, high)
    own = np.isin(every, row, assume_unique=True)
    place = job.ground.place(centroid)
    lost = np.asarray(~np.isfinite(place).all(axis=1))  # outside the area in which the CRS is defined
    place[lost] = _NOWHERE
    tree, mine = cKDTree(place), place[own]
    nearest = tree.query(mine, k=2)[0][:, 1] if len(mine) else np.empty(0)
    nearest[lost[own]] = np.nan
    within = np.where(lost[own], 0, count_within(tree, place, mine, job.radius) - 1)
    y = centroid[own, 1]
    margin = np.minimum(y - low, high - y) * job.rise if job.rise > 0 else np.full(len(y), np.inf)
    degree, unsettled, same, known = _degrees(job, every, centroid, own, low, high)
    return StripFound(
        row=row,
        nearest=nearest,
        within=within,
        degree=degree[own],
        far=np.flatnonzero(nearest > margin * (1 - 1e-9)),
        unsettled=every[unsettled],
        same=every[same[unsettled]],
        known=known,
    )


def count_within(tree: object, place: Values, of: Values, radius: float) -> Index:
    """(m,) points of `tree`, built of `place`, at most `radius` from each of (m, 2 or 3) points `of`."""
    inner, outer = (
        tree.query_ball_point(of, radius * (1 + by), return_length=True)  # type: ignore[attr-defined]
        for by in (-1e-9, 1e-9)
    )
    found = np.asarray(inner, np.int64)
    # which points right on the circle a tree takes depends on how it was built
    doubtful = np.flatnonzero(inner != outer)
    if len(doubtful):
        around = tree.query_ball_point(of[doubtful], radius * (1 + 1e-9))  # type: ignore[attr-defined]
        length = np.array([len(others) for others in around])
        apart = place[np.concatenate(around).astype(np.int64)] - np.repeat(of[doubtful], length, axis=0)
        near = sum(side**2 for side in apart.T) <= radius**2
        found[doubtful] = np.bincount(np.repeat(np.arange(len(doubtful)), length), near, len(doubtful))
    return found


def _degrees(
    job: Neighbourhood, every: Index, centroid: Values, own: npt.NDArray[np.bool_], low: float, high: float
) -> tuple[Values, npt.NDArray[np.bool_], Index, Triangles]:
    """Degree of every centroid in reach, which own ones have none, the first that each coincides with, triangles."""
    place = grains(centroid, job.pixel_size)
    order = np.lexsort((place[:, 0], place[:, 1]))  # stable: of points that coincide the first row leads
    sorted_ = place[order]
    new = np.append(True, (sorted_[1:] != sorted_[:-1]).any(1))[: len(place)]
    vertex = np.empty(len(place), np.int64)
    vertex[order] = np.cumsum(new) - 1
    lead = order[new]
    asked = np.zeros(len(lead), bool)
    asked[vertex[own]] = True
    scale = GRAIN * job.pixel_size[1] / job.pixel_size[0]
    found = settle(place[lead], asked, low * scale + 1, high * scale - 1)
    known = found.known
    by_row = Triangles(every[lead[known.corner]], known.tied, known.beside)
    return found.degree[vertex], own & found.unsettled[vertex], lead[vertex], by_row
