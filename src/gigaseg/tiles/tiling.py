"""Tile arithmetic: pure functions of tile size, overlap and the working size of the slide.

Tile (row, col) starts at (col * stride, row * stride) in working pixels with stride = tile - overlap; neighbours share
exactly `overlap` pixels. The last row and column may reach beyond the slide, where a tile has background.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gigaseg.errors import FormatError, one_line
from gigaseg.geometry import Bounds

LEFT, TOP, RIGHT, BOTTOM = 1, 2, 4, 8
"""Bits of the `cut` mask: the borders of a tile."""


MAX_TILE = 16384
"""Largest side of a tile, px."""

_MOST = 2**31
"""No slide is so wide, working px."""


@dataclass(frozen=True)
class Tile:
    """One tile: its place in the grid and, in working pixels, its rectangle and its core.

    The core is the part of the tile nearer to it than to any neighbour: half the overlap is cut off at each side that
    has a neighbour, so that the cores of a grid partition the slide.
    """

    row: int
    col: int
    bounds: Bounds
    core: Bounds


@dataclass(frozen=True)
class Tiling:
    """The bounding grid of a slide at its working resolution.

    Attributes
    ----------
    tile, overlap : side of a tile and what two neighbours share, working px; 0 <= overlap <= tile / 2.
    width, height : size of the slide, working px.
    scale : level-0 pixels per working pixel, (x, y).
    pixel_size : size of a working pixel on the specimen or ground in `unit`, (x, y); (1, 1) for unit "px".
    unit : "um", "m" or "px" (working pixels).
    """

    tile: int
    overlap: int
    width: int
    height: int
    scale: tuple[float, float]
    pixel_size: tuple[float, float]
    unit: str

    @property
    def stride(self) -> int:
        """Distance between the starts of neighbouring tiles, working px."""
        return self.tile - self.overlap

    @property
    def rows(self) -> int:
        """Number of tile rows."""
        return max(1, math.ceil((self.height - self.overlap) / self.stride))

    @property
    def cols(self) -> int:
        """Number of tile columns."""
        return max(1, math.ceil((self.width - self.overlap) / self.stride))

    def bounds(self, row: int, col: int) -> Bounds:
        """Rectangle of a tile in working px (it may reach beyond the slide)."""
        x, y = col * self.stride, row * self.stride
        return Bounds(x, y, x + self.tile, y + self.tile)

    def level0_bounds(self, row: int, col: int) -> Bounds:
        """Rectangle of a tile in level-0 px."""
        return self.bounds(row, col).scaled(*self.scale)

    def get(self, row: int, col: int) -> Tile:
        """The tile at (row, col).

        Raises IndexError outside the grid.
        """
        if not (0 <= row < self.rows and 0 <= col < self.cols):
            raise IndexError(f"tile ({row}, {col}) outside the grid of {self.rows} x {self.cols}")
        bounds = self.bounds(row, col)
        half = self.overlap / 2
        core = Bounds(
            bounds.xmin + half * (col > 0),
            bounds.ymin + half * (row > 0),
            bounds.xmax - half * (col < self.cols - 1),
            bounds.ymax - half * (row < self.rows - 1),
        )
        return Tile(row, col, bounds, core)

    def to_dict(self) -> dict[str, Any]:
        """The grid attributes as they stand in file metadata (derived rows and cols included)."""
        return {**asdict(self), "rows": self.rows, "cols": self.cols}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Tiling:
        """Inverse of `to_dict`; raises KeyError, TypeError or ValueError for what no tiling has."""
        found = cls(
            tile=content["tile"],
            overlap=content["overlap"],
            width=content["width"],
            height=content["height"],
            scale=(content["scale"][0], content["scale"][1]),
            pixel_size=(content["pixel_size"][0], content["pixel_size"][1]),
            unit=content["unit"],
        )
        sizes = (found.tile, found.overlap, found.width, found.height)
        if not all(type(size) is int and 0 <= size < _MOST for size in sizes):
            raise ValueError(f"sizes {sizes}")
        if not (0 < found.tile <= MAX_TILE and found.overlap < found.tile and found.width and found.height):
            raise ValueError(f"sizes {sizes}")
        if not all(0 < value < math.inf for value in (*found.scale, *found.pixel_size)):
            raise ValueError(f"scale {found.scale}, pixel_size {found.pixel_size}")
        return found

    @classmethod
    def of_file(cls, path: str | Path, metadata: Mapping[str, Any]) -> Tiling:
        """The tiling in the provenance of a file; raises FormatError when it is not there or wrong."""
        try:
            return cls.from_dict(metadata["grid"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise FormatError(
                f"{path}: its grid is missing or wrong ({one_line(error)}); run the step that writes it again"
            ) from error
