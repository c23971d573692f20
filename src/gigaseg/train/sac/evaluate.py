"""How well SAC segments whole images: the mask of all objects, per image and pooled, and the instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gigaseg.metrics.score import score_overlap
from gigaseg.sam.encoder import normalise
from gigaseg.segmenters.base import Prompts, Segmenter
from gigaseg.segmenters.sac.checkpoint import open_sac
from gigaseg.segmenters.sac.model import prompt_maps, upsampled
from gigaseg.segmenters.sac.segmenter import Sac
from gigaseg.train.data import Sample
from gigaseg.train.whole import FIGURES, overlap


def seen_as(training: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """Options of the segmenter that sees whole images as this training does, and the side of their square.

    Letterboxed, as by the published protocols, the mask counts as it is: nothing is parted or left out.

    Parameters
    ----------
    training : `SacTraining` as a dictionary.
    """
    if not training.get("letterbox"):
        return {}, None
    return {"instances": "components", "min_diameter": 0.0, "min_contrast": 0.0}, int(training["crop"])


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
    options, side = seen_as(loaded.card.get("training", {}))
    segmenters: dict[str, Segmenter] = {
        "": Sac.of(loaded, options),
        "no_prompt_": Sac.of(loaded, {**options, "pairs": 0}),
        "unet_": UnetAlone.of(loaded, options),
    }
    rows = []
    for sample in samples:
        row: dict[str, float] = {}
        for prefix, segmenter in segmenters.items():
            scores = score_overlap(overlap(segmenter, sample, side, device), (0.5,))
            row |= {prefix + name: scores[name] for name in (*FIGURES, "seg")}
        rows.append(row)
    return rows


class UnetAlone(Sac):
    """SAC's instances from the map of its U-Net: the baseline of what SAM adds."""

    def probability(self, images: Tensor, prompts: Sequence[Prompts] = ()) -> Tensor:
        """As `Sac.probability`, without SAM."""
        loaded, backend = self.loaded, self.loaded.backend
        with backend.running():
            pixels = normalise(backend.resized(images), backend.config)
            maps = prompt_maps(loaded.unet, pixels, loaded.config.reduction)[0]
            return upsampled(maps, (images.shape[2], images.shape[3])).sigmoid()
