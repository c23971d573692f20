"""Who overlaps whom, and by how much: the one table that all instance metrics are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gigaseg.errors import FormatError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_MAX_BINS_PER_PIXEL = 4
"""A dense joint histogram may have this many bins a pixel; beyond it a sparse one takes less time and memory."""


@dataclass(frozen=True)
class Overlap:
    """Areas of n truth objects, of m predicted objects, and of the k intersections that are not empty.

    Attributes
    ----------
    truth_ids, prediction_ids : (n,) and (m,) int64, ascending: the objects' ids in their image or row in
        their file.
    truth_area, prediction_area : (n,) and (m,) float64, px².
    truth, prediction : (k,) int64, positions in `truth_ids` and `prediction_ids`; pairs are ordered by them.
    intersection : (k,) float64 > 0, px².
    covered : px² covered by (both, any truth object, any predicted object). Equals the sums of the areas
        above where the objects of one side do not overlap each other.
    extent : px² of the image; None where it is unknown (polygons).
    """

    truth_ids: IntArray
    prediction_ids: IntArray
    truth_area: FloatArray
    prediction_area: FloatArray
    truth: IntArray
    prediction: IntArray
    intersection: FloatArray
    covered: tuple[float, float, float]
    extent: float | None = None

    @cached_property
    def iou(self) -> FloatArray:
        """(k,) intersection over union of each pair, in (0, 1]."""
        return self.intersection / self.union

    @cached_property
    def union(self) -> FloatArray:
        """(k,) area of the union of each pair, px²."""
        return self.truth_area[self.truth] + self.prediction_area[self.prediction] - self.intersection

    @cached_property
    def best_for_truth(self) -> IntArray:
        """Pair of the highest IoU of each truth object that has any overlap; of equal ones the larger intersection."""
        return best_of_group(self.truth, self.iou, self.intersection)

    def swapped(self) -> Overlap:
        """The same table with truth and prediction exchanged."""
        order = np.lexsort((self.truth, self.prediction))
        both, truth, prediction = self.covered
        return Overlap(
            self.prediction_ids,
            self.truth_ids,
            self.prediction_area,
            self.truth_area,
            self.prediction[order],
            self.truth[order],
            self.intersection[order],
            (both, prediction, truth),
            self.extent,
        )

    def restrict(self, truth: BoolArray, prediction: BoolArray) -> Overlap:
        """The table of the chosen objects only, e.g. those of one class.

        Parameters
        ----------
        truth, prediction : (n,) and (m,) bool, the objects to keep.
        """
        if truth.all() and prediction.all():
            return self
        pairs = truth[self.truth] & prediction[self.prediction]
        new_truth, new_prediction = np.cumsum(truth) - 1, np.cumsum(prediction) - 1
        truth_area, prediction_area = self.truth_area[truth], self.prediction_area[prediction]
        intersection = self.intersection[pairs]
        return Overlap(
            self.truth_ids[truth],
            self.prediction_ids[prediction],
            truth_area,
            prediction_area,
            new_truth[self.truth[pairs]],
            new_prediction[self.prediction[pairs]],
            intersection,
            (float(intersection.sum()), float(truth_area.sum()), float(prediction_area.sum())),
            self.extent,
        )

    @classmethod
    def from_labels(cls, truth: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> Overlap:
        """Compare two label images by their joint histogram.

        Parameters
        ----------
        truth, prediction : (y, x) integer or bool, 0 = background, any other non-negative value an instance;
            ids need not be contiguous, and background need not occur.

        Raises
        ------
        FormatError : an array is not two-dimensional, not of integers, has negative ids, or the shapes
            differ.
        """
        t, t_ids = _as_labels(truth, "truth")
        p, p_ids = _as_labels(prediction, "prediction")
        if t.shape != p.shape:
            raise FormatError(f"truth is {_size(t)} and prediction {_size(p)} px; expected the same size")
        rows, cols = len(t_ids), len(p_ids)
        if rows * cols <= _MAX_BINS_PER_PIXEL * max(t.size, 1 << 16):
            key = np.multiply(t, cols, dtype=np.int64)
            key += p
            joint = np.bincount(key.ravel(), minlength=rows * cols).reshape(rows, cols)
            t_area, p_area = joint.sum(1), joint.sum(0)
            i, j = np.nonzero(joint[1:, 1:])
            shared = joint[1:, 1:][i, j]
        else:
            table = sparse.coo_array((np.ones(t.size, np.int64), (t.ravel(), p.ravel())), shape=(rows, cols)).tocsr()
            t_area, p_area = np.asarray(table.sum(1)), np.asarray(table.sum(0))
            table = table[1:, 1:].tocoo()
            order = np.lexsort((table.col, table.row))
            i, j, shared = table.row[order], table.col[order], table.data[order]
        t_area, p_area = t_area[1:], p_area[1:]
        has_t, has_p = t_area > 0, p_area > 0
        return cls(
            truth_ids=t_ids[1:][has_t],
            prediction_ids=p_ids[1:][has_p],
            truth_area=t_area[has_t].astype(np.float64),
            prediction_area=p_area[has_p].astype(np.float64),
            truth=(np.cumsum(has_t) - 1)[i].astype(np.int64),
            prediction=(np.cumsum(has_p) - 1)[j].astype(np.int64),
            intersection=shared.astype(np.float64),
            covered=(float(shared.sum()), float(t_area.sum()), float(p_area.sum())),
            extent=float(t.size),
        )


def best_of_group(group: IntArray, value: FloatArray, tie: FloatArray) -> IntArray:
    """Position of the highest `value` of each group, in ascending order of the groups.

    Of equal values that with the highest `tie` is taken, so that the result does not depend on the order of ids.

    >>> best_of_group(np.array([0, 0, 2, 2]), np.array([0.1, 0.3, 0.2, 0.2]), np.array([1, 1, 1, 2]))
    array([1, 3])
    """
    order = np.lexsort((-tie, -value, group))
    group = group[order]
    return order[np.flatnonzero(np.diff(group, prepend=-1))]


def _as_labels(labels: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[Any], IntArray]:
    """(codes, ids): codes index `ids`, whose first entry is the background."""
    labels = np.asarray(labels)
    if labels.ndim != 2:
        raise FormatError(f"{name} label image has {labels.ndim} dimensions; expected 2 (y, x)")
    if labels.dtype == bool:
        labels = labels.view(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise FormatError(f"{name} label image has dtype {labels.dtype}; expected integers, 0 = background")
    if labels.size == 0:
        return labels.astype(np.int64), np.zeros(1, np.int64)
    if np.issubdtype(labels.dtype, np.signedinteger) and int(labels.min()) < 0:
        raise FormatError(f"{name} label image has the negative id {int(labels.min())}; expected 0 = background")
    highest = int(labels.max())
    if highest > np.iinfo(np.int64).max:
        raise FormatError(f"{name} label image has the id {highest}; expected ids below 2^63")
    if highest < 2048:  # small enough as it is: absent ids only cost empty bins
        return labels, np.arange(highest + 1)
    if highest < max(labels.size, 1 << 22):
        present = np.zeros(highest + 1, dtype=bool)
        present[labels.ravel()] = True
        present[0] = True
        return (np.cumsum(present) - 1)[labels], np.flatnonzero(present)
    ids, codes = np.unique(labels, return_inverse=True)
    if ids[0] == 0:
        return codes.reshape(labels.shape), ids.astype(np.int64)
    return codes.reshape(labels.shape) + 1, np.concatenate([[0], ids]).astype(np.int64)


def _size(array: npt.NDArray[Any]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
