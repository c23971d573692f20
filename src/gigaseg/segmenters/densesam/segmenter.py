"""Segmenter `densesam`: a map of all objects of a tile and one of their boundaries, which become instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.base import TileBatch, TileInstances
from gigaseg.segmenters.card import Card
from gigaseg.segmenters.contrast import standing_out
from gigaseg.segmenters.densesam.checkpoint import Loaded, open_densesam
from gigaseg.segmenters.densesam.instances import paper, robust
from gigaseg.segmenters.densesam.model import dense_maps, upsampled
from gigaseg.segmenters.over_sam import OverSam
from gigaseg.segmenters.regions import components, to_instances


class DenseSam(OverSam[Loaded]):
    """Instances of a tile without any prompt.

    Attributes
    ----------
    card : the card, with the class of the checkpoint.
    loaded : the models.
    """

    name = "densesam"
    opener = staticmethod(open_densesam)

    def _set(self, card: Card, loaded: Loaded, options: Mapping[str, Any]) -> None:
        self.card = replace(card, classes=loaded.config.classes)
        self.loaded = loaded
        dual = loaded.config.heads == 2
        self._rule: str = options["instances"]
        if self._rule == "auto":
            self._rule = "robust" if dual else "components"
        if self._rule != "components" and not dual:
            raise SegmenterError(
                f"segmenter 'densesam': option 'instances' is {self._rule!r}, accepted with these weights, which have "
                "no boundary head: auto, components"
            )
        self._threshold: float = options["threshold"]
        self._boundary: float = options["boundary_threshold"]
        self._least = options["min_diameter"] ** 2 * np.pi / 4 * float(card.object_diameter or 0) ** 2
        self._min_contrast: float = options["min_contrast"]

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """Instances of each tile; on a CPU tile by tile, which takes less memory."""
        step = 1 if batch.images.device.type == "cpu" else len(batch.tiles)
        found: list[TileInstances] = []
        for i in range(0, len(batch.tiles), step):
            images = batch.images[i : i + step]
            maps = self.probability(images).cpu().numpy()
            found += [self._instances(one, image) for one, image in zip(maps, images)]
        return found

    def probability(self, images: Tensor) -> Tensor:
        """Probabilities that a pixel is an object's and, with two heads, a boundary's.

        Parameters
        ----------
        images : (b, 3, h, w) uint8 RGB, or float 0..255.

        Returns
        -------
        (b, heads, h, w) float32.
        """
        loaded, backend = self.loaded, self.loaded.backend
        with backend.running():
            pixels = backend.resized(images)
            encoded = backend.encode(pixels, hidden=loaded.config.injects)
            logits = dense_maps(backend.model, loaded.dense, loaded.config, encoded).logits
            inside = upsampled(logits, (pixels.shape[2], pixels.shape[3]))
            return upsampled(inside, (images.shape[2], images.shape[3])).sigmoid()

    def _instances(self, maps: np.ndarray, image: Tensor) -> TileInstances:
        if self._rule == "components":
            labels = components(maps[0] >= self._threshold, min_area=self._least)
        elif self._rule == "paper":
            labels = paper(maps[0], maps[1])
        else:
            labels = robust(
                maps[0],
                maps[1],
                threshold=self._threshold,
                boundary=self._boundary,
                min_area=self._least,
            )
        return standing_out(to_instances(labels, maps[0]), image, self._min_contrast)
