"""Segmenter `sac`: one mask of all objects of a tile, which is then parted into instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gigaseg.sam.encoder import normalise
from gigaseg.segmenters.base import NO_PROMPTS, Prompts, TileBatch, TileInstances
from gigaseg.segmenters.card import Card
from gigaseg.segmenters.contrast import standing_out
from gigaseg.segmenters.over_sam import OverSam
from gigaseg.segmenters.regions import components, split_touching, to_instances
from gigaseg.segmenters.sac.checkpoint import Loaded, open_sac
from gigaseg.segmenters.sac.model import mask_logits, prompt_maps, prompt_sets, upsampled
from gigaseg.segmenters.sac.points import Points, select_points


class Sac(OverSam[Loaded]):
    """SAM's mask of a whole tile from points that a U-Net finds, and an expert's where the sheet has some.

    Attributes
    ----------
    card : the card, with the class of the checkpoint.
    loaded : the models.
    """

    name = "sac"
    opener = staticmethod(open_sac)

    def _set(self, card: Card, loaded: Loaded, options: Mapping[str, Any]) -> None:
        self.card = replace(card, classes=loaded.config.classes)
        self.loaded = loaded
        self._pairs: int = loaded.config.pairs if options["pairs"] < 0 else options["pairs"]
        self._rule: str = loaded.config.rule if options["rule"] == "trained" else options["rule"]
        self._threshold: float = options["threshold"]
        self._split: bool = options["instances"] == "watershed"
        diameter = float(card.object_diameter or 0)
        self._diameter = diameter
        self._least = options["min_diameter"] ** 2 * np.pi / 4 * diameter**2
        self._min_contrast: float = options["min_contrast"]

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """Instances of each tile; on a CPU tile by tile, which takes less memory."""
        prompts = batch.prompts or [NO_PROMPTS] * len(batch.tiles)
        step = 1 if batch.images.device.type == "cpu" else len(batch.tiles)
        found: list[TileInstances] = []
        for i in range(0, len(batch.tiles), step):
            images = batch.images[i : i + step]
            maps = self.probability(images, prompts[i : i + step]).cpu().numpy()
            found += [self._instances(one, image) for one, image in zip(maps, images)]
        return found

    def probability(self, images: Tensor, prompts: Sequence[Prompts] = ()) -> Tensor:
        """Probability that a pixel is an object's.

        Parameters
        ----------
        images : (b, 3, h, w) uint8 RGB, or float 0..255.
        prompts : an expert's points of each tile, in tile px; without any all come from the U-Net.

        Returns
        -------
        (b, h, w) float32.
        """
        loaded, backend = self.loaded, self.loaded.backend
        shape = (images.shape[2], images.shape[3])
        with backend.running():
            pixels = backend.resized(images)
            encoded = backend.encode(pixels, adapter=loaded.adapter)
            prompted = prompt_maps(loaded.unet, normalise(pixels, backend.config), loaded.config.reduction)
            points = self._points(prompted[0].sigmoid().cpu().numpy(), prompts, pixels.shape[3] / shape[1])
            logits = []
            # tile by tile where their numbers of points differ: padding would be seen
            together = len({len(p.labels) for p in points}) == 1
            for at in [slice(None)] if together else [slice(i, i + 1) for i in range(len(points))]:
                some = replace(encoded, embedding=encoded.embedding[at])
                sets = prompt_sets(points[at], loaded.config.reduction, backend.device)
                detail = None if prompted[1] is None else prompted[1][at]
                logits.append(mask_logits(backend.model, some, sets, detail))
            inside = upsampled(torch.cat(logits), (pixels.shape[2], pixels.shape[3]))
            return upsampled(inside, shape).sigmoid()

    def _points(self, maps: np.ndarray, prompts: Sequence[Prompts], scale: float) -> list[Points]:
        """Points of each tile on the U-Net's map, the expert's last; `scale` is input px a tile px."""
        found = [select_points(one, self._pairs, self._rule) for one in maps]
        factor = scale / self.loaded.config.reduction
        for i, own in enumerate(prompts):
            real = own.labels >= 0
            if real.any():
                xy = np.concatenate([found[i].xy, (own.points[real] * factor).astype(np.float32)])
                found[i] = Points(xy, np.concatenate([found[i].labels, own.labels[real]]))
        return found

    def _instances(self, probability: np.ndarray, image: Tensor) -> TileInstances:
        inside = probability > self._threshold
        if self._split:
            labels = split_touching(inside, self._diameter, min_area=self._least)
        else:
            labels = components(inside, min_area=self._least)
        return standing_out(to_instances(labels, probability), image, self._min_contrast)
