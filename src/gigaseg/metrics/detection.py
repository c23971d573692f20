"""Detection and classification of points: who is found, and with the right class.

Two published protocols, which differ and must not be compared with each other (docs/metrics.md):

* `paired_counts`: all classes matched together, full Hungarian on distance, then the radius (HoVer-Net,
CellViT);
* `greedy_counts`: predictions in descending score take the nearest free truth, each class alone (prompters).

`match_gated` is for slides with too many objects for a full Hungarian.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from gigaseg.metrics.assignment import greedy_assignment, maximum_assignment
from gigaseg.metrics.instance import Counts
from gigaseg.metrics.overlap import FloatArray, IntArray

RADIUS = 12.0
"""Default distance in px below which points are one object: 12 at 40x (0.25 µm a pixel); use 6 at 20x."""

MAX_HUNGARIAN = 5000
"""Objects a side up to which the full Hungarian is computed: its distance matrix then takes 200 MB."""

Pairs = tuple[IntArray, IntArray]


@dataclass(frozen=True)
class Points:
    """Objects as points.

    Attributes
    ----------
    xy : (n, 2) float64 centroids, px.
    class_index : (n,) int64 into the evaluated classes, -1 for another one; None where there are no classes.
    score : (n,) float64, or None: then all are equal and the order of the objects decides.
    """

    xy: FloatArray
    class_index: IntArray | None = None
    score: FloatArray | None = None

    def of_class(self, index: int) -> Points:
        """The points of one class."""
        mine = np.zeros(len(self.xy), dtype=bool) if self.class_index is None else self.class_index == index
        return Points(self.xy[mine], None, None if self.score is None else self.score[mine])


@dataclass(frozen=True)
class ClassCounts:
    """Counts of one class in the paired protocol; counts of images may be added up.

    Attributes
    ----------
    tp : matched pairs, both of the class.
    fp, fn : matched pairs where only the prediction, or only the truth, has the class.
    fp_d, fn_d : unmatched predictions, unmatched truth of the class.
    """

    tp: float
    fp: float
    fn: float
    fp_d: float
    fn_d: float

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + 2 FP + 2 FN + FP_d + FN_d)."""
        return _ratio(2 * self.tp, 2 * (self.tp + self.fp + self.fn) + self.fp_d + self.fn_d)

    @property
    def precision(self) -> float:
        """TP / (TP + 2 FP + FP_d)."""
        return _ratio(self.tp, self.tp + 2 * self.fp + self.fp_d)

    @property
    def recall(self) -> float:
        """TP / (TP + 2 FN + FN_d)."""
        return _ratio(self.tp, self.tp + 2 * self.fn + self.fn_d)

    def __add__(self, other: ClassCounts) -> ClassCounts:
        return ClassCounts(
            self.tp + other.tp,
            self.fp + other.fp,
            self.fn + other.fn,
            self.fp_d + other.fp_d,
            self.fn_d + other.fn_d,
        )


def match_hungarian(truth: FloatArray, prediction: FloatArray, radius: float = RADIUS) -> Pairs:
    """Pair points by the smallest total distance, then drop pairs farther apart than `radius`.

    The assignment knows nothing of the radius (as published), so it may give up a near pair for a better
    total.

    Parameters
    ----------
    truth, prediction : (n, 2) and (m, 2), px.

    Returns
    -------
    (truth rows, prediction rows) of the pairs, both (k,).
    """
    if not len(truth) or not len(prediction):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    distance = cdist(truth, prediction)
    t, p = linear_sum_assignment(distance)
    near = distance[t, p] <= radius
    return t[near], p[near]


def match_gated(truth: FloatArray, prediction: FloatArray, radius: float = RADIUS) -> Pairs:
    """Pair points within `radius`: the most pairs possible, and of these solutions the smallest total distance.

    Time and memory are close to linear in the points; parameters and result as `match_hungarian`.
    """
    t, p, distance = _within(truth, prediction, radius)
    # An extra pair must outweigh any gain of distance: all distances together weigh less than one pair.
    scale = radius * (min(len(truth), len(prediction)) + 2)
    chosen = maximum_assignment(t, p, 1.0 - distance / scale if radius > 0 else np.ones(len(t)))
    return t[chosen], p[chosen]


