"""Plain pictures (PNG, JPEG, WebP, ...) through Pillow: decoded as a whole, once."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from gigaseg.errors import SlideError
from gigaseg.slides.source import RGB_NAMES, Facts, Source, check_held, check_whole, levels_from_sizes

_DTYPES = {"L": "uint8", "LA": "uint8", "RGB": "uint8", "RGBA": "uint8", "I;16": "uint16", "I;16B": "uint16"}
"""Pillow's pixel modes that are accepted, and their dtype."""


def open_source(path: str, auto: bool) -> Source:
    """Open with Pillow; TIFF is left to the other readers, which know its pyramid and metadata."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # our own limit follows, with a message that tells the way out
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, which is not used
            picture = Image.open(_Bounded(path))
    except UnidentifiedImageError:
        raise SlideError("not a picture that Pillow knows") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    try:
        if picture.format == "TIFF":
            raise SlideError("a TIFF, which the reader tifffile opens")
        if picture.mode not in _DTYPES:
            found = {"P": "PALETTE", "1": "1-bit"}.get(picture.mode, picture.mode)
            raise SlideError(f"photometric is {found}, accepted: 8 or 16-bit grey, 8-bit RGB; convert it")
        check_whole(picture.width, picture.height)
        claimed = picture.width * picture.height * len(picture.getbands())
        check_held(claimed, Path(path).stat().st_size, str(picture.format))
    except BaseException:
        picture.close()
        raise
    return PictureSource(picture)


class _Bounded(io.FileIO):
    """A file that is never asked for more than it holds: a wrong length in a picture would take that much memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left)) or b""


class PictureSource(Source):
    """A picture open in Pillow; transparent pixels are composed over the background."""

    def __init__(self, picture: Image.Image) -> None:
        self._picture = picture
        self._pixels: npt.NDArray[Any] | None = None
        color = picture.mode in ("RGB", "RGBA")
        dtype = _DTYPES[picture.mode]
        self.facts = Facts(
            vendor=str(picture.format),
            levels=levels_from_sizes([picture.size]),
            channels=RGB_NAMES if color else ("grey",),
            dtype=dtype,
            rgb=(0, 1, 2) if color else None,
            pixel_size_note=f"a {picture.format} does not tell it",
        )
        self.background = (float(np.iinfo(dtype).max),) * len(self.facts.channels)

    def read_level(
        self, level: int, x: int, y: int, width: int, height: int, channels: Sequence[int]
    ) -> npt.NDArray[Any]:
        """See `Source`."""
        if self._pixels is None:
            pixels = np.asarray(self._picture)
            self._pixels = pixels.reshape(*pixels.shape[:2], -1).astype(self.facts.dtype, copy=False)
            self._picture.close()
        part = self._pixels[y : y + height, x : x + width]
        array = part[..., list(channels)]
        if part.shape[-1] > len(self.facts.channels):
            background = np.asarray([self.background[channel] for channel in channels], dtype=np.float32)
            share = part[..., -1:].astype(np.float32) / 255
            array = np.rint(array * share + background * (1 - share)).astype(array.dtype)
        return array

    def close(self) -> None:
        """Release the file."""
        self._pixels = None
        self._picture.close()
