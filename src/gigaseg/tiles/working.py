"""The working resolution: from a slide's pixel size and a segmenter's card to the bounding grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gigaseg.config import Preset, check_overlap
from gigaseg.errors import ConfigError, SlideError
from gigaseg.segmenters.card import Card
from gigaseg.slides.base import Level
from gigaseg.tiles.tiling import Tiling

SNAP = 0.05
"""Relative difference up to which an existing level stands for the working resolution. 5 % of an object's size is less
than the spread between scanners; reading a level's own pixels is exact and several times faster than resampling."""

MAX_ENLARGEMENT = 8.0
"""Working pixels may be this much finer than the slide's; more is a wrong preset or pixel size."""


def working_tiling(
    width: int,
    height: int,
    levels: Sequence[Level],
    pixel_size: tuple[float, float],
    unit: str,
    preset: Preset,
    card: Card,
    name: str,
) -> Tiling:
    """The bounding grid of a slide.

    Parameters
    ----------
    width, height, levels : of level 0 in px, and the pyramid.
    pixel_size, unit : of level 0.
    preset, card : the preset and its segmenter's card.
    name : the slide, for messages.

    Raises
    ------
    ConfigError
        The overlap does not fit the tile.
    SlideError
        The working resolution would enlarge the slide more than `MAX_ENLARGEMENT` times.
    """
    tile = preset.tiles.tile or card.tile
    overlap = card.overlap if preset.tiles.overlap is None else preset.tiles.overlap
    for line in check_overlap(tile, overlap):
        raise ConfigError(f"slide '{name}': {line}")
    scale = _scale(levels, pixel_size, unit, _resolution(preset, card, unit), name)
    return Tiling(
        tile=tile,
        overlap=overlap,
        # a hair is taken off, so that a quotient such as 100.0000001 does not add a row of background
        width=max(1, math.ceil(width / scale[0] - 1e-6)),
        height=max(1, math.ceil(height / scale[1] - 1e-6)),
        scale=scale,
        pixel_size=(pixel_size[0] * scale[0], pixel_size[1] * scale[1]),
        unit=unit,
    )


def _resolution(preset: Preset, card: Card, unit: str) -> float | None:
    """Size of a working pixel in `unit`, or None for level 0 as it is."""
    if unit == "px":
        return None
    if preset.working_resolution is not None:
        return preset.working_resolution
    if preset.object_diameter is not None and card.object_diameter is not None:
        return preset.object_diameter / card.object_diameter
    return card.pixel_size if card.unit == unit else None


def _scale(
    levels: Sequence[Level], pixel_size: tuple[float, float], unit: str, resolution: float | None, name: str
) -> tuple[float, float]:
    if resolution is None:
        return (1.0, 1.0)
    wanted = (resolution / pixel_size[0], resolution / pixel_size[1])
    if min(wanted) * MAX_ENLARGEMENT < 1:
        raise SlideError(
            f"slide '{name}': pixel size is {max(pixel_size):g} {unit} and the working resolution {resolution:g} "
            f"{unit}, which enlarges it {1 / min(wanted):.3g} times; accepted: up to {MAX_ENLARGEMENT:g} "
            "(wrong preset or pixel_size?)"
        )

    def distance(level: Level) -> float:
        return max(abs(math.log(level.downsample_x / wanted[0])), abs(math.log(level.downsample_y / wanted[1])))

    best = min(levels, key=distance)
    if distance(best) <= math.log1p(SNAP):
        return (best.downsample_x, best.downsample_y)
    return wanted


def shards_of(tiles: int, tiles_per_shard: int) -> int:
    """Number of shards of a slide: from the tiles of its bounding grid, known before any pixel is read."""
    return max(1, math.ceil(tiles / tiles_per_shard))
