"""Sums over the pixels of instances that can be added up block by block, and the measurements they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.measure.channels import Channels
from gigaseg.measure.texture import haralick


@dataclass(frozen=True)
class Tally:
    """Sums over the pixels of n instances.

    Attributes
    ----------
    total, squares : (n, channels) float64 sum of the values and of their squares.
    histogram : (n, channels, bins) number of pixels in each bin; its sum is the number of pixels with data.
    pairs : (n, 4, 136) co-occurrence counts; (n, 0, 0) without texture.
    """

    total: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    histogram: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.int64]

    def take(self, index: npt.NDArray[Any] | slice) -> Tally:
        """The instances `index`."""
        return Tally(self.total[index], self.squares[index], self.histogram[index], self.pairs[index])

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.total + other.total,
            self.squares + other.squares,
            self.histogram + other.histogram,
            self.pairs + other.pairs,
        )

    def copy(self) -> Tally:
        """The same sums in memory of their own, so that what they were a part of can go."""
        return Tally(self.total.copy(), self.squares.copy(), self.histogram.copy(), self.pairs.copy())

    @classmethod
    def concat(cls, parts: list[Tally]) -> Tally:
        """All instances of `parts`, in order."""
        names = ("total", "squares", "histogram", "pairs")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def tally_pixels(
    pixels: npt.NDArray[Any], owner: npt.NDArray[np.int64], count: int, channels: Channels, pairs: npt.NDArray[np.int64]
) -> Tally:
    """Add up the pixels of `count` instances.

    Parameters
    ----------
    pixels : (m, channels) as `Channels.values` takes them.
    owner : (m,) instance of each pixel, 0..count-1, ascending.
    pairs : co-occurrence counts, kept as they are.
    """
    values, bins, valid = channels.values(pixels)
    width = channels.bins
    total = np.zeros((count, len(channels.names)))
    squares = np.zeros_like(total)
    histogram = np.empty((count, len(channels.names), width), np.int64)
    first_bin = owner * width
    seen = np.flatnonzero(np.bincount(owner, minlength=count))
    start = np.searchsorted(owner, seen)
    for c in range(len(channels.names)):
        # float64: squares of 16-bit values add up beyond what float32 holds
        value, key = values[:, c].astype(np.float64), first_bin + bins[:, c]
        if valid is not None and not valid[:, c].all():
            value[~valid[:, c]] = 0
            key = key[valid[:, c]]
        if len(seen):
            total[seen, c] = np.add.reduceat(value, start)
            squares[seen, c] = np.add.reduceat(value * value, start)
        histogram[:, c] = np.bincount(key, minlength=count * width).reshape(count, width)
    return Tally(total, squares, histogram, pairs)


def column_names(channels: Channels, quantiles: tuple[float, ...], texture_names: tuple[str, ...]) -> list[str]:
    """Columns of `measurements_of`, in order."""
    statistics = ["mean", "sd", *(f"q{q * 100:g}" for q in quantiles)]
    return [f"{name}_{statistic}" for name in channels.names for statistic in statistics] + list(texture_names)


def measurements_of(tally: Tally, channels: Channels, quantiles: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Measurements of each instance, (n, columns) in the order of `column_names`; NaN where it has no pixel with data.

    Mean and standard deviation (over all pixels, not n - 1) come from sums; a quantile q is the centre of the bin that
    holds the ceil(q n)-th smallest of n pixels (type 1 of Hyndman & Fan 1996, numpy's "inverted_cdf").
    """
    bins = channels.bins
    below = tally.histogram.reshape(-1).cumsum()
    # all histograms stand in one line: each has those before it below it
    ends = below[bins - 1 :: bins]
    before = np.append(0, ends[:-1]) if len(ends) else ends
    n = (ends - before).reshape(tally.total.shape)
    divisor = np.where(n > 0, n, np.nan)
    mean = tally.total / divisor
    spread = np.sqrt(np.maximum(tally.squares / divisor - mean**2, 0))
    statistics = [mean, spread]
    for q in quantiles:
        # a hair off, so that 0.1 * 30 = 3.0000000000000004 is the third
        rank = np.maximum(np.ceil(q * n - 1e-9), 1).astype(np.int64)
        place = np.searchsorted(below, before + rank.reshape(-1)) - np.arange(len(ends)) * bins
        place = np.minimum(place.reshape(n.shape), bins - 1)  # beyond it where there is no pixel at all
        value = channels.centres[np.arange(n.shape[1]), place]
        statistics.append(np.where(n > 0, value, np.nan))
    columns = [np.stack(statistics, axis=2).reshape(len(n), n.shape[1] * len(statistics))]
    if tally.pairs.shape[1]:
        columns.append(haralick(tally.pairs))
    return np.concatenate(columns, axis=1)
