"""A first look at a tile: whether anything at all stands out in it, told in about a millisecond.

What is blank costs an encoder as much as tissue does: padding of a scan, dark fields, glass in the margin of the
foreground. A tile is called blank only where it is more even than what a segmenter accepts that drops objects which
differ from their surroundings by less than 3 grey levels (`gigaseg.segmenters.contrast`). Doubtful tiles are not blank,
those with noise, dust or a gradient among them.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

BLOCK = 8
"""Side, px, of the squares that are looked at, half a side apart: a disc of 12 px fills nine tenths of one of them."""

CONTRAST = 3.0
"""Grey levels by which objects must at least differ from their surroundings, for a blank tile to hold none."""

LEAST_RANGE = 2.0
"""Grey levels of 255 between the brightest and the darkest square, from which on a tile is not blank: what is left of
a difference of `CONTRAST` in a square that a small object fills by two thirds; `benchmarks/shortcuts.py` counts what is
lost."""


def is_blank(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether nothing stands out in a tile, in no channel.

    Parameters
    ----------
    pixels : (h, w, 3) uint8 RGB at the working resolution, where objects measure at least `BLOCK` px.

    Returns
    -------
    False in doubt; True for an empty tile.
    """
    height, width = pixels.shape[:2]
    if not height or not width:
        return True
    step = BLOCK // 2
    shape = (max(1, round(width / step)), max(1, round(height / step)))
    means = cv2.resize(pixels.astype(np.float32), shape, interpolation=cv2.INTER_AREA)
    # two by two of them are a square; the reflected border adds none that is not there
    squares = cv2.blur(means, (2, 2), borderType=cv2.BORDER_REFLECT_101).reshape(-1, pixels.shape[2])
    return bool((squares.max(0) - squares.min(0)).max() < LEAST_RANGE)
