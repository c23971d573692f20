"""How well SAC segments whole images: the mask of all objects, per image and pooled, and the instances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gigaseg.metrics.overlap import Overlap
from gigaseg.metrics.pixel import PixelCounts
from gigaseg.metrics.score import score_overlap
from gigaseg.sam.encoder import normalise
from gigaseg.segmenters.base import Segmenter, TileBatch, TileInstances
from gigaseg.segmenters.regions import components, to_instances
from gigaseg.segmenters.sac.checkpoint import open_sac
from gigaseg.segmenters.sac.model import prompt_maps, upsampled
from gigaseg.segmenters.sac.segmenter import Sac
from gigaseg.train.data import Sample
from gigaseg.train.whole import FIGURES, look, summary


def segmentation_figures(
    segmenter: Segmenter, samples: Sequence[Sample], *, side: int | None = None, device: str = "cpu"
) -> dict[str, float]:
    """Segment whole images and compare them with the truth.

    Parameters
    ----------
    side : px of a black square that each image fills (`gigaseg.train.whole.letterboxed`); None: images are scaled to
        the segmenter's nominal object diameter, as the truth has it.

    Returns
    -------
    `FIGURES`, means over the images for which they are defined; ``FIGURE/GROUP``; ``pooled_f1`` and ``pooled_iou`` of
    all pixels of all images together, by which SAC's F1 is read; ``images``; ``score``, the mean Dice of the pixels.
    """
    rows, total = [], PixelCounts(0, 0, 0, 0)
    for sample in samples:
        overlap = _overlap(segmenter, sample, side, device)
        scores = score_overlap(overlap, (0.5,))
        rows.append([scores[name] for name in FIGURES])
        total += PixelCounts.from_overlap(overlap)
    found = summary("", np.array(rows), np.array([sample.group for sample in samples]))
    found |= {"pooled_f1": total.dice, "pooled_iou": total.iou}
    return {**found, "images": float(len(samples)), "score": found["pixel_dice"]}


def unet_figures(
    segmenter: Sac, samples: Sequence[Sample], *, side: int | None = None, device: str = "cpu"
) -> dict[str, float]:
    """As `segmentation_figures`, of the map of the segmenter's U-Net at 0.5, with components as instances."""
    return segmentation_figures(_Unet(segmenter), samples, side=side, device=device)


def checkpoint_figures(
    checkpoint: Path, samples: Sequence[Sample], device: str, precision: str
) -> list[dict[str, float]]:
    """Figures of each sample, seen as the training's validation sees it.

    Returns
    -------
    `FIGURES` and seg; ``no_prompt_FIGURE``, the same without points; ``unet_FIGURE``, the same of the U-Net's own map.
    NaN where a figure is undefined.

    Raises
    ------
    CheckpointError
        The checkpoint is missing or damaged, or its base is.
    """
    loaded = open_sac(checkpoint, device, precision=precision)
    training = loaded.card.get("training", {})
    side = int(training["crop"]) if training.get("letterbox") else None
    plain = Sac.of(loaded)
    segmenters: dict[str, Segmenter] = {
        "": plain, "no_prompt_": Sac.of(loaded, {"pairs": 0}), "unet_": _Unet(plain)
    }  # fmt: skip
    rows = []
    for sample in samples:
        row: dict[str, float] = {}
        for prefix, segmenter in segmenters.items():
            scores = score_overlap(_overlap(segmenter, sample, side, device), (0.5,))
            row |= {prefix + name: scores[name] for name in (*FIGURES, "seg")}
        rows.append(row)
    return rows


class _Unet:
    """The U-Net of a SAC as a segmenter: the baseline of what SAM adds.

    Attributes
    ----------
    card : of the SAC.
    """

    def __init__(self, sac: Sac) -> None:
        self.card = sac.card
        self._loaded = sac.loaded

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """Connected components of each tile."""
        backend, images = self._loaded.backend, batch.images
        with backend.running():
            pixels = normalise(backend.resized(images), backend.config)
            maps = prompt_maps(self._loaded.unet, pixels, self._loaded.config.reduction)[0]
            probability = _full(maps, images).cpu().numpy()
        return [to_instances(components(one > 0.5), one) for one in probability]


def _full(maps: Tensor, images: Tensor) -> Tensor:
    """Probabilities (b, h, w) of the tiles from the U-Net's logits."""
    return torch.sigmoid(upsampled(maps, (images.shape[2], images.shape[3])))


def _overlap(segmenter: Segmenter, sample: Sample, side: int | None, device: str) -> Overlap:
    diameter = None if side else segmenter.card.object_diameter
    return Overlap.from_labels(sample.labels, look(segmenter, sample, diameter, side, device=device))
