"""Label images whose figures can be worked out by hand, and slow figures to compare the fast ones with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture(scope="session")
def boxes() -> Callable[..., np.ndarray]:
    """boxes((y, x, h, w), ...) -> (64, 64) label image with ids 1, 2, ... in that order."""

    def draw(*rectangles: tuple[int, int, int, int], size: int = 64) -> np.ndarray:
        labels = np.zeros((size, size), np.uint16)
        for i, (y, x, h, w) in enumerate(rectangles, 1):
            labels[y : y + h, x : x + w] = i
        return labels

    return draw


@pytest.fixture(scope="session")
def crowd() -> Callable[..., np.ndarray]:
    """crowd(seed) -> (96, 80) label image of overlapping discs; the same seed // 10 gives the same centres."""

    def draw(seed: int, count: int = 40) -> np.ndarray:
        centres = np.random.default_rng(seed // 10).integers(0, (96, 80), (count, 2))
        jitter = np.random.default_rng(seed)
        yy, xx = np.mgrid[:96, :80]
        labels = np.zeros((96, 80), np.int32)
        for i, (y, x) in enumerate(centres + jitter.integers(-3, 4, centres.shape), 1):
            labels[(yy - y) ** 2 + (xx - x) ** 2 < jitter.integers(4, 8) ** 2] = i
        return labels

    return draw
