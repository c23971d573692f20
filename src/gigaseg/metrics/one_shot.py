"""The figure of one-shot segmentation: IoU of the foreground, summed up a class, then a plain mean over classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.metrics.classes import nan_mean

EPSILON = 1e-10
"""Least union, px²: a class of which nothing is there and nothing is found has 0, as PerSense's release has it."""


@dataclass
class ClassTotals:
    """Foreground of a class over its images.

    Attributes
    ----------
    intersection, union : px, summed over the images.
    images : how many.
    """

    intersection: int = 0
    union: int = 0
    images: int = 0

    def add(self, prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
        """Count an image; both (h, w), foreground where not 0.

        Raises
        ------
        ValueError
            They are of different shapes.
        """
        if prediction.shape != truth.shape:
            raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}, expected the same")
        found, there = prediction != 0, truth != 0
        self.intersection += int(np.count_nonzero(found & there))
        self.union += int(np.count_nonzero(found | there))
        self.images += 1

    @property
    def iou(self) -> float:
        """Summed intersections / summed unions; NaN without an image.

        The release of PerSense adds 1e-10 to the union, from which this differs by less than 1e-10.
        """
        return self.intersection / max(self.union, EPSILON) if self.images else nan


@dataclass(frozen=True)
class ClassMiou:
    """Mean over classes.

    Attributes
    ----------
    value : mean of the classes' IoUs, each class counting once; NaN without a class.
    classes : how many have images.
    skipped : how many have none.
    """

    value: float
    classes: int
    skipped: int


def class_miou(totals: Mapping[str, ClassTotals]) -> ClassMiou:
    """Plain mean of the IoUs of the classes that have images.

    >>> class_miou({"a": ClassTotals(10, 12, 2), "b": ClassTotals()})
    ClassMiou(value=0.8333333333333334, classes=1, skipped=1)
    """
    values = np.array([one.iou for one in totals.values()], dtype=np.float64)
    known = [value for value in values if not isnan(value)]
    return ClassMiou(nan_mean(values), len(known), len(values) - len(known))
