"""Which pixels an instance covers, as runs along rows; vectorised over all instances, overlapping ones too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """m runs of pixels, ordered by owner, row and start.

    Attributes
    ----------
    owner : (m,) index of the instance.
    row : (m,) y of the pixels.
    start, stop : (m,) x of the first pixel, and of the one after the last; start < stop.
    """

    owner: Index
    row: Index
    start: Index
    stop: Index

    def take(self, index: Index | slice | npt.NDArray[np.bool_]) -> Runs:
        """The runs `index` (positions, a slice or a bool mask)."""
        return Runs(self.owner[index], self.row[index], self.start[index], self.stop[index])

    def clipped(self, first: int, end: int) -> Runs:
        """What of the runs lies in columns [first, end)."""
        start, stop = np.maximum(self.start, first), np.minimum(self.stop, end)
        keep = start < stop
        return Runs(self.owner[keep], self.row[keep], start[keep], stop[keep])

    def pixels(self, left: int, top: int, width: int) -> tuple[Index, Index]:
        """Every pixel: its position in a row-major array of `width` columns that begins at (left, top); its owner."""
        length = self.stop - self.start
        begin = np.cumsum(length) - length
        place = (self.row - top) * width + (self.start - left) - begin
        return np.repeat(place, length) + np.arange(int(length.sum())), np.repeat(self.owner, length)


def pixel_runs(geometry: npt.NDArray[np.object_], top: int, bottom: int, width: int) -> Runs:
    """The pixels whose centre lies inside each polygon: exactly its pixels for an outline along pixel edges.

    A row's centre line is crossed an even number of times by closed rings; sorted crossings pair up to runs
    (even-odd rule, so that holes and parts need no special care).

    Parameters
    ----------
    geometry : (n,) valid polygons or multipolygons in pixels; pixel (x, y) covers [x, x+1) x [y, y+1).
    top, bottom : the rows wanted, [top, bottom).
    width : columns of the image; what lies beyond [0, width) is left out.
    """
    xy0, xy1, owner = edges(geometry)
    low, high = np.minimum(xy0[:, 1], xy1[:, 1]), np.maximum(xy0[:, 1], xy1[:, 1])
    first = np.maximum(np.ceil(low - 0.5), top).astype(np.int64)
    count = np.maximum(np.minimum(np.ceil(high - 0.5), bottom).astype(np.int64) - first, 0)
    crossing = np.flatnonzero(count)
    count = count[crossing]
    edge = np.repeat(crossing, count)
    row = np.arange(int(count.sum())) + np.repeat(first[crossing] - (np.cumsum(count) - count), count)
    slope = (xy1[crossing, 0] - xy0[crossing, 0]) / (xy1[crossing, 1] - xy0[crossing, 1])
    x = xy0[edge, 0] + (row + 0.5 - xy0[edge, 1]) * np.repeat(slope, count)
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    key = (owner[edge] * (bottom - top) + (row - top)) * (width + 1) + column
    key.sort()
    place, column = np.divmod(key, width + 1)
    filled = column[0::2] < column[1::2]
    place = place[0::2][filled]
    owners, rows = np.divmod(place, max(bottom - top, 1))
    return Runs(owners, rows + top, column[0::2][filled], column[1::2][filled])


def edges(
    geometry: npt.NDArray[np.object_],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Index]:
    """All edges of all rings: (m, 2) start, (m, 2) end, and (m,) the geometry each belongs to."""
    rings, ring_owner = rings_of(geometry)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    within = np.flatnonzero(ring[1:] == ring[:-1])
    return xy[within], xy[within + 1], ring_owner[ring[within]]


def rings_of(geometry: npt.NDArray[np.object_]) -> tuple[npt.NDArray[np.object_], Index]:
    """All rings, and the geometry each belongs to: first those of polygons, then those of multipolygons."""
    multi = shapely.get_type_id(geometry) != 3
    if not multi.any():
        rings, owner = shapely.get_rings(geometry, return_index=True)
        return rings, owner.astype(np.int64)
    # get_parts copies polygons, so it gets no more than it has to
    single, several = np.flatnonzero(~multi), np.flatnonzero(multi)
    parts, part_of = shapely.get_parts(geometry[several], return_index=True)
    rings, owner = shapely.get_rings(geometry[single], return_index=True)
    more, more_owner = shapely.get_rings(parts, return_index=True)
    return np.concatenate([rings, more]), np.concatenate([single[owner], several[part_of[more_owner]]])
