"""Masks as COCO and LVIS write them: polygons, and runs of pixels column by column, as numbers or as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.one_shot.base import Mask


def decode_segmentation(segmentation: Any, shape: tuple[int, int]) -> Mask:
    """The mask of an annotation.

    Parameters
    ----------
    segmentation : polygons as lists x, y, x, y, ..., whose union it is; or ``{"size": [h, w], "counts": ...}``, with a
        list of numbers or with text.
    shape : (h, w) of the image.

    Raises
    ------
    ValueError
        It is none of them, or not of that shape.
    """
    if isinstance(segmentation, dict):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if size is None or list(size) != list(shape):
            raise ValueError(f"size is {size}, expected {list(shape)}, the image's height and width")
        return from_runs(parse_counts(counts) if isinstance(counts, str) else _numbers(counts), shape)
    if isinstance(segmentation, list):
        return fill_polygons(segmentation, shape)
    raise ValueError(f"segmentation is {type(segmentation).__name__}, accepted: a list of polygons, or size and counts")


def fill_polygons(polygons: Sequence[Sequence[float]], shape: tuple[int, int]) -> Mask:
    """Union of polygons, each x, y, x, y, ... in px with pixel corners at integers; a pixel is in by its centre.

    COCO's own tool walks along outlines in fifths of a pixel and so differs in some pixels of the rim.
    """
    from rasterio.features import rasterize

    rings = []
    for polygon in polygons:
        xy = np.asarray(polygon, dtype=np.float64)
        if xy.ndim != 1 or len(xy) % 2 or not np.isfinite(xy).all():
            raise ValueError(f"a polygon is {str(polygon)[:60]}, expected pairs x, y of numbers")
        if len(xy) < 6:  # a line
            continue
        corners = xy.reshape(-1, 2).tolist()
        rings.append({"type": "Polygon", "coordinates": [[*corners, corners[0]]]})
    if not rings:
        return np.zeros(shape, np.bool_)
    return np.asarray(rasterize(rings, out_shape=shape, dtype=np.uint8), dtype=np.bool_)


def from_runs(counts: npt.NDArray[np.int64], shape: tuple[int, int]) -> Mask:
    """The mask of lengths of runs, in turn background and foreground, down each column from the left."""
    if len(counts) and counts.min() < 0:
        raise ValueError(f"counts hold {counts.min()}, accepted: 0 or more")
    if counts.sum() != shape[0] * shape[1]:
        raise ValueError(f"counts sum to {counts.sum()}, expected {shape[0]} × {shape[1]} = {shape[0] * shape[1]}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(flat.reshape(shape[1], shape[0]).T)


def parse_counts(text: str) -> npt.NDArray[np.int64]:
    """Lengths of runs from COCO's text.

    A number is written as its difference to the one before the previous (the first three as they are), in groups of
    five bits from the lowest on. A group is a character from "0" on: its sixth bit says that another follows, and
    the fifth bit of the last group is the sign.

    >>> parse_counts("5220003").tolist()
    [5, 2, 2, 2, 2, 2, 5]
    """
    counts: list[int] = []
    value = place = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64:
            raise ValueError(f"counts hold the character '{letter}', accepted: '0' to 'o'")
        value |= (code & 31) << place
        place += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << place
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = place = 0
    if place:
        raise ValueError("counts end within a number")
    return np.array(counts, dtype=np.int64)


def _numbers(counts: Any) -> npt.NDArray[np.int64]:
    whole = isinstance(counts, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in counts)
    if not whole:
        raise ValueError(f"counts is {type(counts).__name__}, accepted: text, or a list of whole numbers")
    return np.array(counts, dtype=np.int64)
