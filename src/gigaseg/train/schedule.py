"""How the learning rate goes over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gigaseg.train.config import LoopConfig


def factor(config: LoopConfig, step: int, share: float, drops: Sequence[float] = ()) -> float:
    """Learning rate of a step over the peak rate.

    ``cosine`` is a linear warm-up, then half a cosine down to ``last_rate``. ``exponential`` goes by epochs e = 0, 1, …
    of ``epoch`` steps: (e + 1) / w in the w epochs that the warm-up takes, rounded up, then falloff ** (e + 1 - w).

    Parameters
    ----------
    step : from 0.
    share : how much of the run is behind it, 0..1.
    drops : shares at which the rate falls to a tenth, after the warm-up; with any there is no cosine.

    >>> config = LoopConfig(schedule="exponential", epoch=10, warmup=50, falloff=0.95)
    >>> [round(factor(config, step, 0), 4) for step in (0, 9, 10, 20, 30, 49, 50, 69)]
    [0.2, 0.2, 0.4, 0.6, 0.8, 1.0, 0.95, 0.9025]
    """
    if config.schedule == "exponential":
        epoch, warm = step // config.epoch, -(-config.warmup // config.epoch)
        return (epoch + 1) / warm if epoch < warm else math.pow(config.falloff, epoch - max(warm, 1) + 1)
    ramp = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if drops:
        return ramp * math.pow(0.1, sum(share >= drop for drop in drops))
    cosine = 0.5 * (1 + math.cos(math.pi * share))
    return ramp * (config.last_rate + (1 - config.last_rate) * cosine)
