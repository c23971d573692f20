"""Value types of the frames, no I/O.

Frames (design): x right, y down, origin at the slide's top-left corner, pixel corners at integers, so pixel (0, 0)
covers [0, 1) x [0, 1). Bounds are (xmin, ymin, xmax, ymax), half-open; arrays are (y, x, channel). A slide has the
level-0 frame and the working frame (pixels of the working resolution); level-0 = working x scale, per axis.
"""

from __future__ import annotations

from typing import NamedTuple


class Shape2d(NamedTuple):
    """Size of an array: (height, width) in pixels."""

    height: int
    width: int


class Bounds(NamedTuple):
    """Axis-parallel rectangle (xmin, ymin, xmax, ymax), half-open, in pixels of the frame its holder names."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float

    @property
    def width(self) -> float:
        """Extent along x."""
        return self.xmax - self.xmin

    @property
    def height(self) -> float:
        """Extent along y."""
        return self.ymax - self.ymin

    def scaled(self, sx: float, sy: float) -> Bounds:
        """The same rectangle in a frame whose pixels are (sx, sy) times smaller."""
        return Bounds(self.xmin * sx, self.ymin * sy, self.xmax * sx, self.ymax * sy)

    def intersection(self, other: Bounds) -> Bounds:
        """The common rectangle; empty (width or height 0) where the two are apart."""
        xmin, ymin = max(self.xmin, other.xmin), max(self.ymin, other.ymin)
        return Bounds(xmin, ymin, max(xmin, min(self.xmax, other.xmax)), max(ymin, min(self.ymax, other.ymax)))
