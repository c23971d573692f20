"""How well DenseSAM segments whole images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gigaseg.metrics.score import score_overlap
from gigaseg.segmenters.densesam.checkpoint import open_densesam
from gigaseg.segmenters.densesam.segmenter import DenseSam
from gigaseg.train.data import Sample
from gigaseg.train.whole import FIGURES, overlap

REPORTED = (*FIGURES, "seg", "object_dice", "pixel_precision", "pixel_dice_two_class", "pixel_iou_two_class")
"""Figures of an image, by their names in `gigaseg.metrics.score.score_overlap`; the paper's tables have those added."""


def seen_as(training: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the segmenter that sees whole images as this training does, and of `gigaseg.train.whole.overlap`.

    Whole images that fill the crop, as by the published protocols, lose nothing small or faint.

    Parameters
    ----------
    training : `DenseSamTraining` as a dictionary.
    """
    if training.get("views") != "whole":
        return {}, {"side": None, "native": bool(training.get("native"))}
    return {"min_diameter": 0.0, "min_contrast": 0.0}, {"side": int(training["crop"])}


def checkpoint_figures(
    checkpoint: Path, samples: Sequence[Sample], device: str, precision: str
) -> list[dict[str, float]]:
    """Figures of each sample, seen as the training's validation sees it.

    Returns
    -------
    `REPORTED`; with two heads ``paper_FIGURE``, the same by the published post-processing. NaN where a figure is
    undefined.

    Raises
    ------
    CheckpointError
        The checkpoint is missing or damaged, or its base is.
    """
    loaded = open_densesam(checkpoint, device, precision=precision)
    options, seen = seen_as(loaded.card.get("training", {}))
    segmenters = {"": DenseSam.of(loaded, options)}
    if loaded.config.heads == 2:
        segmenters["paper_"] = DenseSam.of(loaded, {**options, "instances": "paper"})
    rows = []
    for sample in samples:
        row: dict[str, float] = {}
        for prefix, segmenter in segmenters.items():
            scores = score_overlap(overlap(segmenter, sample, device=device, **seen), (0.5,))
            row |= {prefix + name: scores[name] for name in REPORTED}
        rows.append(row)
    return rows
