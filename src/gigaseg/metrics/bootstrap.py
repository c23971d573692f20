"""Bootstrap intervals over images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gigaseg.metrics.overlap import FloatArray

Statistic = Callable[[FloatArray], FloatArray]
"""Maps weights (draws, images) to the figure of each draw (draws,)."""


def weights(images: int, draws: int, seed: int = 0) -> FloatArray:
    """How often each image occurs in each resample of `images` images with replacement.

    Returns
    -------
    (draws, images) float64; every row sums to `images`.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)


def interval(statistic: Statistic, resamples: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval (Efron 1979) of a figure over resampled images.

    Parameters
    ----------
    statistic : vectorised over the rows of the weights.
    resamples : (draws, images) from `weights`.

    Returns
    -------
    (low, high); NaN with fewer than two images or where no draw is defined. Draws in which the figure is
    undefined are left out.
    """
    if resamples.shape[1] < 2 or not len(resamples):
        return float("nan"), float("nan")
    values = statistic(resamples)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def mean_statistic(values: FloatArray) -> Statistic:
    """The mean over images of a figure given for each, (images,); images where it is NaN do not count."""
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)

    def statistic(resamples: FloatArray) -> FloatArray:
        count = resamples @ defined.astype(np.float64)
        total = resamples @ filled
        result: FloatArray = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
        return result

    return statistic
