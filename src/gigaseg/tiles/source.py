"""Where tiles come from: the slide itself, or the tile store written before. Both give the same pixels."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from gigaseg.geometry import Shape2d
from gigaseg.slides.base import SlideInfo
from gigaseg.slides.registry import open_slide
from gigaseg.tiles.tiling import Tile, Tiling


class TileSource(Protocol):
    """Gives the pixels of tiles."""

    def read(self, tile: Tile) -> npt.NDArray[np.uint8]:
        """(tile, tile, 3) uint8 RGB; what lies outside the slide has its background value."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class SlideTiles:
    """Tiles read from the slide, resampled to the working resolution and rendered."""

    def __init__(self, info: SlideInfo, tiling: Tiling) -> None:
        self._slide = open_slide(info)
        self._tiling = tiling

    def read(self, tile: Tile) -> npt.NDArray[np.uint8]:
        """Pixels of a tile; raises SlideError where the file cannot be decoded."""
        bounds = self._tiling.level0_bounds(tile.row, tile.col)
        native = self._slide.read(bounds, Shape2d(self._tiling.tile, self._tiling.tile))
        return self._slide.info.rendering.rgb(native)

    def close(self) -> None:
        """Release the slide."""
        self._slide.close()
