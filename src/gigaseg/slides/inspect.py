"""The `inspect` step: everything later steps need to know of a slide."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.base import FLUORESCENCE, RASTER, Level, Rendering, SlideInfo
from gigaseg.slides.fingerprint import fingerprint
from gigaseg.slides.pixelsize import resolve_pixel_size, warn_objective
from gigaseg.slides.pyramid import PyramidSlide
from gigaseg.slides.registry import AUTO, open_source
from gigaseg.slides.rendering import choose_channels, find_kind, make_rendering
from gigaseg.slides.source import Source, dtype_limits

_log = logging.getLogger(__name__)

_OVERVIEW = 1024
"""Long side of the overview, px, from which the kind and the stretch limits are taken."""

_MAX_OVERVIEW_PIXELS = 400_000_000
"""Largest level that is read whole for the overview; of a larger one 16 x 16 samples of 64 px are taken."""

_SAMPLES, _SAMPLE = 16, 64


@dataclass(frozen=True)
class Header:
    """What the header of a slide tells, without reading a pixel: enough to compute the number of shards.

    Attributes
    ----------
    width, height : size of level 0, px.
    pixel_size : size of a level-0 pixel (x, y) in `unit`.
    unit : "um", "m" or "px".
    levels : the pyramid, finest first.
    """

    width: int
    height: int
    pixel_size: tuple[float, float]
    unit: str
    levels: tuple[Level, ...]


def header(path: str | Path, *, unit: str = "um", reader: str = AUTO, pixel_size: float | str | None = None) -> Header:
    """Read the header of a slide; arguments and errors as `inspect`."""
    _, source = open_source(path, reader)
    try:
        size, unit, _ = resolve_pixel_size(str(path), source.facts, unit, pixel_size)
        levels = source.facts.levels
        return Header(levels[0].width, levels[0].height, size, unit, levels)
    finally:
        source.close()


def inspect(
    path: str | Path,
    *,
    slide: str,
    unit: str = "um",
    reader: str = AUTO,
    pixel_size: float | str | None = None,
    channels: Sequence[str] | None = None,
) -> SlideInfo:
    """Find out what a slide is, and fix how it is rendered.

    Parameters
    ----------
    path : the slide's file.
    slide : its name in the sheet.
    unit : unit of the preset, "um" or "m"; metadata in the other one is converted.
    reader : name of a reader, or "auto" for the first that opens the file.
    pixel_size : size of a level-0 pixel in `unit`, which overrides the file's; "px" to work in pixels.
    channels : names or 1-based numbers of the native channels to render, in order of use; None for the
        default.

    Returns
    -------
    The content of slide.json.

    Raises
    ------
    SlideError
        The file cannot be opened or decoded, its pixel size is unknown or absurd, or a channel does not
        exist.
    """
    name, source = open_source(path, reader)
    try:
        facts = source.facts
        size, size_unit, size_source = resolve_pixel_size(str(path), facts, unit, pixel_size)
        if size_source == "objective":
            warn_objective(str(path), facts, size, size_unit)
        level0 = facts.levels[0]
        info = SlideInfo(
            slide=slide,
            path=str(path),
            kind="",
            reader=name,
            vendor=facts.vendor,
            width=level0.width,
            height=level0.height,
            levels=facts.levels,
            channels=facts.channels,
            dtype=facts.dtype,
            background=source.background,
            rendering=Rendering((0,)),
            pixel_size=size,
            pixel_size_source=size_source,
            unit=size_unit,
            crs=facts.crs,
            transform=facts.transform,
            nodata=facts.nodata,
            bounds=facts.bounds,
            objective_power=facts.objective_power,
            fingerprint=fingerprint(path),
        )
        overview = _overview(info, source)
        kind = find_kind(facts, unit, overview, source.background)
        used = choose_channels(str(path), facts, kind, channels)
        rendering = make_rendering(facts, kind, used, overview, facts.nodata)
        info = replace(info, kind=kind, background=_background(source, kind), rendering=rendering)
    finally:
        source.close()
    _log.info(
        "%s: %d x %d px, %s, reader %s, %d levels, %g x %g %s per pixel (%s)",
        slide, info.width, info.height, info.kind, name, len(info.levels), *size, size_unit, size_source,
    )  # fmt: skip
    return info


def _background(source: Source, kind: str) -> tuple[float, ...]:
    """The file's own background; else nodata or 0 for a raster, 0 for fluorescence, white for brightfield."""
    facts = source.facts
    if facts.background is not None:
        return facts.background
    if kind == RASTER:
        value = 0.0 if facts.nodata is None else facts.nodata
    else:
        value = 0.0 if kind == FLUORESCENCE else dtype_limits(facts.dtype)[1]
    return (value,) * len(facts.channels)


def _overview(info: SlideInfo, source: Source) -> npt.NDArray[Any]:
    """(y, x, channel) native values that stand for the slide; samples side by side where it is very large."""
    slide = PyramidSlide(info, source)
    coarsest = info.levels[-1]
    if coarsest.width * coarsest.height <= _MAX_OVERVIEW_PIXELS:
        shrink = max(1.0, max(info.width, info.height) / _OVERVIEW)
        shape = Shape2d(max(1, round(info.height / shrink)), max(1, round(info.width / shrink)))
        return slide.read(Bounds(0, 0, info.width, info.height), shape)
    side_x, side_y = _SAMPLE * coarsest.downsample_x, _SAMPLE * coarsest.downsample_y
    samples = []
    for i in range(_SAMPLES * _SAMPLES):
        row, col = divmod(i, _SAMPLES)
        x = math.floor((col + 0.5) * coarsest.width / _SAMPLES) * coarsest.downsample_x
        y = math.floor((row + 0.5) * coarsest.height / _SAMPLES) * coarsest.downsample_y
        samples.append(slide.read(Bounds(x, y, x + side_x, y + side_y), Shape2d(_SAMPLE, _SAMPLE)))
    return np.concatenate(samples)
