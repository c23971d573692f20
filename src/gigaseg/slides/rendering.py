"""How a slide becomes RGB: its kind, the channels that are used, stretch limits and colours; decided once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.errors import SlideError, unknown
from gigaseg.slides.base import BRIGHTFIELD, FLUORESCENCE, RASTER, Rendering
from gigaseg.slides.source import Facts, dtype_limits

_log = logging.getLogger(__name__)

_DARK = 0.25
"""A slide whose median brightness is below this share of its range is fluorescence: light on dark.

Of 488 fluorescence images of the 2018 Data Science Bowl the highest median is 0.17; of its 110 brightfield and stained
ones and of the 30 of MoNuSeg, where dense tissue fills the whole picture, the lowest is 0.32.
"""

_STRETCH = {RASTER: (2.0, 98.0), FLUORESCENCE: (0.1, 99.8), BRIGHTFIELD: (0.1, 99.9)}
"""Percentiles of the overview that become 0 and 255.

Rasters have outliers at both ends; in fluorescence the objects are the few bright pixels, so little may be
clipped.
"""

_COLORS = ((0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))
"""Colours of fluorescence channels when the file names none: blue first, for the nuclear stain."""

_NUCLEAR = ("dapi", "hoechst", "draq5", "sytox", "dna", "nucle")
"""Parts of channel names that mean a nuclear stain."""


def find_kind(facts: Facts, unit: str, overview: npt.NDArray[Any], background: Sequence[float]) -> str:
    """Kind of slide, from the metadata where it tells, else from the brightness of an overview.

    Georeferenced files are rasters, and so are files of a preset in metres that no microscope has signed.
    Else a slide is fluorescence when the median brightness of its overview, leaving out pixels of the
    scanner's empty background, is below a quarter of the range (of the 99.9th percentile for more than 8 bits).

    Parameters
    ----------
    facts : of the file.
    unit : the preset's unit.
    overview : (y, x, channel) native values.
    background : native value of each channel where the file has no pixels.
    """
    if facts.georeferenced or (unit == "m" and facts.pixel_size is None and facts.objective_power is None):
        return RASTER
    if facts.fluorescence is not None:
        return FLUORESCENCE if facts.fluorescence else BRIGHTFIELD
    values = _scanned(overview, background).astype(np.float64).mean(axis=-1)
    top = 255.0 if facts.dtype == "uint8" else float(np.percentile(values, 99.9))
    return FLUORESCENCE if float(np.median(values)) < _DARK * top else BRIGHTFIELD


def choose_channels(path: str, facts: Facts, kind: str, wanted: Sequence[str] | None) -> tuple[int, ...]:
    """Native channels the rendering uses, in order of use.

    Parameters
    ----------
    path : for messages.
    facts, kind : of the slide.
    wanted : names or 1-based numbers from the sheet, or None for the default: red, green and blue where the
        file says which they are; all channels of a fluorescence slide, up to seven (of more, those with a
        nuclear stain, else the first three); the first three of a raster, or its only one.

    Raises
    ------
    SlideError
        A channel does not exist, is named twice, or their number cannot be rendered.
    """
    count = len(facts.channels)
    if wanted:
        chosen = tuple(_channel(path, facts, str(name).strip()) for name in wanted)
        if len(set(chosen)) < len(chosen):
            raise SlideError(f"{path}: channels {', '.join(map(str, wanted))} name a channel twice")
        if kind != FLUORESCENCE and len(chosen) not in (1, 3):
            raise SlideError(f"{path}: {len(chosen)} channels for a {kind} slide, accepted: one (grey) or three (RGB)")
        return chosen
    if facts.rgb is not None:
        return facts.rgb
    if kind == FLUORESCENCE and count > 1:
        if count <= len(_COLORS):
            return tuple(range(count))
        nuclear = tuple(i for i, name in enumerate(facts.channels) if any(n in name.lower() for n in _NUCLEAR))
        chosen = nuclear[: len(_COLORS)] or (0, 1, 2)
        _log.warning(
            "%s: of its %d channels pictures and models see %s; choose others in the sheet's column 'channels'",
            path, count, ", ".join(facts.channels[i] for i in chosen),
        )  # fmt: skip
        return chosen
    return (0, 1, 2) if count >= 3 else (0,)


def make_rendering(
    facts: Facts, kind: str, channels: tuple[int, ...], overview: npt.NDArray[Any], nodata: float | None
) -> Rendering:
    """Rendering of `channels`; stretch limits are percentiles of the overview.

    8-bit colour is taken as it is, and so is any 8-bit brightfield or raster; everything else is stretched
    from percentiles 2..98 (raster), 0.1..99.8 (fluorescence) or 0.1..99.9 (brightfield) of the overview's
    valid pixels.

    Parameters
    ----------
    facts, kind : of the slide.
    channels : native channels used.
    overview : (y, x, native channel).
    nodata : value of pixels to leave out, or None.
    """
    as_rgb = facts.rgb is not None and len(channels) == 3
    colors = None
    if kind == FLUORESCENCE and not as_rgb and len(channels) > 1:
        own = facts.colors
        colors = tuple(own[c] if own else _default_color(i) for i, c in enumerate(channels))
    if facts.dtype == "uint8" and (as_rgb or kind != FLUORESCENCE):
        return Rendering(channels, None, colors)
    low_percent, high_percent = _STRETCH[kind]
    ignored = [0.0 if nodata is None else nodata] * overview.shape[-1] if kind != BRIGHTFIELD else []
    values = _scanned(overview, ignored) if nodata is not None or kind == FLUORESCENCE else overview
    values = values.reshape(-1, values.shape[-1])
    minimum, maximum = dtype_limits(facts.dtype)
    integers = np.dtype(facts.dtype).kind in "iu"
    # an empty slide must not have its noise stretched to full contrast
    narrowest = (maximum - minimum) / 256 if integers and kind == FLUORESCENCE else (1.0 if integers else 1e-6)
    limits = []
    for channel in channels:
        finite = values[:, channel][np.isfinite(values[:, channel])]
        low, high = np.percentile(finite, (low_percent, high_percent)) if finite.size else (0.0, 0.0)
        limits.append((float(low), max(float(high), float(low) + narrowest)))
    return Rendering(channels, tuple(limits), colors)


def _scanned(overview: npt.NDArray[Any], ignored: Sequence[float]) -> npt.NDArray[Any]:
    """(n, channel) pixels that are not `ignored` in every channel; all, when fewer than 1 % are left."""
    flat = overview.reshape(-1, overview.shape[-1])
    if not len(ignored):
        return flat
    kept = flat[np.any(flat != np.asarray(ignored), axis=-1)]
    return kept if len(kept) >= 0.01 * len(flat) else flat


def _channel(path: str, facts: Facts, name: str) -> int:
    if name in facts.channels:
        return facts.channels.index(name)
    lowered = [channel.lower() for channel in facts.channels]
    if lowered.count(name.lower()) == 1:
        return lowered.index(name.lower())
    if name.isdecimal() and 1 <= int(name) <= len(facts.channels):
        return int(name) - 1
    accepted = [*facts.channels, f"a number 1..{len(facts.channels)}"]
    raise SlideError(f"{path}: {unknown('channel', name, accepted)}")


def _default_color(index: int) -> tuple[float, float, float]:
    red, green, blue = _COLORS[index % len(_COLORS)]
    return float(red), float(green), float(blue)
