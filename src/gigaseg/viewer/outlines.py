"""Outlines as the browser draws them: whole numbers in tiles, a few bytes a vertex.

A tile of the viewer holds the instances whose bounding box has its centre there, whole, also where they reach beyond
it. One file a tile, gzip; all numbers little-endian:

==========================  =====================================================================
origin x, y; step x, y      4 float64: vertex = origin + step × whole number, level-0 px
instances, rings, vertices  3 uint32: numbers n, m, k
row                         n uint32: of each instance in the tables, from 0
rings                       n uint32: how many each instance has, holes among them
vertices                    m uint32: how many each ring has, the first not repeated at the end
x, y                        k int16, k int16: of each ring the first vertex, then differences modulo 2¹⁶
==========================  =====================================================================
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import shapely

FINEST = 8
"""A step is 1/8 working px, so that outlines of masks are exact; it doubles until a tile's outlines fit into int16."""

INSTANCES = 1500
"""Instances that a tile is made for, on average."""

_SIDES = (256, 4096)
"""Smallest and largest side of a tile, level-0 px; in larger ones steps would grow beyond parts of a pixel."""


@dataclass(frozen=True)
class Layout:
    """Which tile each instance belongs to.

    Attributes
    ----------
    side : of a tile, level-0 px.
    columns, rows : (tiles,) int64 place of each tile that holds an instance, in row-major order.
    tile : (n,) int64 tile of each instance, as position in `columns` and `rows`.
    bounds : (tiles, 4) float64 xmin, ymin, xmax, ymax of what each tile holds, level-0 px.
    """

    side: int
    columns: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    tile: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.float64]

    @classmethod
    def of(cls, boxes: npt.NDArray[np.float64]) -> Layout:
        """The layout of instances by their bounding boxes, (n, 4) level-0 px.

        The side is the power of two whose tiles, as far as they hold any instance, hold about `INSTANCES`.
        """
        centres = np.maximum((boxes[:, :2] + boxes[:, 2:]) / 2, 0)
        side = _SIDES[0]
        while side < _SIDES[1]:
            place = (centres // side).astype(np.int64)
            filled = len(np.unique(place[:, 1] * (1 << 32) + place[:, 0]))
            if len(boxes) >= filled * INSTANCES / 2:
                break
            side *= 2
        place = (centres // side).astype(np.int64)
        keys, tile = np.unique(place[:, 1] * (1 << 32) + place[:, 0], return_inverse=True)
        bounds = np.empty((len(keys), 4))
        for axis, reduce in enumerate((np.minimum, np.minimum, np.maximum, np.maximum)):
            bounds[:, axis] = np.inf if axis < 2 else -np.inf
            reduce.at(bounds[:, axis], tile, boxes[:, axis])
        return cls(side, keys % (1 << 32), keys >> 32, tile.astype(np.int64), bounds)

    def frame(self, scale: tuple[float, float]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Origin and step of each tile, (tiles, 2) each, level-0 px; `scale`: level-0 px per working px, (x, y)."""
        finest = np.asarray(scale) / FINEST
        # a whole number of working px, so that outlines of masks lie on whole steps
        middle = (self.bounds[:, :2] + self.bounds[:, 2:]) / 2
        origin = np.round(middle / np.asarray(scale)) * np.asarray(scale)
        reach = np.maximum(np.abs(self.bounds[:, :2] - origin), np.abs(self.bounds[:, 2:] - origin)) / finest
        doublings = np.ceil(np.log2(np.maximum(reach.max(axis=1), 1) / 32767)).clip(0)
        return origin, finest * 2.0 ** doublings[:, None]


@dataclass
class TileOutlines:
    """The outlines of one tile while they are gathered, in parts; steps from the tile's origin."""

    row: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    rings: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    vertices: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    xy: list[npt.NDArray[np.int16]] = field(default_factory=list)

    def extend(self, other: TileOutlines) -> None:
        """Take what another part has, after one's own."""
        for name in ("row", "rings", "vertices", "xy"):
            getattr(self, name).extend(getattr(other, name))

    def encode(self, origin: npt.NDArray[np.float64], step: npt.NDArray[np.float64]) -> bytes:
        """The tile's file."""
        row, rings, vertices = (np.concatenate(part) for part in (self.row, self.rings, self.vertices))
        xy = np.concatenate(self.xy)
        # a difference that does not fit wraps around, and the browser's sum wraps back
        change = np.diff(xy, axis=0, prepend=np.zeros((1, 2), np.int16))
        starts = np.concatenate([[0], np.cumsum(vertices)[:-1]]).astype(np.int64)
        change[starts] = xy[starts]
        frame = np.concatenate([origin, step]).astype("<f8").tobytes()
        counts = np.array([len(row), len(vertices), len(xy)], "<u4").tobytes()
        lists = b"".join(part.astype("<u4").tobytes() for part in (row, rings, vertices))
        planes = b"".join(np.ascontiguousarray(change[:, axis]).astype("<i2").tobytes() for axis in range(2))
        return gzip.compress(frame + counts + lists + planes, 1, mtime=0)


def parts_by_tile(
    geometry: npt.NDArray[np.object_],
    first: int,
    tile: npt.NDArray[np.int64],
    origin: npt.NDArray[np.float64],
    step: npt.NDArray[np.float64],
) -> list[tuple[int, TileOutlines]]:
    """Outlines of consecutive instances, divided among their tiles.

    Parameters
    ----------
    geometry : (n,) polygons or multipolygons, level-0 px.
    first : row of the first of them.
    tile : (n,) tile of each.
    origin, step : of all tiles, as `Layout.frame`.

    Returns
    -------
    (tile, outlines) of each tile that has any.
    """
    polygons, of_instance = shapely.get_parts(geometry, return_index=True)
    rings, of_polygon = shapely.get_rings(polygons, return_index=True)
    owner = of_instance[of_polygon]
    coordinates, of_ring = shapely.get_coordinates(rings, return_index=True)
    closing = np.append(of_ring[1:] != of_ring[:-1], True) if len(of_ring) else np.empty(0, bool)
    coordinates, of_ring = coordinates[~closing], of_ring[~closing]
    place = tile[owner[of_ring]]
    xy = np.round((coordinates - origin[place]) / step[place]).astype(np.int16)
    vertices = np.bincount(of_ring, minlength=len(rings))
    count = np.bincount(owner, minlength=len(geometry))
    ring_tile = tile[owner]
    found = []
    for one in np.unique(tile):
        mine = np.flatnonzero(tile == one)
        part = TileOutlines(
            row=[(first + mine).astype(np.uint32)],
            rings=[count[mine].astype(np.uint32)],
            vertices=[vertices[ring_tile == one].astype(np.uint32)],
            xy=[xy[place == one]],
        )
        found.append((int(one), part))
    return found
