"""Instance metrics of one image, from its `Overlap` (formulas, sources and edge cases: docs/metrics.md).

Undefined figures are NaN: no object on either side, or no truth where the metric averages over truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import NamedTuple

import numpy as np

from gigaseg.metrics.assignment import maximum_assignment
from gigaseg.metrics.overlap import BoolArray, IntArray, Overlap, best_of_group

SQ_EPSILON = 1e-6
"""Added to the number of pairs in SQ, as in the reference implementation of HoVer-Net; makes perfect PQ 1 - 1e-6/n."""


@dataclass(frozen=True)
class Counts:
    """Matched and unmatched objects; counts of images may be added up.

    Attributes
    ----------
    tp, fp, fn : matched pairs, unmatched predictions, unmatched truth.
    iou : summed IoU of the matched pairs.
    """

    tp: float
    fp: float
    fn: float
    iou: float = 0.0

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN without any object."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 0 without predictions, NaN without any object."""
        return _ratio(self.tp, self.tp + self.fp, self.fn)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 0 without truth, NaN without any object."""
        return _ratio(self.tp, self.tp + self.fn, self.fp)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.iou + other.iou)


class PanopticQuality(NamedTuple):
    """Panoptic quality and its factors: pq = dq · sq."""

    pq: float
    dq: float
    sq: float


def matched_pairs(overlap: Overlap, threshold: float = 0.5) -> IntArray:
    """One-to-one pairs with IoU > `threshold`, as positions in the overlap's pairs.

    From 0.5 on such pairs are unique where the objects of one side do not overlap each other; where they do,
    those with the highest summed IoU are taken. Below 0.5 the assignment of the highest summed IoU over all
    overlapping pairs comes first, the threshold after it.
    """
    if threshold < 0.5:
        best = assigned_pairs(overlap)
        return best[overlap.iou[best] > threshold]
    pairs = np.flatnonzero(overlap.iou > threshold)
    t, p = overlap.truth[pairs], overlap.prediction[pairs]
    if _unique(t) and _unique(p):
        return pairs
    return pairs[maximum_assignment(t, p, overlap.iou[pairs])]


def assigned_pairs(overlap: Overlap) -> IntArray:
    """The one-to-one pairs with the highest summed IoU (Hungarian), as positions in the overlap's pairs."""
    return np.flatnonzero(maximum_assignment(overlap.truth, overlap.prediction, overlap.iou))


def match_counts(overlap: Overlap, threshold: float = 0.5) -> Counts:
    """Counts of `matched_pairs`."""
    pairs = matched_pairs(overlap, threshold)
    return Counts(
        tp=len(pairs),
        fp=len(overlap.prediction_ids) - len(pairs),
        fn=len(overlap.truth_ids) - len(pairs),
        iou=float(overlap.iou[pairs].sum()),
    )


def f1(overlap: Overlap, threshold: float = 0.5) -> float:
    """F1 of objects matched at IoU > `threshold`."""
    return match_counts(overlap, threshold).f1


def panoptic_quality(found: Overlap | Counts, threshold: float = 0.5) -> PanopticQuality:
    """PQ = DQ · SQ (Kirillov et al. 2019), of one image or of pooled counts.

    DQ = TP / (TP + FP/2 + FN/2); SQ = summed IoU / (TP + 1e-6). Only one side empty gives 0, both empty NaN.
    """
    counts = match_counts(found, threshold) if isinstance(found, Overlap) else found
    dq = counts.f1
    sq = nan if np.isnan(dq) else counts.iou / (counts.tp + SQ_EPSILON)
    return PanopticQuality(dq * sq, dq, sq)


def aji(overlap: Overlap) -> float:
    """Aggregated Jaccard index (Kumar et al. 2017): every truth object takes its best prediction by IoU.

    A prediction may be taken repeatedly. Without predictions or without truth 0, without both NaN.
    """
    return _aggregated_jaccard(overlap, overlap.best_for_truth)


def aji_plus(overlap: Overlap) -> float:
    """AJI with one-to-one pairs of the highest summed IoU (Graham et al. 2019); edge cases as `aji`."""
    return _aggregated_jaccard(overlap, assigned_pairs(overlap))


def object_dice(overlap: Overlap) -> float:
    """Object-level Dice (Sirinukunwattana et al. 2017, GlaS).

    Each object meets the object of the other side with the largest intersection (of equal ones the best IoU); their
    Dice is weighted by the object's share of its side's area; the result is the mean of both directions. One side
    empty 0, both NaN.
    """
    if not len(overlap.truth_ids) and not len(overlap.prediction_ids):
        return nan
    return 0.5 * (_one_way_dice(overlap) + _one_way_dice(overlap.swapped()))


def seg(overlap: Overlap) -> float:
    """SEG of the Cell Tracking Challenge (Maška et al. 2014): mean over all truth objects of the Jaccard index.

    A prediction matches when it covers more than half of the truth object; unmatched truth counts 0. Without
    truth NaN. (Where predictions overlap each other, the best of several matches counts.)
    """
    if not len(overlap.truth_ids):
        return nan
    best = np.zeros(len(overlap.truth_ids))
    match = overlap.intersection > 0.5 * overlap.truth_area[overlap.truth]
    np.maximum.at(best, overlap.truth[match], overlap.iou[match])
    return float(best.mean())


def _aggregated_jaccard(overlap: Overlap, pairs: IntArray) -> float:
    if not len(overlap.truth_ids) and not len(overlap.prediction_ids):
        return nan
    intersection = overlap.intersection[pairs].sum()
    union = overlap.union[pairs].sum()
    union += overlap.truth_area[_unused(len(overlap.truth_ids), overlap.truth[pairs])].sum()
    union += overlap.prediction_area[_unused(len(overlap.prediction_ids), overlap.prediction[pairs])].sum()
    return float(intersection / union)


def _one_way_dice(overlap: Overlap) -> float:
    if not len(overlap.truth_ids):
        return 0.0
    best = best_of_group(overlap.truth, overlap.intersection, overlap.iou)
    t, p = overlap.truth_area[overlap.truth[best]], overlap.prediction_area[overlap.prediction[best]]
    dice = 2 * overlap.intersection[best] / (t + p)
    return float((t * dice).sum() / overlap.truth_area.sum())


def _unused(n: int, used: IntArray) -> BoolArray:
    free = np.ones(n, dtype=bool)
    free[used] = False
    return free


def _unique(values: IntArray) -> bool:
    return len(np.unique(values)) == len(values)


def _ratio(numerator: float, denominator: float, otherwise: float = 0.0) -> float:
    """The quotient; without a denominator 0 if `otherwise` shows that there are objects, else NaN."""
    if denominator:
        return numerator / denominator
    return 0.0 if otherwise else nan
