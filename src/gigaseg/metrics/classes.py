"""Figures of each class, and the means over classes, images and groups that papers report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan

import numpy as np

from gigaseg.metrics.instance import panoptic_quality
from gigaseg.metrics.overlap import IntArray, Overlap
from gigaseg.metrics.pixel import PixelCounts


def of_class(overlap: Overlap, truth_class: IntArray, prediction_class: IntArray, index: int) -> Overlap:
    """The overlap of the objects of one class on both sides."""
    return overlap.restrict(truth_class == index, prediction_class == index)


def class_pq(
    overlap: Overlap, truth_class: IntArray, prediction_class: IntArray, classes: Sequence[str]
) -> dict[str, float]:
    """PQ of each class of one image; NaN for a class without truth, whatever is predicted (PanNuke protocol).

    Parameters
    ----------
    truth_class, prediction_class : (n,) and (m,) int64 into `classes`, -1 for another one.
    """
    result = {}
    for index, name in enumerate(classes):
        mine = of_class(overlap, truth_class, prediction_class, index)
        result[name] = panoptic_quality(mine).pq if len(mine.truth_ids) else nan
    return result


def class_pixels(
    overlap: Overlap, truth_class: IntArray, prediction_class: IntArray, classes: Sequence[str]
) -> dict[str, PixelCounts]:
    """Areas of agreement of each class of one image (objects of one side taken as disjoint)."""
    return {
        name: PixelCounts.from_overlap(of_class(overlap, truth_class, prediction_class, index))
        for index, name in enumerate(classes)
    }


def nan_mean(values: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Mean of the values that are defined; NaN (without a warning) when none is.

    >>> round(nan_mean([0.8, float("nan"), 0.4]), 12)
    0.6
    """
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)]
    return float(array.mean()) if array.size else nan


def group_means(values: Sequence[float], groups: Sequence[str]) -> dict[str, float]:
    """`nan_mean` of each group, e.g. of each tissue; groups in alphabetical order.

    Parameters
    ----------
    values, groups : one entry an image.
    """
    array, names = np.asarray(values, dtype=np.float64), np.asarray(groups)
    return {str(name): nan_mean(array[names == name]) for name in np.unique(names)}


def mean_of_groups(means: Mapping[str, float]) -> tuple[float, float]:
    """(mean, sample standard deviation with n - 1) over groups, each counted once; undefined groups are skipped."""
    defined = np.array([value for value in means.values() if not np.isnan(value)])
    deviation = float(defined.std(ddof=1)) if len(defined) > 1 else nan
    return nan_mean(defined), deviation
