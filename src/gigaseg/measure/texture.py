"""Texture of instances: Haralick features of grey-level co-occurrence, counted for all instances at once."""

from __future__ import annotations

from typing import Any

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

_LOW, _HIGH = np.triu_indices(LEVELS)

PAIRS = len(_LOW)
"""Pairs of grey levels without order: counts are made symmetric anyway."""

_UP, _DOWN = LEVELS * _LOW + _HIGH, LEVELS * _HIGH + _LOW
_UNLIKE = np.flatnonzero(_LOW < _HIGH)
_BITS = 4

# whole numbers, so that sums of counts are exact in any order: |i - j| one-hot, i + j, i² + j², i j
_WEIGHTS = np.column_stack([np.eye(LEVELS)[_HIGH - _LOW], _LOW + _HIGH, _LOW**2 + _HIGH**2, _LOW * _HIGH])

_C_LOG_C = np.arange(2**13) * np.log2(np.maximum(np.arange(2**13), 1))


def grey_levels(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(n,) grey levels 0..15 of (n, 3) RGB: Rec. 709 luminance, weights in 1/1024, in 16 equal steps."""
    wide = rgb.astype(np.uint32)
    return np.asarray((218 * wide[:, 0] + 732 * wide[:, 1] + 74 * wide[:, 2]) >> 14, np.uint8)


def co_occurrence(
    marked: npt.NDArray[np.int32],
    width: int,
    place: npt.NDArray[np.int64],
    owner: npt.NDArray[np.int64],
    first: int,
    count: int,
) -> npt.NDArray[np.int64]:
    """Count pairs of neighbouring pixels of the same instance.

    Parameters
    ----------
    marked : (h * width,) 16 * (number of the instance + 1) + grey level of each pixel of a block and of those around
        it, less than 16 for background.
    place : (m,) positions of the pixels that begin a pair; those around them exist.
    owner : (m,) instance of each of these pixels, first..first+count-1.

    Returns
    -------
    (count, 4, 136): pairs by instance, direction and unordered pair of grey levels.
    """
    found = np.empty((count, len(OFFSETS), PAIRS), np.int64)
    mark = marked.take(place)
    seen = mark >> _BITS == owner + 1
    if not seen.all():  # the pixel went to an instance that overlaps this one
        place, owner, mark = place[seen], owner[seen], mark[seen]
    key = (owner - first) * LEVELS**2 + (mark & (LEVELS - 1)) * LEVELS
    for direction, (dy, dx) in enumerate(OFFSETS):
        other = marked.take(place + (dy * width + dx))
        both = (other ^ mark) < LEVELS  # the same number above the level
        ordered = np.bincount(key[both] + (other[both] & (LEVELS - 1)), minlength=count * LEVELS**2)
        ordered = ordered.reshape(count, -1)
        found[:, direction] = ordered.take(_UP, axis=1)
        found[:, direction, _UNLIKE] += ordered.take(_DOWN[_UNLIKE], axis=1)
    return found


def haralick(pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Features of each instance, the mean over its directions (Haralick, Shanmugam & Dinstein 1973, IEEE SMC-3, 610).

    Parameters
    ----------
    pairs : (n, 4, 136) counts of `co_occurrence`. Of a pair of unlike levels half the count goes to (i, j) and half to
        (j, i): the matrix p is symmetric and divided by its sum.

    Returns
    -------
    (n, 5) in the order of `NAMES`: contrast (sum p (i-j)²), correlation, energy (sum p², his angular second moment),
    homogeneity (sum p / (1 + (i-j)²), his inverse difference moment), entropy (-sum p log2 p). NaN for an instance
    without a pair in some direction; correlation is 1 where all pixels are alike.
    """
    sums = (pairs.reshape(-1, PAIRS) @ _WEIGHTS).reshape(*pairs.shape[:2], -1)
    apart, one, two, both = sums[..., :LEVELS], sums[..., LEVELS], sums[..., LEVELS + 1], sums[..., LEVELS + 2]
    total = apart.sum(-1)
    total[total == 0] = np.nan
    distance = np.arange(LEVELS) ** 2.0
    mean = one / total / 2
    variance, covariance = two / total / 2 - mean**2, both / total - mean**2
    varied = variance > 1e-12
    correlation = np.divide(covariance, variance, out=np.where(np.isnan(variance), np.nan, 1.0), where=varied)
    equal = pairs[..., _LOW == _HIGH]
    # an unlike pair of count c adds 2 (c / 2 n)² to the energy, a like one (c / n)²; likewise for the entropy
    squares = np.einsum("ndp,ndp->nd", pairs, pairs) + np.einsum("ndp,ndp->nd", equal, equal)
    unlike = total - apart[..., 0]
    features = [
        (apart * distance).sum(-1) / total,
        correlation,
        squares / (2 * total**2),
        (apart / (1 + distance)).sum(-1) / total,
        np.log2(total) + (unlike - _c_log_c(pairs).sum(-1)) / total,
    ]
    return np.stack([feature.mean(1) for feature in features], axis=1)


def _c_log_c(count: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Each count times its binary logarithm, 0 for 0."""
    found: npt.NDArray[Any] = _C_LOG_C.take(count, mode="clip")
    large = count >= len(_C_LOG_C)
    if large.any():
        found[large] = count[large] * np.log2(count[large])
    return found
