"""What all readers have in common: from level-0 bounds and a shape to pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.errors import SlideError, is_machine_fault
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.base import Level, SlideInfo
from gigaseg.slides.resample import margin, resample
from gigaseg.slides.source import Source, reason

_LEVEL_TOLERANCE = 0.01
"""A level may be this much (relative) coarser than asked for: a level of 2738 px of 5477 counts as half."""

_GRID_TOLERANCE = 1e-3
"""A request lies on a level's pixel grid when it is nowhere farther from it than this, in its pixels."""

_BLOCK = 4096
"""Side of the largest rectangle that is decoded at once, in a level's pixels: 50 MB of 8-bit RGB."""


def best_level(levels: Sequence[Level], scale_x: float, scale_y: float) -> int:
    """Index of the coarsest level no coarser than (scale_x, scale_y) level-0 px per pixel; 0 if none is."""
    best = 0
    for index, level in enumerate(levels):
        fits_x = level.downsample_x <= scale_x * (1 + _LEVEL_TOLERANCE)
        fits_y = level.downsample_y <= scale_y * (1 + _LEVEL_TOLERANCE)
        if fits_x and fits_y:
            best = index
    return best


class PyramidSlide:
    """The `Slide` over any `Source`."""

    def __init__(self, info: SlideInfo, source: Source) -> None:
        self.info = info
        self._source = source
        source.background = info.background

    def read(self, bounds: Bounds, shape: Shape2d, channels: Sequence[int] | None = None) -> npt.NDArray[Any]:
        """Read a rectangle at any resolution; see `gigaseg.slides.base.Slide.read`.

        A request on a level's own pixel grid returns that level's pixels untouched. A pixel of the result
        whose centre lies outside the slide is background; background never bleeds into the others.
        """
        info = self.info
        used = tuple(range(len(info.channels))) if channels is None else tuple(channels)
        height, width = shape
        if width < 1 or height < 1 or not (bounds.width > 0 and bounds.height > 0):
            raise ValueError(f"bounds {tuple(bounds)} and shape {tuple(shape)} must have a positive extent")
        if not all(0 <= channel < len(info.channels) for channel in used):
            raise ValueError(f"channels {used} are not all in 0..{len(info.channels) - 1}")
        scale_x, scale_y = bounds.width / width, bounds.height / height
        index = best_level(info.levels, scale_x, scale_y)
        level = info.levels[index]
        x = _Axis(bounds.xmin, scale_x, width, info.width, level.downsample_x, level.width)
        y = _Axis(bounds.ymin, scale_y, height, info.height, level.downsample_y, level.height)
        if x.on_grid and y.on_grid:
            x_side, y_side = _BLOCK, _BLOCK
        else:
            x_side, y_side = max(1, int(_BLOCK / x.ratio)), max(1, int(_BLOCK / y.ratio))
        whole = (x.first, x.last, y.first, y.last) == (0, width, 0, height)
        if whole and width <= x_side and height <= y_side:  # the most common request: one block, nothing around
            return np.require(self._block(index, x, y, (0, width), (0, height), used), requirements=["C", "W"])
        result = np.empty((height, width, len(used)), dtype=info.dtype)
        result[:] = np.asarray([info.background[channel] for channel in used]).astype(info.dtype)
        for top, bottom in _runs(y.first, y.last, y_side):
            for left, right in _runs(x.first, x.last, x_side):
                block = self._block(index, x, y, (left, right), (top, bottom), used)
                result[top:bottom, left:right] = block
        return result

    def close(self) -> None:
        """Release the file."""
        self._source.close()

    def _block(
        self,
        level: int,
        x: _Axis,
        y: _Axis,
        cols: tuple[int, int],
        rows: tuple[int, int],
        channels: Sequence[int],
    ) -> npt.NDArray[Any]:
        """Pixels [rows) x [cols) of the result, all of them inside the slide."""
        if x.on_grid and y.on_grid:
            left, top = round(x.start) + cols[0], round(y.start) + rows[0]
            return self._read_level(level, left, top, cols[1] - cols[0], rows[1] - rows[0], channels)
        (x0, x1), (y0, y1) = x.span(*cols), y.span(*rows)
        (left, right), (top, bottom) = x.window(x0, x1), y.window(y0, y1)
        inside_x, inside_y = x.clip(left, right), y.clip(top, bottom)
        array = self._read_level(
            level, inside_x[0], inside_y[0], inside_x[1] - inside_x[0], inside_y[1] - inside_y[0], channels
        )
        # a result pixel at the rim reaches out by half its size: it sees the slide's last pixels repeated
        beyond = (
            (inside_y[0] - top, bottom - inside_y[1]),
            (inside_x[0] - left, right - inside_x[1]),
            (0, 0),
        )
        if any(n for side in beyond for n in side):
            array = np.pad(array, beyond, mode="edge")
        box = Bounds(x0 - left, y0 - top, x1 - left, y1 - top)
        return resample(array, box, Shape2d(rows[1] - rows[0], cols[1] - cols[0]), self.info.nodata)

    def _read_level(
        self, level: int, x: int, y: int, width: int, height: int, channels: Sequence[int]
    ) -> npt.NDArray[Any]:
        try:
            return self._source.read_level(level, x, y, width, height, channels)
        except Exception as error:
            if is_machine_fault(error):
                raise
            # whatever else a decoder raises, the user's file is the cause
            what = f"{self.info.path}: reader {self.info.reader} cannot decode level {level}"
            where = f"x {x}..{x + width}, y {y}..{y + height}"
            raise SlideError(f"{what}, {where} (damaged or truncated?): {reason(error)}") from error


class _Axis:
    """One axis of a request: from result pixels to a level's pixels."""

    def __init__(
        self, minimum: float, scale: float, count: int, extent: int, downsample: float, level_extent: int
    ) -> None:
        self.ratio = scale / downsample
        self.start = minimum / downsample
        self._level_extent = level_extent
        drift = abs(self.ratio - 1) * count + abs(self.start - round(self.start))
        self.on_grid = drift < _GRID_TOLERANCE
        # result pixels whose centre lies in [0, extent)
        self.first = min(count, max(0, math.ceil(-minimum / scale - 0.5)))
        self.last = min(count, max(self.first, math.ceil((extent - minimum) / scale - 0.5)))
        if self.on_grid:
            self.first = min(count, max(0, -round(self.start)))
            self.last = min(count, max(self.first, level_extent - round(self.start)))

    def span(self, first: int, last: int) -> tuple[float, float]:
        """Extent of result pixels [first, last) in the level's pixels."""
        return self.start + first * self.ratio, self.start + last * self.ratio

    def window(self, start: float, end: float) -> tuple[int, int]:
        """Whole level pixels that the filter needs for [start, end); may reach beyond the level."""
        around = margin(self.ratio)
        return math.floor(start) - around, math.ceil(end) + around

    def clip(self, first: int, last: int) -> tuple[int, int]:
        """The part of [first, last) inside the level; at least one pixel."""
        low = min(max(first, 0), self._level_extent - 1)
        return low, min(max(last, low + 1), self._level_extent)


def _runs(first: int, last: int, length: int) -> Iterator[tuple[int, int]]:
    for start in range(first, last, length):
        yield start, min(start + length, last)
