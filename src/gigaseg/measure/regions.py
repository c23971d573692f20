"""Regions of a slide: polygons of the sheet that counts and densities are reported for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.measure.runs import pixel_runs
from gigaseg.measure.store import Store
from gigaseg.sidefiles import read_polygons
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.tiling import Tiling

_FINE = 16
"""Each mask pixel of the foreground is divided so often along x and y to find the area of a region."""

_CHUNK = 100_000

_NAMES = ("region", "classification", "class", "class_name", "label", "name")
"""Properties that can name a region, the first one that a polygon has; polygons of one name are one region."""


@dataclass(frozen=True)
class Regions:
    """Regions of a slide.

    Attributes
    ----------
    names : of the regions, sorted.
    geometry : (n,) level-0 px; they may overlap.
    """

    names: tuple[str, ...]
    geometry: npt.NDArray[np.object_]

    @classmethod
    def read(cls, path: str | Path, info: SlideInfo, tiling: Tiling) -> Regions:
        """Read the polygons that the sheet's column `regions` names; raises FormatError as `read_polygons`."""
        found = read_polygons(Path(path), info, tiling, names=_NAMES)
        united = [shapely.union_all(found.geometry[found.class_index == i]) for i in range(len(found.classes))]
        geometry = shapely.transform(np.array(united, dtype=object), lambda xy: xy * np.asarray(tiling.scale))
        return cls(found.classes, np.asarray(geometry, dtype=object))

    def members(self, centroid: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Pairs (instance, region) of centroids, (n, 2) level-0 px, that lie in a region or on its border."""
        found = shapely.STRtree(self.geometry).query(shapely.points(centroid), predicate="intersects")
        return found[0].astype(np.int64), found[1].astype(np.int64)

    def assign(self, aside: Store, name: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Write the smallest region of each instance as column `name`, -1 for none; returns the pairs of `members`."""
        pairs = [(np.empty(0, np.int64),) * 2]
        for first in range(0, aside.count, _CHUNK):
            part = slice(first, first + _CHUNK)
            centroid = np.column_stack([aside.read(f"centroid_{axis}_px", part) for axis in "xy"])
            members = self.members(centroid)
            aside.write(name, part, self.smallest(len(centroid), members))
            pairs.append((first + members[0], members[1]))
        return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])

    def smallest(
        self, count: int, members: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    ) -> npt.NDArray[np.int64]:
        """(count,) the smallest region each instance lies in, -1 for none; the first of equally large ones."""
        instance, region = members
        rank = np.empty(len(self.names), np.int64)
        order = np.argsort(shapely.area(self.geometry), kind="stable")
        rank[order] = np.arange(len(order))
        best = np.full(count, len(order))
        np.minimum.at(best, instance, rank[region])
        return np.where(best < len(order), np.append(order, -1)[best], -1)

    def areas_px(self, foreground: Foreground) -> npt.NDArray[np.float64]:
        """(n,) area of each region that is foreground, level-0 px²; the region is taken at 1/16 of a mask pixel."""
        width = foreground.mask.shape[1]
        fine = np.asarray(foreground.scale) / _FINE
        geometry = np.asarray(shapely.transform(self.geometry, lambda xy: xy / fine), dtype=object)
        area = np.zeros(len(self.names))
        for top, bottom, below in _strips(foreground.mask):
            runs = pixel_runs(geometry, top * _FINE, bottom * _FINE, width * _FINE)
            row = runs.row // _FINE - top
            covered = _integral(below, row, runs.stop / _FINE) - _integral(below, row, runs.start / _FINE)
            area += np.bincount(runs.owner, covered, len(area))
        return np.asarray(area / _FINE * foreground.scale[0] * foreground.scale[1])


def _strips(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int, npt.NDArray[np.int64]]]:
    """First row, end row and cumulated foreground along x, of strips of a mask."""
    for top in range(0, len(mask), 256):
        part = mask[top : top + 256]
        below = np.zeros((len(part), part.shape[1] + 2), np.int64)
        part.cumsum(1, out=below[:, 1:-1])
        below[:, -1] = below[:, -2]
        yield top, top + len(part), below


def _integral(
    below: npt.NDArray[np.int64], row: npt.NDArray[np.int64], x: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Foreground left of `x` in `row`, mask px."""
    column = x.astype(np.int64)
    return np.asarray(below[row, column] + (below[row, column + 1] - below[row, column]) * (x - column))
