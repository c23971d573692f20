"""Crops for the detector: which objects of a crop are targets, and the published ways of cropping and letterboxing."""

from __future__ import annotations

import math

import numpy as np
import torch

from gigaseg.train.crops import Crop, affine
from gigaseg.train.data import Sample

LEAST_SIDE = 2.0
"""Px; objects whose box is narrower are no targets."""


def only_visible(crop: Crop, sample: Sample, matrix: np.ndarray, least: float) -> Crop:
    """`crop` without the objects of which it shows too little; they stay in its labels.

    Parameters
    ----------
    matrix : (2, 3) the map that the crop was cut by, crop px to image px.
    least : visible share of an object's area, 0..1.
    """
    area = np.bincount(sample.labels.ravel())[crop.ids.numpy()]
    visible = crop.area.numpy() * abs(np.linalg.det(matrix[:, :2])) / area
    side = (crop.boxes[:, 2:] - crop.boxes[:, :2]).amin(1).numpy() if len(area) else np.zeros(0)
    kept = (visible >= least) & (side >= LEAST_SIDE)
    return crop[torch.from_numpy(kept)]


def letterbox_affine(sample: Sample, size: int, rng: np.random.Generator) -> np.ndarray:
    """The map of CenterNet's sampler, from crop px to image px, with the rotations that the paper adds.

    It varies `whole_affine`, by which whole images are seen.

    The crop shows 0.6, 0.7, ... 1.3 times the image's longer side, about a place that keeps off the image's borders
    (by 128 px, halved until that is less than half of the side); mirrored on both axes with chance 1/2 each, and in
    half of the cases turned by any angle.
    """
    height, width = sample.labels.shape
    scale = size / (max(height, width) * rng.choice(np.arange(6, 14) / 10))
    centre = [rng.uniform(_border(side), side - _border(side)) for side in (width, height)]
    flip_x, flip_y = rng.random(2) < 0.5
    angle = math.tau * rng.random() if rng.random() < 0.5 else 0.0
    # mirroring y is mirroring x and half a turn
    return affine(scale, angle + math.pi * flip_y, bool(flip_x ^ flip_y), (centre[0], centre[1]), size)


def _border(side: int, border: int = 128) -> int:
    while border and 2 * border >= side:
        border //= 2
    return border
