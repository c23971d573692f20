"""The instances near seams: the only ones that cost geometry.

A tile instance matters to its neighbours when it reaches into the area that another kept tile saw. Its bounding box
and its tile are enough to tell, so the outlines of all others are never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import BOTTOM, LEFT, RIGHT, TOP, Tiling

Index = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Seam:
    """m tile instances that reach into another kept tile, in the order of their rows.

    Attributes
    ----------
    row : (m,) place in the slide's table of tile instances, ascending.
    geometry : (m,) shapely polygons or multipolygons, working px.
    box : (m, 4) their bounds (xmin, ymin, xmax, ymax), working px.
    tile_row, tile_col : (m,) tile of each.
    cut : (m,) uint8 mask of the tile borders that it touches.
    open_sides : (m,) uint8 mask of its tile's borders beyond which a kept tile sees on.
    score : (m,) float32 in [0, 1].
    prompt : (m,) int64 prompt that each answers, -1 for none.
    """

    row: Index
    geometry: npt.NDArray[np.object_]
    box: Values
    tile_row: Index
    tile_col: Index
    cut: npt.NDArray[np.uint8]
    open_sides: npt.NDArray[np.uint8]
    score: npt.NDArray[np.float32]
    prompt: Index

    def __len__(self) -> int:
        return len(self.row)

    @property
    def whole(self) -> Flags:
        """(m,) bool, the instance touches no border of its tile inside the slide.

        A border without a kept neighbour counts too: beyond it the object may run on and come back elsewhere.
        """
        return np.asarray(self.cut == 0)

    def take(self, index: npt.NDArray[Any]) -> Seam:
        """The rows `index` (positions or a bool mask)."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def concat(cls, parts: list[Seam]) -> Seam:
        """All rows of `parts`, in order."""
        if not parts:
            place, byte = np.empty(0, np.int64), np.empty(0, np.uint8)
            outlines, score = np.empty(0, dtype=object), np.empty(0, np.float32)
            return cls(place, outlines, np.empty((0, 4)), place, place, byte, byte, score, place)
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})


def reaches(
    box: Values, tile_row: npt.NDArray[np.integer[Any]], tile_col: npt.NDArray[np.integer[Any]], grid: Grid
) -> Flags:
    """(n,) bool, whether each bounding box reaches into a kept tile other than its own.

    Parameters
    ----------
    box : (n, 4) bounds, working px.
    tile_row, tile_col : (n,) the tile each box comes from.
    grid : the kept tiles.

    Notes
    -----
    With overlap the common area must be positive; without, the box must end on the seam.
    """
    tiling = grid.tiling
    near = np.zeros(len(box), bool)
    # a box far from its tile's borders reaches nowhere: the eight neighbours are looked up for the others alone
    start = np.column_stack([tile_col, tile_row]) * float(tiling.stride)
    inner = start + tiling.overlap, start + tiling.tile - tiling.overlap
    outer = np.flatnonzero(((box[:, :2] <= inner[0]) | (box[:, 2:] >= inner[1])).any(axis=1))
    kept = np.pad(grid.kept, 1)
    box, row, col = box[outer], np.asarray(tile_row)[outer], np.asarray(tile_col)[outer]
    found = np.zeros(len(outer), bool)
    for down in (-1, 0, 1):
        for along in (-1, 0, 1):
            if down == along == 0:
                continue
            x, y = (col + along) * float(tiling.stride), (row + down) * float(tiling.stride)
            width = np.minimum(box[:, 2], x + tiling.tile) - np.maximum(box[:, 0], x)
            height = np.minimum(box[:, 3], y + tiling.tile) - np.maximum(box[:, 1], y)
            meets = (width > 0) & (height > 0) if tiling.overlap else (width >= 0) & (height >= 0)
            found |= meets & kept[row + down + 1, col + along + 1]
    near[outer] = found
    return near


def centrality(seam: Seam, tiling: Tiling) -> Values:
    """Least distance of each bounding box to an open border of its tile, working px; inf when no border is open."""
    start = np.column_stack([seam.tile_col, seam.tile_row]) * float(tiling.stride)
    distance = np.column_stack([seam.box[:, :2] - start, start + tiling.tile - seam.box[:, 2:]])
    closed = (seam.open_sides[:, None] & np.array([LEFT, TOP, RIGHT, BOTTOM], np.uint8)) == 0
    distance[closed] = np.inf
    return np.asarray(distance.min(axis=1, initial=np.inf), dtype=np.float64)
