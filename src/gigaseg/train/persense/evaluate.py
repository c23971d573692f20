"""How well the density regressor counts the objects of whole images and peaks where they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.distance import cdist

from gigaseg.metrics.assignment import greedy_assignment
from gigaseg.metrics.report import Figure
from gigaseg.segmenters.persense.checkpoint import open_persense
from gigaseg.segmenters.persense.regressed import RegressedDensity
from gigaseg.train.cfrsam.points_truth import image_points
from gigaseg.train.data import Sample
from gigaseg.train.methods import Measured
from gigaseg.train.whole import mean_figure, scale_of

THRESHOLD = 30 / 255
"""Of the published rule: share of the highest value above which a map belongs to objects."""


def density_figures(density: RegressedDensity, samples: Sequence[Sample]) -> dict[str, float]:
    """Count the objects of whole images, scaled by their diameter as the truth has it.

    Returns
    -------
    ``f1``, mean over images of the F1 of points; ``count_error``, median over images of |count - n| / n; both by group
    too; ``images``.
    """
    rows = [image_figures(density, sample) for sample in samples]
    groups = np.array([sample.group for sample in samples])
    found = _summary(rows, "")
    for group in sorted(set(groups.tolist()) - {""}):
        found |= _summary([row for row, own in zip(rows, groups) if own == group], f"/{group}")
    return {**found, "images": float(len(samples))}


def _summary(rows: Sequence[dict[str, float]], suffix: str) -> dict[str, float]:
    f1, error = (np.array([row[name] for row in rows], np.float64) for name in ("f1", "count_error"))
    known = error[~np.isnan(error)]
    return {f"f1{suffix}": mean_figure(f1), f"count_error{suffix}": float(np.median(known)) if len(known) else 0.0}


def image_figures(density: RegressedDensity, sample: Sample) -> dict[str, float]:
    """Figures of an image; NaN where one is undefined.

    Returns
    -------
    ``f1`` of points against the objects' own, of which each takes one within half the image's mean object diameter,
    the nearest first; ``count``, ``objects``, and ``count_error``: the difference as a share of the objects.
    """
    factor = scale_of(sample, density.config.diameter)
    found = density.at(sample.image, factor)
    points, truth = _peaks(found.map, density.lone_at(factor)), image_points(sample.labels)
    area = np.bincount(sample.labels.ravel())[1:]
    radius = float(np.sqrt(area[area > 0] / math.pi).mean()) if area.any() else 0.0
    n = len(truth)
    tp = _matched(truth, points, radius)
    return {
        "f1": 2 * tp / (n + len(points)) if n + len(points) else math.nan,
        "count": found.count,
        "objects": float(n),
        "count_error": abs(found.count - n) / n if n else math.nan,
    }


def checkpoint_figures(checkpoint: Path, samples: Sequence[Sample], device: str, precision: str) -> Measured:
    """Figures of each sample as the training's validation sees it, and the median error of the counts.

    Raises
    ------
    CheckpointError
        The checkpoint is missing or damaged, or its base is.
    """
    density = RegressedDensity.of(open_persense(checkpoint, device, precision=precision))
    rows = [image_figures(density, sample) for sample in samples]
    error = np.array([row["count_error"] for row in rows])
    error = error[~np.isnan(error)]
    median = float(np.median(error)) if len(error) else math.nan
    return Measured(rows, {"median_count_error": Figure(median, "median", len(error))})


def _peaks(density: npt.NDArray[np.float32], lone: float) -> npt.NDArray[np.float64]:
    """Points (n, 2) x, y of a map, px: centroids of what is left of its peaks after an erosion.

    Parameters
    ----------
    lone : the peak of a lone object, which keeps the faint noise of an empty image from counting.
    """
    high = density > THRESHOLD * max(float(density.max()), lone)
    square = np.ones((3, 3), bool)
    labels, number = ndimage.label(ndimage.binary_erosion(high, square, border_value=1), square)
    if not number:
        return np.empty((0, 2))
    yx = np.array(ndimage.center_of_mass(labels > 0, labels, np.arange(1, number + 1)))
    return yx[:, ::-1] + 0.5


def _matched(truth: npt.NDArray[np.float64], points: npt.NDArray[np.float64], radius: float) -> int:
    """Number of pairs within `radius` px when the nearest are paired first."""
    distance = cdist(truth, points) if len(truth) and len(points) else np.empty((0, 0))
    rows, cols = np.nonzero(distance <= radius)
    return int(greedy_assignment(rows, cols, np.argsort(distance[rows, cols], kind="stable")).sum())
