"""The point that stands for an object: its centroid where that lies on it, else its innermost pixel.

(The published code drops objects whose centroid does not lie on any.)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from gigaseg.train.crops import Crop, objects_of


def with_points(crop: Crop) -> Crop:
    """The crop with the points of its objects as their centres."""
    labels, ids = crop.labels.numpy(), crop.ids.numpy()
    points = _centroids(labels, ids, crop.centres.numpy().astype(np.float64))
    return replace(crop, centres=torch.from_numpy(points.astype(np.float32)))


def image_points(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Points of the objects 1..n of a label image (y, x): (n, 2) x, y in px, pixel corners at integers."""
    ids, _, _, centres, _ = objects_of(labels, 1, np.random.default_rng(0))
    return _centroids(labels, ids.numpy(), centres.numpy().astype(np.float64))


def _centroids(
    labels: npt.NDArray[np.int32], ids: npt.NDArray[np.int32], fallback: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Centroids of the objects `ids`, or their `fallback`, all (n, 2) x, y in px."""
    if not len(ids):
        return np.empty((0, 2))
    flat, size = labels.ravel(), int(labels.max()) + 1
    y, x = np.divmod(np.arange(len(flat)), labels.shape[1])
    count = np.bincount(flat, minlength=size)[ids]
    middle = np.column_stack([np.bincount(flat, place + 0.5, size)[ids] / count for place in (x, y)])
    at = middle.astype(np.int64)
    return np.where((labels[at[:, 1], at[:, 0]] == ids)[:, None], middle, fallback)
