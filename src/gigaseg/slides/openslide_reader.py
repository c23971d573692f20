"""Vendors' formats through OpenSlide: 8-bit RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide

from gigaseg.errors import SlideError
from gigaseg.slides.pixelsize import scanner_pixel_size
from gigaseg.slides.source import RGB_NAMES, Facts, Source, levels_from_sizes, scanned_area
from gigaseg.slides.tiff_pages import refuse_as_rgb

_GENERIC = "generic-tiff"
_MAX_KEPT_PIXELS = 16_000_000
"""Largest level, in pixels, kept in memory because it cannot be read in exact parts (64 MB as RGBA)."""


def open_source(path: str, auto: bool) -> Source:
    """Open with OpenSlide; a generic TIFF only when it is 8-bit RGB, which is all that OpenSlide can give."""
    found = openslide.OpenSlide.detect_format(path)
    if found is None:
        raise SlideError("not a format that OpenSlide knows")
    if found == _GENERIC:
        refuse_as_rgb(path)
    return OpenSlideSource(openslide.OpenSlide(path), found)


class OpenSlideSource(Source):
    """A slide open in OpenSlide; transparent pixels are composed over the background."""

    def __init__(self, slide: openslide.OpenSlide, vendor: str) -> None:
        self._slide = slide
        self._kept: dict[int, npt.NDArray[np.uint8]] = {}
        properties = slide.properties
        mpp_x = properties.get(openslide.PROPERTY_NAME_MPP_X)
        mpp_y = properties.get(openslide.PROPERTY_NAME_MPP_Y)
        pixel_size, note = scanner_pixel_size(mpp_x, mpp_y, generic_tiff=vendor == _GENERIC)
        color = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR)
        background = tuple(float(value) for value in bytes.fromhex(color)) if color else None
        power = properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)
        self.facts = Facts(
            vendor=vendor,
            levels=levels_from_sizes(slide.level_dimensions),
            channels=RGB_NAMES,
            dtype="uint8",
            rgb=(0, 1, 2),
            pixel_size=pixel_size,
            pixel_size_note=note,
            objective_power=float(power) if power else None,
            background=background,
            bounds=scanned_area(properties, "openslide"),
        )
        self.background = background or (255.0, 255.0, 255.0)

    def read_level(
        self, level: int, x: int, y: int, width: int, height: int, channels: Sequence[int]
    ) -> npt.NDArray[Any]:
        """See `Source`.

        OpenSlide takes whole level-0 pixels as location and divides them by its own downsample (the mean of
        both axes); where the quotient falls between two pixels of the level, it interpolates. Such a level is
        read from its origin, where nothing is between, and kept if it is small. Of a large one the nearest
        location is read: its pixels are off by at most half a level-0 pixel.
        """
        rgba = self._kept.get(level)
        if rgba is None:
            downsample = self._slide.level_downsamples[level]
            location = round(x * downsample), round(y * downsample)
            exact = downsample == round(downsample)
            level_width, level_height = self._slide.level_dimensions[level]
            if exact or level_width * level_height > _MAX_KEPT_PIXELS:
                image = self._slide.read_region(location, level, (width, height))
                alpha = np.frombuffer(image.tobytes("raw", "A"), np.uint8)
                if tuple(channels) == (0, 1, 2) and alpha.min() == 255:
                    # five times as fast as to take the colours out of an RGBA array
                    rgb = np.frombuffer(image.tobytes("raw", "RGB"), np.uint8)
                    return rgb.reshape(height, width, 3)
                rgba = np.asarray(image)
                x, y = 0, 0
            else:
                rgba = np.asarray(self._slide.read_region((0, 0), level, (level_width, level_height)))
                self._kept[level] = rgba
        rgba = rgba[y : y + height, x : x + width]
        rgb, opacity = np.take(rgba, channels, axis=2), rgba[..., 3:]
        if (opacity == 255).all():
            return rgb
        background = np.asarray([self.background[channel] for channel in channels], dtype=np.float32)
        share = opacity.astype(np.float32) / 255
        return np.rint(rgb * share + background * (1 - share)).astype(np.uint8)

    def close(self) -> None:
        """Release the file."""
        self._kept.clear()
        self._slide.close()
