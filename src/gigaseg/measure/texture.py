"""Texture of instances: Haralick features of grey-level co-occurrence, counted for all instances at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEVELS = 16
"""Grey levels; more leave most pairs of a nucleus of some hundred pixels unseen."""

OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""(dy, dx) of the pairs counted: distance 1 in four directions; the other four are their mirror images."""

NAMES = (
    "texture_contrast",
    "texture_correlation",
    "texture_energy",
    "texture_homogeneity",
    "texture_entropy",
)


def grey_levels(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """(h, w) grey levels 0..15 of RGB: Rec. 709 luminance, weights in 1/1024, in 16 equal steps."""
    red, green, blue = np.moveaxis(rgb.astype(np.int64), -1, 0)
    return np.asarray((218 * red + 732 * green + 74 * blue) >> 14)


def co_occurrence(
    levels: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int32],
    count: int,
) -> npt.NDArray[np.int64]:
    """Count pairs of neighbouring pixels of the same instance.

    Parameters
    ----------
    levels : (h + 1, w + 2) grey levels of a block, one column more at either side and one row more below.
    labels : of the same pixels: 0 background, 1..count.
    count : number of instances.

    Returns
    -------
    (count, 4, 256): pairs by instance, direction and grey levels (16 * first + second), whose first pixel lies in the
    block proper.
    """
    height, width = levels.shape[0] - 1, levels.shape[1] - 2
    found = np.zeros((count, len(OFFSETS), LEVELS * LEVELS), np.int64)
    own, first = labels[:height, 1 : width + 1], levels[:height, 1 : width + 1]
    inside = own > 0
    for direction, (dy, dx) in enumerate(OFFSETS):
        area = np.s_[dy : dy + height, 1 + dx : 1 + dx + width]
        both = inside & (labels[area] == own)
        key = (own[both] - 1).astype(np.int64) * LEVELS**2 + first[both] * LEVELS + levels[area][both]
        found[:, direction] = np.bincount(key, minlength=count * LEVELS**2).reshape(count, -1)
    return found


def haralick(pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Features of each instance, the mean over its directions (Haralick, Shanmugam & Dinstein 1973, IEEE SMC-3, 610).

    Parameters
    ----------
    pairs : (n, 4, 256) counts of `co_occurrence`; they are made symmetric and divided by their sum here.

    Returns
    -------
    (n, 5) in the order of `NAMES`: contrast (sum p (i-j)²), correlation, energy (sum p², his angular second moment),
    homogeneity (sum p / (1 + (i-j)²), his inverse difference moment), entropy (-sum p log2 p). NaN for an instance
    without a pair in some direction; correlation is 1 where all pixels are alike.
    """
    n = len(pairs)
    square = pairs.reshape(n, len(OFFSETS), LEVELS, LEVELS).astype(np.float64)
    square += square.swapaxes(2, 3)
    total = square.sum((2, 3), keepdims=True)
    p = np.divide(square, total, out=np.full_like(square, np.nan), where=total > 0)
    i, j = np.indices((LEVELS, LEVELS))
    apart = (i - j) ** 2.0
    mean = (p * i).sum((2, 3))
    variance = (p * i**2).sum((2, 3)) - mean**2
    covariance = (p * i * j).sum((2, 3)) - mean**2
    varied = variance > 1e-12
    correlation = np.divide(covariance, variance, out=np.where(np.isnan(variance), np.nan, 1.0), where=varied)
    logarithm = np.log2(p, out=np.zeros_like(p), where=p > 0)
    features = [
        (p * apart).sum((2, 3)),
        correlation,
        (p**2).sum((2, 3)),
        (p / (1 + apart)).sum((2, 3)),
        -(p * logarithm).sum((2, 3)),
    ]
    return np.stack([feature.mean(1) for feature in features], axis=1)
