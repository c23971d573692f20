"""Whole images through a segmenter while it trains: how they are seen, and the figures of what is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from gigaseg.metrics.overlap import Overlap
from gigaseg.metrics.pixel import PixelCounts
from gigaseg.metrics.score import score_labels, score_overlap
from gigaseg.segmenters.base import Segmenter
from gigaseg.segmenters.whole import segment_image
from gigaseg.train.crops import sample_affine, whole_affine
from gigaseg.train.data import Sample

T = TypeVar("T")

FIGURES = ("pixel_dice", "pixel_iou", "f1_50", "aji", "pq")
"""Figures of an image, by their names in `gigaseg.metrics.score.score_labels`; f1_50 is the paper's DSC."""

SCALES = (0.125, 4.0)
"""Least and greatest factor by which an image is resized."""


def letterboxed(segmenter: Segmenter, image: np.ndarray, side: int, device: str = "cpu") -> np.ndarray:
    """Segment an image as CenterNet's published protocols see it: in the middle of a black square that it fills.

    Parameters
    ----------
    image : (y, x, 3) uint8 RGB.
    side : of the square, px; it is one tile.

    Returns
    -------
    (y, x) int32, 0 background, instances by numbers that need not be consecutive.
    """
    height, width = image.shape[:2]
    matrix = whole_affine((height, width), side)
    square = sample_affine(image, matrix, side, fill=np.zeros(3), nearest=False)
    pixels = square.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    labels = segment_image(segmenter, pixels, tile=side, overlap=0, step=None, device=device)
    cols, rows = (
        ((np.arange(n) + 0.5 - matrix[k, 2]) / matrix[k, k]).astype(int) for k, n in enumerate((width, height))
    )
    return labels[np.ix_(rows, cols)]


def look(
    segmenter: Segmenter,
    sample: Sample,
    diameter: float | None = None,
    side: int | None = None,
    *,
    tile: int = 512,
    overlap: int = 64,
    device: str = "cpu",
) -> np.ndarray:
    """Segment the whole image of a sample.

    Parameters
    ----------
    diameter : px to which its median object diameter is scaled, as the truth has it; None: no scaling.
    side : px of a black square that it fills instead (`letterboxed`).
    tile, overlap, device : of `segment_image`.

    Returns
    -------
    (y, x) int32, 0 background, else the instances.
    """
    if side is not None:
        return letterboxed(segmenter, sample.image, side, device)
    scale = scale_of(sample, diameter)
    return segment_image(segmenter, sample.image, scale=scale, tile=tile, overlap=overlap, device=device)


def overlap(
    segmenter: Segmenter, sample: Sample, side: int | None, device: str = "cpu", *, native: bool = False
) -> Overlap:
    """What a segmenter finds in a whole image against the truth.

    Parameters
    ----------
    side : px of a black square that the image fills (`letterboxed`); None: the image is scaled to the segmenter's
        nominal object diameter, as the truth has it.
    native : neither; the image is seen as it is.
    """
    diameter = None if side or native else segmenter.card.object_diameter
    return Overlap.from_labels(sample.labels, look(segmenter, sample, diameter, side, device=device))


def segmentation_figures(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    *,
    side: int | None = None,
    device: str = "cpu",
    native: bool = False,
) -> dict[str, float]:
    """Segment whole images and compare them with the truth.

    Parameters
    ----------
    side, native : as `overlap` takes them.

    Returns
    -------
    `FIGURES`, means over the images for which they are defined; ``FIGURE/GROUP``; ``pooled_f1`` and ``pooled_iou`` of
    all pixels of all images together; ``images``.
    """
    rows, total = [], PixelCounts(0, 0, 0, 0)
    for sample in samples:
        found = overlap(segmenter, sample, side, device, native=native)
        scores = score_overlap(found, (0.5,))
        rows.append([scores[name] for name in FIGURES])
        total += PixelCounts.from_overlap(found)
    figures = summary("", np.array(rows), np.array([sample.group for sample in samples]))
    return {**figures, "pooled_f1": total.dice, "pooled_iou": total.iou, "images": float(len(samples))}


def scale_of(sample: Sample, diameter: float | None) -> float:
    """Factor that gives a sample's objects this median diameter, px, within `SCALES`; 1 without one."""
    if diameter is None or not sample.diameter > 0:
        return 1.0
    return float(np.clip(diameter / sample.diameter, *SCALES))


def image_figures(truth: np.ndarray, found: np.ndarray) -> list[float]:
    """`FIGURES` of one label image against another."""
    scores = score_labels(truth, found, (0.5,))
    return [scores[name] for name in FIGURES]


def mean_figure(values: np.ndarray) -> float:
    """Mean of the values that are defined; 0 without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def summary(prefix: str, rows: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Means over images by their names, and ``FIGURE/GROUP`` for each group that has a name.

    Parameters
    ----------
    prefix : of all names.
    rows : (images, `FIGURES`), NaN where one is undefined.
    groups : (images,) names.
    """
    found = {prefix + name: mean_figure(rows[:, k]) for k, name in enumerate(FIGURES)}
    for group in sorted(set(groups.tolist()) - {""}):
        found |= {f"{prefix}{name}/{group}": mean_figure(rows[groups == group, k]) for k, name in enumerate(FIGURES)}
    return found


def spread(items: Sequence[T], most: int) -> Sequence[T]:
    """At most `most` items (0: all), evenly spread."""
    if not 0 < most < len(items):
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]
