"""Regions of a slide: polygons of the sheet that counts and densities are reported for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.measure.store import Store
from gigaseg.sidefiles import read_polygons
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.tiling import Tiling

_CHUNK = 100_000

_NAMES = ("region", "classification", "class", "class_name", "label", "name")
"""Properties that can name a region, the first one that a polygon has; polygons of one name are one region."""


def name_columns(named_by: str | None) -> tuple[str, ...]:
    """Properties that name a region, the first one first."""
    return _NAMES if named_by is None else (named_by,)


def united_by_name(
    geometry: npt.NDArray[np.object_], index: npt.NDArray[np.integer[Any]], count: int
) -> npt.NDArray[np.object_]:
    """(count,) unions of the polygons of each index."""
    order = np.argsort(index, kind="stable")
    ends = np.searchsorted(index[order], np.arange(count + 1))
    united = np.empty(count, object)
    for i, (first, end) in enumerate(pairwise(ends)):
        united[i] = geometry[order[first]] if end - first == 1 else shapely.union_all(geometry[order[first:end]])
    return united


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
    def read(cls, path: str | Path, info: SlideInfo, tiling: Tiling, named_by: str | None = None) -> Regions:
        """Read the polygons that the sheet's column `regions` names.

        Parameters
        ----------
        named_by : property that names them; None: the first of the usual ones that a polygon has.

        Raises
        ------
        FormatError
            As `read_polygons`, or the file has no such property.
        """
        found = read_polygons(Path(path), info, tiling, names=name_columns(named_by), required=named_by is not None)
        united = united_by_name(found.geometry, found.class_index, len(found.classes))
        geometry = shapely.transform(united, lambda xy: xy * np.asarray(tiling.scale))
        return cls(found.classes, np.asarray(geometry, dtype=object))

    def working(self, tiling: Tiling) -> npt.NDArray[np.object_]:
        """The regions in working px."""
        return np.asarray(shapely.transform(self.geometry, lambda xy: xy / np.asarray(tiling.scale)), dtype=object)

    def members(self, centroid: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Pairs (instance, region) of centroids, (n, 2) level-0 px, that lie in a region or on its border."""
        # the regions ask: GEOS prepares what asks, and they have the many corners
        found = shapely.STRtree(shapely.points(centroid)).query(self.geometry, predicate="intersects")
        return found[1].astype(np.int64), found[0].astype(np.int64)

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
