"""What a TIFF's pages hold, and whether their bytes are all there; shared by the readers of TIFF."""

from __future__ import annotations

import itertools
import logging
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from gigaseg.errors import SlideError, is_machine_fault
from gigaseg.slides.source import check_held

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it complains of is an error of ours below

_PHOTOMETRIC = {
    0: "MINISWHITE",
    1: "MINISBLACK",
    2: "RGB",
    3: "PALETTE",
    4: "MASK",
    5: "SEPARATED",
    6: "YCBCR",
    8: "CIELAB",
}
_MINISBLACK, _RGB, _YCBCR = 1, 2, 6
_MAX_PAGES = 64
"""Directories whose sizes are checked: those of a pyramid and its pictures; stacks of planes have thousands."""

_MAX_TILE_BYTES = 2**30
"""Largest tile, decoded, that is taken for one: 18,000 px of RGB a side."""

_ASPECT = 0.02
"""Relative difference of the aspect ratio up to which a smaller page counts as a level of a larger one."""


def check_samples(page: Any) -> None:
    """Raise SlideError unless the samples of `page` are brightnesses: grey or RGB, at least 8 bits, real."""
    photometric, bits = int(page.photometric), int(page.bitspersample)
    accepted = "accepted: MINISBLACK, RGB or YCBCR with 8, 16, 32 or 64 bits a sample"
    name = _PHOTOMETRIC.get(photometric, str(photometric))
    if photometric not in (_MINISBLACK, _RGB, _YCBCR) or bits not in (8, 16, 32, 64):
        raise SlideError(f"photometric is {name} with {bits} bits a sample, {accepted}; convert it to RGB or grey")
    if page.dtype is None or np.dtype(page.dtype).kind not in "iuf":
        raise SlideError(f"samples are {page.dtype}, accepted: integers or real numbers")
    if photometric == _YCBCR and not _decodes_to_rgb(page):
        raise SlideError(f"photometric is YCBCR with compression {page.compression.name}, accepted: JPEG")


def _decodes_to_rgb(page: Any) -> bool:
    return page.compression.name in ("OJPEG", "JPEG", "ALT_JPEG")


def refuse_as_rgb(path: str) -> None:
    """Raise SlideError unless the TIFF at `path` is plain 8-bit RGB; see `check_rgb`."""
    with tifffile.TiffFile(path) as tif:
        check_rgb(tif)


def check_rgb(tif: Any) -> None:
    """Raise SlideError unless the first page of `tif` is 8-bit RGB and the file is no OME-TIFF."""
    check_chain(tif)
    page = tif.pages.first
    check_samples(page)
    if tif.is_ome:
        raise SlideError("an OME-TIFF, whose channels and pyramid only the reader tifffile sees")
    if page.dtype != np.uint8 or page.samplesperpixel != 3 or int(page.photometric) not in (_RGB, _YCBCR):
        found = f"{page.samplesperpixel} samples of {page.dtype}, {_PHOTOMETRIC[int(page.photometric)]}"
        raise SlideError(f"not 8-bit RGB ({found})")


def check_chain(tif: Any) -> None:
    """Raise SlideError when the file ends before one of its directories: levels or metadata are then lost."""
    stream, layout = tif.filehandle, tif.tiff
    if not len(tif.pages):
        raise SlideError("the file ends before its first directory (truncated?)")
    last = tif.pages[-1].offset
    stream.seek(last)
    (tags,) = struct.unpack(layout.tagnoformat, stream.read(layout.tagnosize))
    stream.seek(last + layout.tagnosize + tags * layout.tagsize)
    (following,) = struct.unpack(layout.offsetformat, stream.read(layout.offsetsize))
    if following >= stream.size:
        raise SlideError("the file ends before its last directory (truncated?)")


