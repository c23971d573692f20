"""How well a detector and its SAM segment whole images, and the score threshold that suits them best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gigaseg.metrics.overlap import Overlap
from gigaseg.metrics.reference import aji_centersam_reference, dsc_reference, seg_reference
from gigaseg.metrics.score import score_overlap
from gigaseg.segmenters.base import Segmenter, TileBatch, TileInstances
from gigaseg.segmenters.centersam.checkpoint import open_centersam
from gigaseg.segmenters.centersam.segmenter import CenterSam
from gigaseg.train.centersam.config import CenterSamTraining
from gigaseg.train.data import Sample
from gigaseg.train.whole import FIGURES, image_figures, look, mean_figure, summary

THRESHOLDS = tuple(round(0.1 + 0.05 * i, 2) for i in range(11))
"""Scores that are tried as thresholds: 0.1 is what an untrained heat map says everywhere."""


def segmentation_figures(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    *,
    diameter: float | None,
    native: bool = False,
    thresholds: Sequence[float] = THRESHOLDS,
    side: int | None = None,
    tile: int = 512,
    overlap: int = 64,
    device: str = "cpu",
) -> dict[str, float]:
    """Segment whole images and compare them with the truth.

    Parameters
    ----------
    segmenter : one that gives all instances with scores above the least of `thresholds`, and whose instances above a
        threshold do not depend on those below it.
    diameter : px to which an image's median object diameter is scaled, as the truth has it; None: no scaling.
    native : give the figures at the images' own resolution as well, at the same threshold.
    thresholds : the one with the best mean of all `FIGURES` is picked, the first among equals: by panoptic quality
        alone those that leave faint objects out are as good as others, and the foreground suffers.
    side : px of a black square that each image fills instead, one tile (`gigaseg.train.whole.letterboxed`).
    tile, overlap, device : of `segment_image`.

    Returns
    -------
    ``threshold``; `FIGURES`, means over the images for which they are defined; ``FIGURE/GROUP``;
    ``native_FIGURE`` and ``native_FIGURE/GROUP``; ``images``; ``score``, which is the mean panoptic quality.
    """
    table = np.full((len(thresholds), len(samples), len(FIGURES)), math.nan)
    own = np.full((len(samples), len(FIGURES)), math.nan)
    for i, sample in enumerate(samples):
        seen = Seen(segmenter)
        for j, threshold in enumerate(thresholds):
            seen.threshold = threshold
            labels = look(seen, sample, diameter, side, tile=tile, overlap=overlap, device=device)
            table[j, i] = image_figures(sample.labels, labels)
    picked = int(np.argmax([np.mean([mean_figure(column) for column in rows.T]) for rows in table]))
    if native:
        for i, sample in enumerate(samples):
            seen = Seen(segmenter)
            seen.threshold = thresholds[picked]
            labels = look(seen, sample, tile=tile, overlap=overlap, device=device)
            own[i] = image_figures(sample.labels, labels)
    groups = np.array([sample.group for sample in samples])
    found = {"threshold": float(thresholds[picked]), **summary("", table[picked], groups)}
    if native:
        found |= summary("native_", own, groups)
    return {**found, "images": float(len(samples)), "score": found["pq"]}


class Seen:
    """A segmenter that looks at each tile once and then answers from memory, for any threshold.

    Attributes
    ----------
    card : of the segmenter.
    threshold : instances with a greater score are given.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.card = segmenter.card
        self.threshold = 0.0
        self._segmenter = segmenter
        self._found: dict[tuple[int, int], TileInstances] = {}

    def segment(self, batch: TileBatch) -> list[TileInstances]:
        """Instances of each tile above the threshold."""
        places = [(tile.row, tile.col) for tile in batch.tiles]
        if any(place not in self._found for place in places):
            self._found.update(zip(places, self._segmenter.segment(batch)))
        return [_above(self._found[place], self.threshold) for place in places]


def _above(found: TileInstances, threshold: float) -> TileInstances:
    kept = found.scores > threshold
    masks = [mask for mask, good in zip(found.masks or [], kept.tolist()) if good]
    return replace(
        found, boxes=found.boxes[kept], masks=masks, scores=found.scores[kept], class_prob=found.class_prob[kept]
    )


def checkpoint_figures(
    checkpoint: Path, samples: Sequence[Sample], device: str, precision: str
) -> list[dict[str, float]]:
    """Figures of each sample at the threshold of the checkpoint's card, seen as the training's validation sees it.

    Returns
    -------
    `FIGURES`, seg, and the paper's own variants (`gigaseg.metrics.reference`); ``native_…``, the same at the image's
    own resolution, where validation has them too. NaN where a figure is undefined.

    Raises
    ------
    CheckpointError
        The checkpoint is missing or damaged, or its base is.
    """
    loaded = open_centersam(checkpoint, device, precision=precision)
    known = loaded.card.get("training", {})
    training = CenterSamTraining(**{name: known[name] for name in _SEEING if name in known})
    segmenter = CenterSam.of(loaded, options_of(training))
    seeing = seeing_of(training, segmenter.card.object_diameter)
    rows = []
    for sample in samples:
        row = _all_figures("", sample.labels, look(segmenter, sample, **seeing, device=device))
        if training.native and not training.letterbox:
            row |= _all_figures("native_", sample.labels, look(segmenter, sample, device=device))
        rows.append(row)
    return rows


_SEEING = ("letterbox", "crop", "sam_size", "clahe", "window", "native")
"""What of the training decides how whole images are seen."""


def seeing_of(training: CenterSamTraining, nominal: float | None) -> dict[str, Any]:
    """How `segmentation_figures` sees whole images: scaled to the `nominal` object diameter, or letterboxed."""
    if training.letterbox:
        return {"diameter": None, "side": training.sam_size or training.crop}
    return {"diameter": nominal, "side": None}


def options_of(training: CenterSamTraining) -> dict[str, Any]:
    """Options of the segmenter that sees images so."""
    detector_size = training.crop if training.sam_size else 0
    return {"clahe": training.clahe, "window": training.window, "detector_size": detector_size}


def _all_figures(prefix: str, truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    overlap = Overlap.from_labels(truth, found)
    scores = score_overlap(overlap, (0.5,))
    row = {name: scores[name] for name in (*FIGURES, "seg")}
    row["dsc_reference"] = dsc_reference(overlap)
    row["seg_reference"] = seg_reference(overlap)
    row["aji_centersam_reference"] = aji_centersam_reference(overlap)
    return {prefix + name: value for name, value in row.items()}
