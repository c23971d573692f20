"""8-bit RGB tiled TIFF, Aperio SVS above all, through tiffslide: the fastest way to decode it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tiffslide

from gigaseg.errors import SlideError
from gigaseg.slides.pixelsize import scanner_pixel_size
from gigaseg.slides.source import RGB_NAMES, Facts, Source, levels_from_sizes, scanned_area
from gigaseg.slides.tiff_pages import Segments, check_rgb, pyramid_pages, same_aspect

_GENERIC = "generic-tiff"
_SAFE_VENDORS = ("aperio", _GENERIC)
"""Formats whose levels and metadata tiffslide reads in full (of a Hamamatsu slide it misses levels)."""

_SAFE_COMPRESSIONS = (
    "NONE",
    "LZW",
    "JPEG",
    "ADOBE_DEFLATE",
    "DEFLATE",
    "ZSTD",
    "WEBP",
    "APERIO_JP2000_RGB",
    "JPEG2000",
)
"""Compressions that are decoded to RGB (Aperio's other JPEG 2000 would come out as YCbCr)."""


def open_source(path: str, auto: bool) -> Source:
    """Open with tiffslide what it reads right; with `auto` only what it reads better than OpenSlide does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces what it does not parse; the checks below decide
        slide = tiffslide.TiffSlide(path)
        try:
            return _checked(slide, path, auto)
        except BaseException:
            slide.close()
            raise


def _checked(slide: tiffslide.TiffSlide, path: str, auto: bool) -> Source:
    tif = slide.ts_tifffile
    check_rgb(tif)
    properties = slide.properties
    vendor = properties.get("tiffslide.vendor") or _GENERIC
    if "tiffslide.series-composition" in properties:
        raise SlideError("a slide of several regions, which openslide puts together")
    axes = properties.get("tiffslide.series-axes")
    if axes != "YXS":
        raise SlideError(f"its axes are {axes}, accepted: YXS")
    levels = tif.series[properties.get("tiffslide.series-index", 0)].levels
    pages = [level.keyframe for level in levels]
    first = pages[0]
    for index, page in enumerate(pages):
        if not same_aspect(page, first):
            raise SlideError(f"level {index} has another aspect ratio than level 0")
        if not page.is_tiled:
            raise SlideError(f"level {index} is not tiled")
        if page.compression.name not in _SAFE_COMPRESSIONS:
            raise SlideError(f"level {index} has compression {page.compression.name}, whose colours it may not decode")
    if auto and vendor not in _SAFE_VENDORS:
        raise SlideError(f"a slide of {vendor}, which openslide reads in full")
    offered = pyramid_pages(tif)
    if auto and offered > len(levels):
        raise SlideError(f"it sees {len(levels)} of {offered} levels")
    size = Path(path).stat().st_size
    segments = [Segments(page, size) for page in pages]
    if any(segment.empty for segment in segments):
        raise SlideError("some tiles were never written, which openslide fills with background")
    return TiffSlideSource(slide, vendor, segments)


class TiffSlideSource(Source):
    """A slide open in tiffslide."""

    def __init__(self, slide: tiffslide.TiffSlide, vendor: str, segments: Sequence[Segments]) -> None:
        self._slide = slide
        self._segments = segments
        properties = slide.properties
        pixel_size, note = scanner_pixel_size(
            properties.get("tiffslide.mpp-x"),
            properties.get("tiffslide.mpp-y"),
            generic_tiff=vendor == _GENERIC,
        )
        power = properties.get("tiffslide.objective-power")
        self.facts = Facts(
            vendor=vendor,
            levels=levels_from_sizes(slide.level_dimensions),
            channels=RGB_NAMES,
            dtype="uint8",
            rgb=(0, 1, 2),
            pixel_size=pixel_size,
            pixel_size_note=note,
            objective_power=float(power) if power else None,
            bounds=scanned_area(properties, "tiffslide"),
        )
        self.background = (255.0, 255.0, 255.0)

    def read_level(
        self, level: int, x: int, y: int, width: int, height: int, channels: Sequence[int]
    ) -> npt.NDArray[Any]:
        """See `Source`; read from the level's array, as `read_region` would round level-0 locations."""
        self._segments[level].check(x, y, width, height)
        stored: Any = self._slide.zarr_group[str(level)]
        array = np.asarray(stored[y : y + height, x : x + width])
        return array if tuple(channels) == (0, 1, 2) else array[..., list(channels)]

    def close(self) -> None:
        """Release the file."""
        self._slide.close()