def check_sizes(path: str | Path) -> None:
    """Raise SlideError when a TIFF's directories claim sizes that its tiles or strips do not have.

    Without this a flipped bit would let a reader return pixels that never were, or take all memory. A file that is no
    TIFF, or whose directories cannot be read, is left to the readers.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            for page in itertools.islice(tif.pages, _MAX_PAGES):
                for one in (page.aspage(), *(page.aspage().pages or ())):
                    _check_page(one.aspage(), sparse=tif.is_svs)
    except SlideError:
        raise
    except Exception as error:  # whatever: each reader will give its own reason
        if is_machine_fault(error) and not isinstance(error, MemoryError):
            raise


def _check_page(page: Any, sparse: bool) -> None:
    size = f"{page.imagewidth} x {page.imagelength} px"
    if 0 in (page.imagewidth, page.imagelength, page.samplesperpixel):
        raise SlideError(f"its header claims {size} with {page.samplesperpixel} samples (damaged?)")
    bits = page.tags.get("BitsPerSample")
    if bits is not None and bits.count not in (1, page.samplesperpixel):
        raise SlideError(f"its header claims {page.samplesperpixel} samples, but has bits for {bits.count} (damaged?)")
    if page.is_tiled and 0 in (page.tilewidth, page.tilelength):
        raise SlideError(f"its header claims tiles of {page.tilewidth} x {page.tilelength} px (damaged?)")
    offsets, counts = page.dataoffsets, page.databytecounts
    what, needed = "tiles" if page.is_tiled else "strips", math.prod(page.chunked)
    packed = page.is_tiled or page.compression.name != "NONE"
    if packed and (len(offsets) < needed or len(offsets) != len(counts) or (page.is_tiled and len(offsets) != needed)):
        raise SlideError(
            f"its header claims {size} of {needed} {what}, but places {len(offsets)} and sizes {len(counts)} of them "
            "(damaged?)"
        )
    # what was never written has neither place nor size, but of Aperio's scanners it may have one of them
    half = sum((offset > 0) != (count > 0) for offset, count in zip(offsets, counts))
    if half and not sparse:
        raise SlideError(
            f"{half} of its {needed} {what} have a place without a size, or a size without a place (damaged?)"
        )
    each = math.prod(page.chunks) * page.bitspersample // 8
    if page.is_tiled and each > _MAX_TILE_BYTES:
        raise SlideError(f"its header claims tiles of {each:,} bytes, accepted up to {_MAX_TILE_BYTES:,} (damaged?)")
    written = sum(count > 0 for count in counts)
    claimed = min(each * written, math.prod(page.shape) * page.bitspersample // 8)
    check_held(claimed, sum(counts), page.compression.name)


def same_aspect(page: Any, first: Any) -> bool:
    """Whether `page` has the aspect ratio of `first`, up to the rounding of its size."""
    allowed = _ASPECT + 1 / page.imagewidth + 1 / page.imagelength
    ratio = (page.imagewidth / first.imagewidth) / (page.imagelength / first.imagelength)
    return bool(abs(ratio - 1) <= allowed)


def pyramid_pages(tif: Any) -> int:
    """Number of tiled pages of `tif` that show the whole first page, itself included: its levels."""
    first = tif.pages.first
    samples = first.samplesperpixel
    return sum(p.is_tiled and same_aspect(p, first) and p.samplesperpixel == samples for p in tif.pages)


class Segments:
    """Where the segments (tiles or strips) of a page lie in its file.

    A decoder may return grey or nothing for a segment that the file no longer holds; this finds them
    beforehand.

    Attributes
    ----------
    empty : whether some segment was never written (scanners leave out tiles without tissue).
    """

    def __init__(self, page: Any, file_size: int) -> None:
        y, x = page.axes.index("Y"), page.axes.index("X")
        offsets = np.asarray(page.dataoffsets, dtype=np.int64)
        counts = np.asarray(page.databytecounts, dtype=np.int64)
        grid_shape = page.chunked
        self.empty = bool((counts == 0).any())
        if offsets.size == math.prod(grid_shape):
            missing = (offsets + counts > file_size).reshape(grid_shape)
            others = tuple(axis for axis in range(missing.ndim) if axis not in (y, x))
            self._missing = np.asarray(missing.any(axis=others))
            if page.is_tiled:
                self._height, self._width = page.tilelength, page.tilewidth
            else:
                self._height, self._width = min(page.rowsperstrip, page.imagelength), page.imagewidth
        else:  # one contiguous run of bytes, in whatever strips
            self._missing = np.array([[bool((offsets + counts > file_size).any())]])
            self._height, self._width = page.shape[y], page.shape[x]

    def check(self, x: int, y: int, width: int, height: int) -> None:
        """Raise SlideError when the rectangle needs a segment that lies beyond the end of the file."""
        rows = slice(y // self._height, -(-(y + height) // self._height))
        cols = slice(x // self._width, -(-(x + width) // self._width))
        needed = self._missing[rows, cols]
        if needed.any():
            raise SlideError(f"the file ends before {needed.sum()} of the {needed.size} blocks needed")
