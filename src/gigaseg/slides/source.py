"""What a reader supplies: facts about a file, and integer rectangles of its levels.

Everything else (choosing a level, resampling, background, rendering) is common to all readers and lies in
`gigaseg.slides.pyramid` and `gigaseg.slides.inspect`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.errors import SlideError, one_line
from gigaseg.slides.base import Level

RGB_NAMES = ("red", "green", "blue")
"""Names of the native channels of a colour image."""

MAX_WHOLE_PIXELS = 2_000_000_000
"""Largest image, in pixels, that is decoded as a whole (6 GB as 8-bit RGB) when its file has no tiles."""


_MOST_HELD = {
    "NONE": 1,
    "PACKBITS": 128,
    "JPEG": 1024,
    "LZW": 2048,
    "ADOBE_DEFLATE": 1040,
    "DEFLATE": 1040,
    "PNG": 1040,
}
"""Bytes of pixels in a stored byte, at most, of compressions that have a bound: a JPEG's block of 64 values takes two
bits, its colours being halved along both axes; deflate repeats up to 258 bytes by two bits; LZW's longest string is the
number of its codes."""

_OVERHEAD = 4096
"""Bytes that may be claimed beyond: of a tiny picture."""


@dataclass(frozen=True)
class Facts:
    """What a file says of itself, before the sheet and the pixels have their say.

    Attributes
    ----------
    vendor : vendor or format, as the reader reports it.
    levels : the pyramid, finest first.
    channels : names of the native channels.
    dtype : native dtype as numpy names it.
    rgb : indices of the channels that are red, green and blue; None when the file does not say so.
    colors : RGB colour in 0..1 of each channel, or None.
    pixel_size, unit : size of a level-0 pixel (x, y) in `unit` ("um" or "m"), or None when the file does not
        tell.
    pixel_size_note : why it does not tell.
    objective_power : of the scanner, or None.
    georeferenced : whether the file has a transform or a CRS.
    crs, transform, nodata : as in `SlideInfo`.
    background : value of each channel outside the scanned area, or None to choose by the kind of slide.
    bounds : x, y, width and height, level-0 px, of the scanned area where the file tells it (MIRAX); else None.
    fluorescence : whether it is a fluorescence image, or None when the file does not tell.
    """

    vendor: str
    levels: tuple[Level, ...]
    channels: tuple[str, ...]
    dtype: str
    rgb: tuple[int, int, int] | None = None
    colors: tuple[tuple[float, float, float], ...] | None = None
    pixel_size: tuple[float, float] | None = None
    unit: str = "um"
    pixel_size_note: str = "its metadata has none"
    objective_power: float | None = None
    georeferenced: bool = False
    crs: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    nodata: float | None = None
    background: tuple[float, ...] | None = None
    bounds: tuple[int, int, int, int] | None = None
    fluorescence: bool | None = None


class Source(ABC):
    """An open file.

    Attributes
    ----------
    facts : what the file says of itself.
    background : value of each channel where the file has no pixels; set once the kind of slide is known.
    """

    facts: Facts
    background: tuple[float, ...]

    @abstractmethod
    def read_level(
        self, level: int, x: int, y: int, width: int, height: int, channels: Sequence[int]
    ) -> npt.NDArray[Any]:
        """Read a rectangle of a level, in that level's pixels; the rectangle lies inside the level.

        Returns
        -------
        (height, width, len(channels)) array in the native dtype. Any exception means that the file cannot be
        decoded there; `gigaseg.slides.pyramid` turns it into a SlideError.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the file."""


def levels_from_sizes(sizes: Sequence[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels from their (width, height), finest first.

    The downsample of a level is the ratio of the sizes, per axis: the level is taken to show the whole of
    level 0.
    """
    width, height = sizes[0]
    return tuple(Level(w, h, width / w, height / h) for w, h in sizes)


def scanned_area(properties: Mapping[str, Any], library: str) -> tuple[int, int, int, int] | None:
    """`Facts.bounds` by the properties of OpenSlide or tiffslide; None unless all four are there, as QuPath has it."""
    try:
        x, y, width, height = (int(properties[f"{library}.bounds-{name}"]) for name in ("x", "y", "width", "height"))
    except (KeyError, TypeError, ValueError):
        return None
    return x, y, width, height


def reason(error: BaseException) -> str:
    """What went wrong, in one line: our own words, or those of the library's innermost error with its type."""
    while error.__cause__ is not None and not isinstance(error, SlideError):
        error = error.__cause__
    text = one_line(error)
    return text if isinstance(error, SlideError) else f"{text} ({type(error).__name__})".strip()


def check_whole(width: int, height: int) -> None:
    """Raise SlideError when a picture without tiles is too large to be decoded as a whole."""
    if width * height > MAX_WHOLE_PIXELS:
        raise SlideError(
            f"{width} x {height} px without tiles must be decoded as a whole, accepted up to "
            f"{MAX_WHOLE_PIXELS:,} px; make a tiled pyramid of it, e.g. "
            "vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg --bigtiff"
        )


def check_held(claimed: int, stored: int, compression: str) -> None:
    """Raise SlideError when a header claims more bytes of pixels than the stored ones can be unpacked to."""
    most = _MOST_HELD.get(compression.upper())
    if most is not None and claimed > most * stored + _OVERHEAD:
        raise SlideError(
            f"its header claims {claimed:,} bytes of pixels, but its {stored:,} bytes of {compression} hold at most "
            f"{most} times as many (damaged or truncated?)"
        )


def dtype_limits(dtype: str) -> tuple[float, float]:
    """Smallest and largest value of an integer dtype; (0, 1) for a floating one."""
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return float(limits.min), float(limits.max)
    return 0.0, 1.0
