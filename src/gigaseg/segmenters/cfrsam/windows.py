"""Windows of a tile: the second stage of CFR-SAM sees images as large as those that it was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHARED = 3 / 8
"""Share of their side that neighbouring windows have in common: 96 of 256 px, so that whatever is smaller than half of
that on each side of its point lies whole in the window whose middle is nearest."""


@dataclass(frozen=True)
class Window:
    """A window of one tile of a batch, and the prompts that are decoded in it.

    Attributes
    ----------
    tile : position in the batch.
    x, y : its first px in the tile.
    prompts : (k,) int64 positions among the tile's prompts.
    """

    tile: int
    x: int
    y: int
    prompts: npt.NDArray[np.int64]


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """Where windows start along an axis: each `stride` px, the last one flush with the end.

    >>> window_starts(1000, 256, 192)
    [0, 192, 384, 576, 744]
    """
    if size <= window:
        return [0]
    return [*range(0, size - window, stride), size - window]


def windows_of(tile: int, shape: tuple[int, int], xy: npt.NDArray[np.floating], side: int) -> list[Window]:
    """The windows of a tile that have prompts, each prompt in the one whose middle is nearest.

    Parameters
    ----------
    tile : position of the tile in its batch.
    shape : its height and width, px.
    xy : (n, 2) its prompts, tile px.
    side : of the windows, px; 0: the tile is one.
    """
    if not len(xy):
        return []
    if not side or side >= max(shape):
        return [Window(tile, 0, 0, np.arange(len(xy)))]
    stride = side - round(SHARED * side)
    starts = [np.array(window_starts(length, side, stride)) for length in shape]
    near = [np.abs(xy[:, 1 - axis, None] - (starts[axis] + min(side, shape[axis]) / 2)).argmin(1) for axis in range(2)]
    return [
        Window(tile, int(starts[1][col]), int(starts[0][row]), np.flatnonzero((near[0] == row) & (near[1] == col)))
        for row, col in np.unique(np.stack(near, 1), axis=0).tolist()
    ]
