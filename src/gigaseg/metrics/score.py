"""All figures of one image in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from gigaseg.metrics.instance import aji, aji_plus, match_counts, object_dice, panoptic_quality, seg
from gigaseg.metrics.overlap import Overlap
from gigaseg.metrics.pixel import PixelCounts

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU thresholds of F1, precision and recall."""


def score_labels(
    truth: npt.NDArray[Any], prediction: npt.NDArray[Any], thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
    """Score one label image against another.

    Parameters
    ----------
    truth, prediction : (y, x) integer or bool, 0 = background, any other non-negative value an instance.
    thresholds : IoU thresholds of F1; objects match when their IoU is higher.

    Returns
    -------
    pixel_dice, pixel_iou, pixel_precision, pixel_recall (foreground); pixel_dice_two_class,
    pixel_iou_two_class (mean of foreground and background); object_dice, aji, aji_plus, pq, dq, sq, seg;
    f1_50, … one a threshold in percent; precision_50, recall_50; truth_objects, predicted_objects. NaN where
    a figure is undefined (docs/metrics.md).

    Raises
    ------
    FormatError : an array is no label image, or the shapes differ.
    """
    return score_overlap(Overlap.from_labels(truth, prediction), thresholds)


def score_overlap(overlap: Overlap, thresholds: Sequence[float] = THRESHOLDS) -> dict[str, float]:
    """The figures of `score_labels` from an `Overlap` (of labels or polygons)."""
    pixels = PixelCounts.from_overlap(overlap)
    half = match_counts(overlap, 0.5)
    scores = {
        "pixel_dice": pixels.dice,
        "pixel_iou": pixels.iou,
        "pixel_precision": pixels.precision,
        "pixel_recall": pixels.recall,
        "pixel_dice_two_class": pixels.two_class("dice"),
        "pixel_iou_two_class": pixels.two_class("iou"),
        "object_dice": object_dice(overlap),
        "aji": aji(overlap),
        "aji_plus": aji_plus(overlap),
        **panoptic_quality(half)._asdict(),
        "seg": seg(overlap),
        "precision_50": half.precision,
        "recall_50": half.recall,
    }
    for threshold in thresholds:
        scores[f1_name(threshold)] = (half if threshold == 0.5 else match_counts(overlap, threshold)).f1
    scores["truth_objects"] = len(overlap.truth_ids)
    scores["predicted_objects"] = len(overlap.prediction_ids)
    return scores


def f1_name(threshold: float) -> str:
    """Name of F1 at an IoU threshold.

    >>> f1_name(0.5), f1_name(0.75)
    ('f1_50', 'f1_75')
    """
    return f"f1_{threshold * 100:g}"