def match_greedy(
    truth: FloatArray, prediction: FloatArray, score: FloatArray | None = None, radius: float = RADIUS
) -> Pairs:
    """Predictions in descending `score` (ties and None: in their order) take the nearest free truth in `radius`."""
    t, p, distance = _within(truth, prediction, radius)
    rank = np.arange(len(prediction))
    if score is not None:
        rank[np.argsort(-score, kind="stable")] = np.arange(len(prediction))
    chosen = greedy_assignment(t, p, np.lexsort((t, distance, rank[p])))
    return t[chosen], p[chosen]


def counts_of(pairs: Pairs, truth: int, prediction: int) -> Counts:
    """Counts of `pairs` among so many points of either side."""
    found = len(pairs[0])
    return Counts(found, prediction - found, truth - found)


def paired_counts(
    truth: Points,
    prediction: Points,
    classes: int = 0,
    radius: float = RADIUS,
    *,
    gated: bool = False,
    legacy_dummy: bool = False,
) -> tuple[Counts, list[ClassCounts]]:
    """Counts of one image in the protocol of HoVer-Net and CellViT; add them up over the images.

    Parameters
    ----------
    classes : number of classes to count; 0 for detection alone.
    gated : match with `match_gated` in place of the full Hungarian.
    legacy_dummy : give a side without points one at (0, 0) with no class, as the reference implementation
        does.
    """
    if legacy_dummy:
        truth, prediction = _with_dummy(truth), _with_dummy(prediction)
    match = match_gated if gated else match_hungarian
    t, p = match(truth.xy, prediction.xy, radius)
    detection = counts_of((t, p), len(truth.xy), len(prediction.xy))
    if not classes or truth.class_index is None or prediction.class_index is None:
        return detection, []
    free_t, free_p = np.ones(len(truth.xy), bool), np.ones(len(prediction.xy), bool)
    free_t[t] = free_p[p] = False
    each = []
    for c in range(classes):
        is_t, is_p = truth.class_index == c, prediction.class_index == c
        each.append(
            ClassCounts(
                tp=int(np.count_nonzero(is_t[t] & is_p[p])),
                fp=int(np.count_nonzero(~is_t[t] & is_p[p])),
                fn=int(np.count_nonzero(is_t[t] & ~is_p[p])),
                fp_d=int(np.count_nonzero(free_p & is_p)),
                fn_d=int(np.count_nonzero(free_t & is_t)),
            )
        )
    return detection, each


def greedy_counts(
    truth: Points, prediction: Points, classes: int = 0, radius: float = RADIUS
) -> tuple[Counts, list[Counts]]:
    """Counts of one image in the prompters' protocol; add them up over the images.

    Detection ignores the classes; a class is then matched alone, so a wrong class counts once as FP and once
    as FN.
    """

    def count(t: Points, p: Points) -> Counts:
        return counts_of(match_greedy(t.xy, p.xy, p.score, radius), len(t.xy), len(p.xy))

    return count(truth, prediction), [count(truth.of_class(c), prediction.of_class(c)) for c in range(classes)]


def class_average(values: Mapping[str, float]) -> float:
    """Unweighted mean over the classes whose value is defined; NaN when none is."""
    defined = [value for value in values.values() if not np.isnan(value)]
    return float(np.mean(defined)) if defined else nan


def _within(truth: FloatArray, prediction: FloatArray, radius: float) -> tuple[IntArray, IntArray, FloatArray]:
    """All pairs at most `radius` apart: rows of truth, rows of prediction, distance."""
    if not len(truth) or not len(prediction):
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    near = KDTree(truth).sparse_distance_matrix(KDTree(prediction), radius, output_type="coo_matrix")
    return near.row.astype(np.int64), near.col.astype(np.int64), near.data


def _with_dummy(points: Points) -> Points:
    return points if len(points.xy) else Points(np.zeros((1, 2)), np.array([-1]), np.zeros(1))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else nan
