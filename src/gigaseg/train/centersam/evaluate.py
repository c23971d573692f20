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
from gigaseg.metrics.score import score_labels, score_overlap
from gigaseg.segmenters.base import Segmenter, TileBatch, TileInstances
from gigaseg.segmenters.centersam.checkpoint import open_centersam
from gigaseg.segmenters.centersam.segmenter import CenterSam
from gigaseg.segmenters.whole import segment_image
from gigaseg.train.centersam.config import CenterSamTraining
from gigaseg.train.data import Sample

THRESHOLDS = tuple(round(0.1 + 0.05 * i, 2) for i in range(11))
"""Scores that are tried as thresholds: 0.1 is what an untrained heat map says everywhere."""

FIGURES = ("pixel_dice", "pixel_iou", "f1_50", "aji", "pq")
"""Figures of an image, by their names in `gigaseg.metrics.score.score_labels`; f1_50 is the paper's DSC."""

SCALES = (0.125, 4.0)
"""Least and greatest factor by which an image is resized."""


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
    thresholds : the one with the best mean panoptic quality is picked, the first among equals.
    side : px to which each image's longer side is scaled instead.
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
            labels = _look(seen, sample, diameter, side, tile=tile, overlap=overlap, device=device)
            table[j, i] = _figures(sample.labels, labels)
    quality = [_mean(rows[:, FIGURES.index("pq")]) for rows in table]
    picked = int(np.argmax(quality))
    if native:
        for i, sample in enumerate(samples):
            seen = Seen(segmenter)
            seen.threshold = thresholds[picked]
            labels = segment_image(seen, sample.image, tile=tile, overlap=overlap, device=device)
            own[i] = _figures(sample.labels, labels)
    groups = np.array([sample.group for sample in samples])
    found = {"threshold": float(thresholds[picked]), **_summary("", table[picked], groups)}
    if native:
        found |= _summary("native_", own, groups)
    return {**found, "images": float(len(samples)), "score": quality[picked]}


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
    segmenter = CenterSam.of(loaded, {"clahe": training.clahe, "window": training.window})
    seeing = seeing_of(training, segmenter.card.object_diameter)
    rows = []
    for sample in samples:
        row = _all_figures("", sample.labels, _look(segmenter, sample, **seeing, device=device))
        if training.native and not training.letterbox:
            native = {**seeing, "diameter": None}
            row |= _all_figures("native_", sample.labels, _look(segmenter, sample, **native, device=device))
        rows.append(row)
    return rows


_SEEING = ("letterbox", "crop", "clahe", "window", "native")
"""What of the training decides how whole images are seen."""


def seeing_of(training: CenterSamTraining, nominal: float | None) -> dict[str, Any]:
    """How `segmentation_figures` sees whole images: scaled to the `nominal` object diameter, or letterboxed."""
    if training.letterbox:
        return {"diameter": None, "side": training.crop, "tile": training.crop, "overlap": 0}
    return {"diameter": nominal, "side": None, "tile": 512, "overlap": 64}


def _look(
    segmenter: Segmenter, sample: Sample, diameter: float | None, side: int | None, **settings: Any
) -> np.ndarray:
    return segment_image(segmenter, sample.image, scale=_scale(sample, diameter, side), **settings)


def _all_figures(prefix: str, truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    overlap = Overlap.from_labels(truth, found)
    scores = score_overlap(overlap, (0.5,))
    row = {name: scores[name] for name in (*FIGURES, "seg")}
    row["dsc_reference"] = dsc_reference(overlap)
    row["seg_reference"] = seg_reference(overlap)
    row["aji_centersam_reference"] = aji_centersam_reference(overlap)
    return {prefix + name: value for name, value in row.items()}


def _scale(sample: Sample, diameter: float | None, side: int | None) -> float:
    if side is not None:
        return side / float(max(sample.labels.shape))
    if diameter is None or not sample.diameter > 0:
        return 1.0
    return float(np.clip(diameter / sample.diameter, *SCALES))


def _figures(truth: np.ndarray, found: np.ndarray) -> list[float]:
    scores = score_labels(truth, found, (0.5,))
    return [scores[name] for name in FIGURES]


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _summary(prefix: str, rows: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    found = {prefix + name: _mean(rows[:, k]) for k, name in enumerate(FIGURES)}
    for group in sorted(set(groups.tolist()) - {""}):
        found |= {f"{prefix}{name}/{group}": _mean(rows[groups == group, k]) for k, name in enumerate(FIGURES)}
    return found
