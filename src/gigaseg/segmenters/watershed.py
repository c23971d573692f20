"""The weight-free baseline for nuclei: signal, local threshold, markers, watershed.

Every step looks at a neighbourhood of a few object diameters and at limits that are fixed for the slide, never at
the tile as a whole, so that two tiles agree where they overlap and an empty tile yields nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.base import Context, TileBatch, TileInstances
from gigaseg.segmenters.card import Card
from gigaseg.slides.base import BRIGHTFIELD, FLUORESCENCE, RASTER

if TYPE_CHECKING:
    from torch import Tensor

_Image = npt.NDArray[np.float32]
_Labels = npt.NDArray[np.int32]

HAEMATOXYLIN = (1.8780, -0.0659, -0.6019)
"""Weights of the optical densities of red, green, blue that leave haematoxylin beside eosin and DAB: first column of
the inverse of the stain matrix of Ruifrok and Johnston (Anal Quant Cytol Histol 23, 2001)."""


@dataclass(frozen=True)
class Settings:
    """What `find_nuclei` needs beside the pixels.

    Attributes
    ----------
    fluorescence : bright objects on dark; else stained ones on bright.
    diameter, smallest, largest : typical, least and greatest diameter of a nucleus, px.
    contrast : least difference between a nucleus and what lies around it, 0..1 of the signal's range.
    floor : signal that a nucleus has at least, 0..1 of the signal's range.
    splitting : how deep the waist between two nuclei must be, in nucleus radii; lower splits more.
    """

    fluorescence: bool
    diameter: float
    smallest: float
    largest: float
    contrast: float
    floor: float
    splitting: float


class Watershed:
    """The segmenter `watershed` (see its card for the options)."""

    card: Card

    def __init__(self, card: Card, context: Context) -> None:
        self.card = card
        self._settings = settings(card, context)
        self._see_whole = context.tiling.overlap >= self._settings.largest

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """Instances of each tile; an object that the tile's border cuts stays."""
        return [self._tile(image) for image in batch.images.permute(0, 2, 3, 1).cpu().numpy()]

    def _tile(self, image: npt.NDArray[np.uint8]) -> TileInstances:
        import torch

        labels, scores = find_nuclei(image, self._settings, whole=self._see_whole)
        boxes, masks = _crops(labels)
        n = len(boxes)
        return TileInstances(
            boxes=torch.from_numpy(boxes),
            masks=masks,
            scores=torch.from_numpy(scores),
            class_prob=torch.ones((n, 1), dtype=torch.float32),
        )


def settings(card: Card, context: Context) -> Settings:
    """Options of the card in µm as pixels of the tiles.

    Raises
    ------
    SegmenterError
        The slide is a raster, or the options contradict each other.
    """
    if context.info.kind == RASTER:
        raise SegmenterError(
            f"segmenter 'watershed' finds nuclei; slide '{context.info.slide}' is a raster; "
            f"accepted: {BRIGHTFIELD}, {FLUORESCENCE}"
        )
    options = card.complete(context.options)
    low, typical, high = (options[f"{name}diameter_um"] for name in ("min_", "", "max_"))
    if not 0 < low < typical < high:
        raise SegmenterError(
            f"segmenter 'watershed': min_diameter_um {low}, diameter_um {typical}, max_diameter_um {high}; "
            "accepted: 0 < min < typical < max"
        )
    tiling = context.tiling
    if tiling.unit == "um":
        scale = 1 / math.sqrt(tiling.pixel_size[0] * tiling.pixel_size[1])
    else:
        # without a pixel size a nucleus has the size that the card names
        scale = float(card.object_diameter or typical) / card.options["diameter_um"].default
    fluorescence = context.info.kind == FLUORESCENCE
    kind = "fluorescence" if fluorescence else "stain"
    return Settings(
        fluorescence,
        typical * scale,
        low * scale,
        high * scale,
        options[f"{kind}_contrast"],
        options[f"{kind}_floor"],
        options["splitting"],
    )


def find_nuclei(
    image: npt.NDArray[np.uint8], settings: Settings, *, whole: bool = True
) -> tuple[_Labels, npt.NDArray[np.float32]]:
    """Segment the nuclei of one image.

    Parameters
    ----------
    image : (h, w, 3) uint8 RGB.
    settings : see `Settings`.
    whole : objects at the image's border must reach the least size as well, because another tile sees them whole.

    Returns
    -------
    labels : (h, w) int32, 0 background, 1..n.
    scores : (n,) float32 in [0, 1]: contrast with the surroundings times compactness.
    """
    signal = _signal(image, settings)
    mask, background = _mask(signal, settings)
    labels = _split(mask, signal, settings)
    return _select(labels, signal, background, settings, whole)
