"""Pixel metrics: of foreground against background, of classes, per image and pooled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.errors import FormatError
from gigaseg.metrics.overlap import FloatArray, IntArray, Overlap


@dataclass(frozen=True)
class PixelCounts:
    """Areas of agreement between two masks, px²; counts of images may be added up (pooling).

    An image without truth and without prediction scores 1 in every ratio, one where only one side is empty 0.

    Attributes
    ----------
    tp, fp, fn : area in both masks, in the predicted one alone, in the true one alone.
    tn : area in neither; NaN where the extent of the image is unknown.
    """

    tp: float
    fp: float
    fn: float
    tn: float = nan

    @classmethod
    def from_overlap(cls, overlap: Overlap) -> PixelCounts:
        """Foreground, i.e. the union of the objects, of both sides."""
        both, truth, prediction = overlap.covered
        rest = nan if overlap.extent is None else overlap.extent - truth - prediction + both
        return cls(both, prediction - both, truth - both, rest)

    @classmethod
    def from_masks(
        cls, truth: npt.NDArray[Any], prediction: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None
    ) -> PixelCounts:
        """Compare two masks of one shape (non-zero = foreground), where `valid` if given.

        Raises
        ------
        FormatError : the shapes differ.
        """
        if truth.shape != prediction.shape:
            raise FormatError(f"truth has shape {truth.shape} and prediction {prediction.shape}; expected the same")
        t, p = truth != 0, prediction != 0
        if valid is not None:
            t, p = t[valid], p[valid]
        both = int(np.count_nonzero(t & p))
        only_p, only_t = int(np.count_nonzero(p)) - both, int(np.count_nonzero(t)) - both
        return cls(both, only_p, only_t, t.size - both - only_p - only_t)

    @property
    def dice(self) -> float:
        """Dice of the foreground, 2 TP / (2 TP + FP + FN); equal to its F1."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """IoU of the foreground, TP / (TP + FP + FN)."""
        return _share(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 0 where there is truth but no prediction."""
        return _share(self.tp, self.tp + self.fp, self.fn)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 0 where there is prediction but no truth."""
        return _share(self.tp, self.tp + self.fn, self.fp)

    @property
    def background(self) -> PixelCounts:
        """The same counts with the background as the positive class."""
        return PixelCounts(self.tn, self.fn, self.fp, self.tp)

    def two_class(self, name: str) -> float:
        """Mean of a ratio ("dice", "iou", "precision", "recall") over foreground and background; NaN without `tn`."""
        if np.isnan(self.tn):
            return nan
        return 0.5 * float(getattr(self, name) + getattr(self.background, name))

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)


def auc(values: npt.NDArray[Any], positive: npt.NDArray[Any], negative: npt.NDArray[Any]) -> float:
    """Area under the ROC curve of `values` as a detector, of samples that each hold positive and negative pixels.

    The share of pairs of a positive and a negative pixel in which the positive one has the larger value, ties counting
    half. NaN when there is no pixel of either.

    Parameters
    ----------
    values, positive, negative : of one shape; value, positive and negative pixels of each sample.

    >>> auc(np.array([1.0, 2.0, 3.0]), np.array([0, 1, 1]), np.array([1, 1, 0]))
    0.875
    """
    found, code = np.unique(values, return_inverse=True)
    p, n = (np.bincount(code.ravel(), weights.ravel(), len(found)) for weights in (positive, negative))
    pairs = p.sum() * n.sum()
    return float(p @ (n.cumsum() - n / 2) / pairs) if pairs else nan


def confusion(
    truth: npt.NDArray[Any], prediction: npt.NDArray[Any], classes: int, ignore: int | None = 255
) -> IntArray:
    """Joint histogram of two class maps.

    Parameters
    ----------
    truth, prediction : integer arrays of one shape, values 0..classes-1.
    ignore : value of `truth` whose pixels do not count; None: all count.

    Returns
    -------
    (classes, classes) int64, rows truth, columns prediction; matrices of images may be added up.

    Raises
    ------
    FormatError : the shapes differ or a value lies outside 0..classes-1.
    """
    if truth.shape != prediction.shape:
        raise FormatError(f"truth has shape {truth.shape} and prediction {prediction.shape}; expected the same")
    t, p = truth.ravel(), prediction.ravel()
    if ignore is not None:
        keep = t != ignore
        t, p = t[keep], p[keep]
    for name, values in (("truth", t), ("prediction", p)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise FormatError(
                f"{name} class map has the value {values.max() if values.min() >= 0 else values.min()}; "
                f"expected 0..{classes - 1}"
            )
    joint = np.bincount(t.astype(np.int64) * classes + p, minlength=classes * classes)
    return joint.reshape(classes, classes)


def class_iou(matrix: IntArray) -> FloatArray:
    """IoU of each class of a `confusion` matrix, (classes,); NaN for a class that occurs on neither side."""
    matrix = np.asarray(matrix, dtype=np.float64)
    shared = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - shared
    result: FloatArray = np.divide(shared, union, out=np.full(len(shared), nan), where=union > 0)
    return result


def mean_iou(matrix: IntArray) -> float:
    """Mean of `class_iou` over the classes that occur; NaN when none does."""
    values = class_iou(matrix)
    return float(np.nanmean(values)) if not np.isnan(values).all() else nan


def pooled_mean_iou(images: Iterable[tuple[str, PixelCounts]]) -> tuple[float, dict[str, float]]:
    """MIoU over groups of images, as PerSense-D defines it: pooled foreground IoU of each group, then their mean.

    Parameters
    ----------
    images : (group, counts) of each image; the group is the class of its objects.

    Returns
    -------
    (mean, IoU of each group); the mean is NaN without images.
    """
    groups: dict[str, PixelCounts] = {}
    for group, counts in images:
        groups[group] = groups[group] + counts if group in groups else counts
    each = {group: counts.iou for group, counts in groups.items()}
    return (float(np.mean(list(each.values()))) if each else nan), each


def _share(numerator: float, denominator: float, otherwise: float = 0.0) -> float:
    """The quotient; without a denominator 1 when both sides are empty, 0 when `otherwise` says they are not."""
    if denominator:
        return numerator / denominator
    return 0.0 if otherwise else 1.0
