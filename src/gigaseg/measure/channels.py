"""What is measured of a pixel: stains of a brightfield slide, native channels of any other; bins for quantiles."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gigaseg.slides.base import BRIGHTFIELD, SlideInfo

STAINS = ("haematoxylin", "eosin", "dab")

RGB_FROM_STAIN = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical density in red, green and blue of one unit of each stain: Ruifrok & Johnston, Anal Quant Cytol Histol 23
(2001) 291; rows in the order of `STAINS`."""

STAIN_BIN = 0.01
"""Width of the bins from which quantiles of stains are read, optical density; 256 of them, 0 .. 2.56."""

FLOAT_BINS = 1024
"""Bins of dtypes other than uint8 and uint16, evenly from limits - width to limits + width of the rendering."""

_SIGNIFICANT = 7
"""Bits that a bin of 16-bit values keeps: values below 2^7 are exact, larger ones within 0.8 % of themselves."""


@dataclass(frozen=True)
class Channels:
    """How native pixels become the values that are measured.

    Attributes
    ----------
    names : column prefix of each channel, unit included.
    used : native channels to read; None: all, rendered as RGB.
    centres : (channels, bins) value that stands for each bin, ascending.
    """

    info: SlideInfo
    names: tuple[str, ...]
    used: tuple[int, ...] | None
    centres: npt.NDArray[np.float64]

    @property
    def bins(self) -> int:
        """Number of bins of each channel."""
        return int(self.centres.shape[1])

    def values(
        self, pixels: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        """Values and bins of pixels.

        Parameters
        ----------
        pixels : (n, 3) uint8 RGB where stains are measured, else (n, channels) native values.

        Returns
        -------
        (n, channels) values, (n, channels) bins, and (n, channels) bool where there is data, None for everywhere.
        """
        if self.used is None:
            od = cv2.LUT(np.ascontiguousarray(pixels)[:, np.newaxis], _OD)
            # one stain at a time, so that each is contiguous
            stains = np.stack([cv2.transform(od, row[np.newaxis]).reshape(-1) for row in _STAIN_FROM_OD.T.copy()])
            np.maximum(stains, 0, out=stains)
            bins = np.minimum(stains * np.float32(1 / STAIN_BIN), self.bins - 1).astype(np.uint8)
            return stains.T, bins.T, None
        valid = None
        if self.info.nodata is not None:
            valid = np.asarray(pixels != np.asarray(self.info.nodata).astype(pixels.dtype))
        if pixels.dtype.kind == "f":
            finite = np.isfinite(pixels)
            if not finite.all():
                valid = finite if valid is None else valid & finite
                pixels = np.where(finite, pixels, 0)
        return pixels, self._bin(pixels), valid

    def _bin(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if pixels.dtype == np.uint8:
            return pixels
        if pixels.dtype == np.uint16:
            return _bin_of_uint16().take(pixels)
        low, high = self.centres[:, 0], self.centres[:, -1]
        place = (pixels - low) * ((self.bins - 1) / (high - low)) + 0.5
        return np.clip(place, 0, self.bins - 1).astype(np.int64)


def channels_of(info: SlideInfo) -> Channels:
    """The channels measured on a slide: stains where it is brightfield RGB, else its native channels but alpha."""
    if info.kind == BRIGHTFIELD and len(info.rendering.channels) == 3:
        centres = (np.arange(256) + 0.5) * STAIN_BIN
        return Channels(info, tuple(f"{name}_od" for name in STAINS), None, np.tile(centres, (len(STAINS), 1)))
    used = tuple(i for i, name in enumerate(info.channels) if name != "alpha")
    return Channels(info, _names([info.channels[i] for i in used]), used, _centres(info, used))


def _centres(info: SlideInfo, used: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Bins by dtype: 8-bit values themselves; 16-bit by their leading bits; others evenly about the stretch limits."""
    if info.dtype == "uint8":
        return np.tile(np.arange(256.0), (len(used), 1))
    if info.dtype == "uint16":
        value, number = np.arange(2**16, dtype=np.float64), _bin_of_uint16()
        return np.tile(np.bincount(number, weights=value) / np.bincount(number), (len(used), 1))
    limits = dict(zip(info.rendering.channels, info.rendering.limits or ()))
    widest = (
        min((low for low, _ in limits.values()), default=0.0),
        max((high for _, high in limits.values()), default=255.0),
    )
    rows = []
    for channel in used:
        low, high = limits.get(channel, widest)
        # as much again on either side: limits leave out the outermost per cents
        margin = max(high - low, 1e-12)
        rows.append(np.linspace(low - margin, high + margin, FLOAT_BINS))
    return np.array(rows)


@cache
def _bin_of_uint16() -> npt.NDArray[np.int64]:
    """(65536,) the bin of each 16-bit value: its exponent and `_SIGNIFICANT` leading bits, without gaps."""
    value = np.arange(2**16)
    shift = np.maximum(np.floor(np.log2(np.maximum(value, 1))).astype(np.int64) + 1 - _SIGNIFICANT, 0)
    return np.asarray(np.unique((value >> shift) << shift, return_inverse=True)[1], dtype=np.int64)


def _names(channels: list[str]) -> tuple[str, ...]:
    """Channel names as column names: lower case, letters, digits and underscores, numbered where they coincide."""
    names: list[str] = []
    for number, channel in enumerate(channels, 1):
        name = re.sub(r"[^0-9a-z]+", "_", channel.lower()).strip("_")
        if not name or name.isdigit():
            name = f"channel{name or number}"
        names.append(f"{name}_{number}" if name in names else name)
    return tuple(names)


_OD = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
"""Optical density of 8-bit values; 0 counts as 1, the darkest that 8 bits can tell."""

_STAIN_FROM_OD = np.linalg.inv(RGB_FROM_STAIN).astype(np.float32)
