"""A slide as one small picture, whatever its size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.base import Slide

_STRIP_PX = 1 << 26
"""Pixels of a level that are read at once; a slide without a pyramid is read in strips of so many (200 MB RGB)."""

_MAX_ENLARGEMENT = 4
"""A small slide is enlarged up to so many times, that its outlines can be seen."""


def thumbnail(slide: Slide, long_side: int) -> npt.NDArray[np.uint8]:
    """Render a whole slide with its recorded rendering.

    Parameters
    ----------
    slide : an open slide.
    long_side : length of the picture's longer side, px; less when that would enlarge the slide more than 4 times.

    Returns
    -------
    (height, width, 3) uint8 RGB; both sides follow the slide's, rounded.

    Raises
    ------
    SlideError : the file cannot be decoded.
    """
    info = slide.info
    ratio = min(long_side / max(info.width, info.height), _MAX_ENLARGEMENT)
    width, height = max(1, round(info.width * ratio)), max(1, round(info.height * ratio))
    step = info.height / height
    picture = np.empty((height, width, 3), np.uint8)
    rows = _strip_rows(slide, step)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        bounds = Bounds(0, start * step, info.width, stop * step)
        picture[start:stop] = info.rendering.rgb(slide.read(bounds, Shape2d(stop - start, width)))
    return picture


def _strip_rows(slide: Slide, step: float) -> int:
    """Rows of the picture whose source, in the level it is read from, has at most `_STRIP_PX` pixels."""
    usable = [level for level in slide.info.levels if level.downsample_y <= step * 1.001]
    level = max(usable, key=lambda level: level.downsample_y) if usable else slide.info.levels[0]
    return max(1, int(_STRIP_PX / (level.width * step / level.downsample_y)))
