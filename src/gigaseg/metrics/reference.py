"""Figures as the published code of single papers computes them, for comparison with those papers only.

They deviate from the standard definitions in `gigaseg.metrics.instance`; docs/metrics.md says how.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.metrics.assignment import greedy_assignment
from gigaseg.metrics.instance import match_counts
from gigaseg.metrics.overlap import Overlap


def dsc_reference(overlap: Overlap) -> float:
    """DSC of CenterSAM: F1 of objects at IoU > 0.5, no pixel Dice; both sides empty 1."""
    counts = match_counts(overlap, 0.5)
    return counts.f1 if counts.tp + counts.fp + counts.fn else 1.0


def seg_reference(overlap: Overlap) -> float:
    """SEG of CenterSAM: mean IoU of the matched pairs alone; without pairs 0, both sides empty 1.

    The Cell Tracking Challenge averages over all truth objects instead (`gigaseg.metrics.instance.seg`).
    """
    counts = match_counts(overlap, 0.5)
    if not counts.tp:
        return 0.0 if counts.fp + counts.fn else 1.0
    return counts.iou / counts.tp


def aji_centersam_reference(overlap: Overlap) -> float:
    """AJI of CenterSAM: predictions in order of id take their best free truth; unmatched predictions cost nothing.

    Both sides empty 1, one side empty 0.
    """
    if not len(overlap.truth_ids):
        return 0.0 if len(overlap.prediction_ids) else 1.0
    order = np.lexsort((overlap.truth, -overlap.iou, overlap.prediction))
    pairs = np.flatnonzero(greedy_assignment(overlap.truth, overlap.prediction, order))
    free = np.ones(len(overlap.truth_ids), dtype=bool)
    free[overlap.truth[pairs]] = False
    union = overlap.union[pairs].sum() + overlap.truth_area[free].sum()
    return float(overlap.intersection[pairs].sum() / union)


def aji_densesam_reference(overlap: Overlap) -> float:
    """AJI of DenseSAM: truth without any overlap takes the first prediction, whose area joins the union.

    Without predictions 0 (the code raises), both sides empty NaN.
    """
    if not len(overlap.truth_ids) and not len(overlap.prediction_ids):
        return float("nan")
    if not len(overlap.prediction_ids):
        return 0.0
    best = overlap.best_for_truth
    alone = np.ones(len(overlap.truth_ids), dtype=bool)
    alone[overlap.truth[best]] = False
    free = np.ones(len(overlap.prediction_ids), dtype=bool)
    free[overlap.prediction[best]] = False
    if alone.any():
        free[0] = False
    union = overlap.union[best].sum() + overlap.prediction_area[free].sum()
    union += overlap.truth_area[alone].sum() + np.count_nonzero(alone) * overlap.prediction_area[0]
    return float(overlap.intersection[best].sum() / union)


def split_fragments(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Give every 8-connected part of equal labels an id of its own, as the object Dice of GlaS expects.

    Parameters
    ----------
    labels : (y, x) integer, 0 = background.
    """
    from skimage.measure import label

    parts = label(labels, background=0, connectivity=2)  # type: ignore[no-untyped-call]
    return np.asarray(parts, dtype=np.int64)
