"""Pixels of all instances of a slide, each read once: a sweep down the slide, band by band and block by block.

Instances come in any order, batch by batch. A band of `BLOCK` rows is read when every instance that reaches into it is
known; instances that lie in several blocks are added up until the last of them is done. In memory are one block, the
next one that a thread reads ahead, and the outlines and sums of the instances around the band.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.geometry import Bounds, Shape2d
from gigaseg.measure.channels import Channels
from gigaseg.measure.runs import Runs, pixel_runs
from gigaseg.measure.tally import Tally, column_names, measurements_of, tally_pixels
from gigaseg.measure.texture import NAMES, co_occurrence, grey_levels
from gigaseg.slides.base import Slide
from gigaseg.tiles.tiling import Tiling

log = logging.getLogger(__name__)

BLOCK = 2048
"""Side of what is read at once, working px: 12 MB of RGB. Larger blocks cut fewer instances and need more memory."""

_PIECE = 2**22
"""Values and bins that are worked on at once: a few ten MB."""


@dataclass
class PixelBatch:
    """Instances on their way through the sweep.

    Attributes
    ----------
    geometry : (n,) working px.
    box : (n, 4) int64, the pixels each instance may cover: xmin, ymin, xmax, ymax, half-open.
    values : (n, columns) float64 measurements; NaN until known.
    number : counts the batches.
    """

    geometry: npt.NDArray[np.object_]
    box: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    number: int

    @property
    def bottom(self) -> int:
        """The row above which all its pixels lie."""
        return int(self.box[:, 3].max(initial=0))


class PixelSweep:
    """Measures pixels of instances.

    Parameters
    ----------
    slide : read at the working resolution of `tiling`.
    channels : what is measured.
    quantiles : of the pixels of an instance.
    texture : whether Haralick features are measured too.
    block : side of a block, working px.
    """

    def __init__(
        self,
        slide: Slide,
        tiling: Tiling,
        channels: Channels,
        quantiles: tuple[float, ...],
        texture: bool = False,
        block: int = BLOCK,
    ) -> None:
        self._slide, self._tiling, self._channels = slide, tiling, channels
        self._quantiles, self._texture, self._block = quantiles, texture, block
        self.columns = column_names(channels, quantiles, NAMES if texture else ())
        self._batches: list[PixelBatch] = []
        self._open: dict[tuple[int, int], Tally] = {}
        self._next_band = 0
        self._added = 0

    def add(self, geometry: npt.NDArray[np.object_]) -> PixelBatch:
        """Take in instances (working px); their `values` are complete once `advance` has passed their `bottom`."""
        bounds = shapely.bounds(geometry).reshape(-1, 4)
        box = np.concatenate([np.floor(bounds[:, :2]), np.ceil(bounds[:, 2:])], axis=1)
        limits = (self._tiling.width, self._tiling.height) * 2
        batch = PixelBatch(
            geometry,
            box.clip(0, limits).astype(np.int64),
            np.full((len(geometry), len(self.columns)), np.nan),
            self._added,
        )
        self._added += 1
        self._batches.append(batch)
        return batch

    def advance(self, y: float) -> int:
        """Measure down to row `y`, above which no further instance reaches; returns the row that was reached."""
        end = self._tiling.height if y >= self._tiling.height else int(max(y, 0)) // self._block * self._block
        while self._next_band < end:
            top = self._next_band
            bottom = min(top + self._block, self._tiling.height)
            self._measure_band(top, bottom)
            self._next_band = bottom
            self._batches = [batch for batch in self._batches if batch.bottom > bottom]
        return self._next_band

    def _measure_band(self, top: int, bottom: int) -> None:
        rows = [np.flatnonzero((b.box[:, 1] < bottom) & (b.box[:, 3] > top)) for b in self._batches]
        if not any(len(found) for found in rows):
            return
        geometry = np.concatenate([b.geometry[found] for b, found in zip(self._batches, rows)])
        box = np.concatenate([b.box[found] for b, found in zip(self._batches, rows)])
        batch = np.repeat(np.arange(len(rows)), [len(found) for found in rows])
        row = np.concatenate(rows)
        # texture compares with the row below
        runs = pixel_runs(geometry, top, min(bottom + self._texture, self._tiling.height), self._tiling.width)
        for left, pixels, inside_block in self._blocks(runs, top, bottom):
            right = min(left + self._block, self._tiling.width)
            for owners, tally in self._measure_block(pixels, inside_block, Bounds(left, top, right, bottom)):
                mine = box[owners]
                # texture looks at a pixel around the block, where others lie
                here = (mine[:, 0] < right) & (mine[:, 2] > left)
                whole = here & (mine[:, 0] >= left) & (mine[:, 1] >= top) & (mine[:, 2] <= right)
                whole &= mine[:, 3] <= bottom
                self._fill(batch[owners[whole]], row[owners[whole]], tally.take(np.flatnonzero(whole)))
                for i in np.flatnonzero(here & ~whole).tolist():
                    key = self._key(batch, row, int(owners[i]))
                    part = tally.take(slice(i, i + 1))
                    self._open[key] = self._open[key] + part if key in self._open else part
        ended = [(i, self._key(batch, row, i)) for i in np.flatnonzero(box[:, 3] <= bottom).tolist()]
        finished = [(i, self._open.pop(key)) for i, key in ended if key in self._open]
        if finished:
            index = np.array([i for i, _ in finished])
            self._fill(batch[index], row[index], Tally.concat([part for _, part in finished]))

    def _key(self, batch: npt.NDArray[np.int64], row: npt.NDArray[np.int64], i: int) -> tuple[int, int]:
        return self._batches[batch[i]].number, int(row[i])

    def _fill(self, batch: npt.NDArray[np.int64], row: npt.NDArray[np.int64], tally: Tally) -> None:
        if len(row) == 0:
            return
        values = measurements_of(tally, self._channels, self._quantiles)
        for number in np.unique(batch):
            mine = batch == number
            self._batches[number].values[row[mine]] = values[mine]

    def _blocks(self, runs: Runs, top: int, bottom: int) -> Iterator[tuple[int, npt.NDArray[Any], Runs]]:
        """Left side, native pixels and runs of every block of a band that any instance touches; one is read ahead."""
        around = int(self._texture)
        in_band = runs.row < bottom
        used = np.zeros(-(-self._tiling.width // self._block) + 1, np.int64)
        np.add.at(used, runs.start[in_band] // self._block, 1)
        np.add.at(used, (runs.stop[in_band] - 1) // self._block + 1, -1)
        lefts = [int(number) * self._block for number in np.flatnonzero(used.cumsum() > 0)]
        mine = [np.flatnonzero((runs.stop > x - around) & (runs.start < x + self._block + around)) for x in lefts]
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(self._read, left, top, bottom) for left in lefts[:1]]
            for i, left in enumerate(lefts):
                pixels = ahead.pop().result()
                if i + 1 < len(lefts):
                    ahead.append(pool.submit(self._read, lefts[i + 1], top, bottom))
                yield left, pixels, runs.take(mine[i]).clipped(left - around, left + self._block + around)

    def _read(self, left: int, top: int, bottom: int) -> npt.NDArray[Any]:
        around = int(self._texture)
        right = min(left + self._block, self._tiling.width)
        bounds = Bounds(left - around, top, right + around, bottom + around)
        shape = Shape2d(bottom + around - top, right - left + 2 * around)
        # all channels are read where they are rendered
        only = None if self._texture else self._channels.used
        return self._slide.read(bounds.scaled(*self._tiling.scale), shape, only)

    def _measure_block(
        self, native: npt.NDArray[Any], runs: Runs, bounds: Bounds
    ) -> Iterator[tuple[npt.NDArray[np.int64], Tally]]:
        """The instances with a pixel in or at a block, and their sums over it, some at a time."""
        left, top, right, bottom = (int(side) for side in bounds)
        around = int(self._texture)
        owners, local = np.unique(runs.owner, return_inverse=True)
        runs = Runs(local, runs.row, runs.start, runs.stop)
        width = right - left + 2 * around
        stained = self._channels.used is None
        rgb = self._slide.info.rendering.rgb(native) if self._texture or stained else native
        source = rgb
        if self._channels.used is not None:
            source = native[..., list(self._channels.used)] if self._texture else native
        flat = source.reshape(-1, source.shape[-1])
        pairs = np.zeros((len(owners), 0, 0), np.int64)
        if self._texture:
            labels = np.zeros(len(flat), np.int32)
            place, own = runs.pixels(left - 1, top, width)
            labels[place] = own + 1  # where instances overlap a pixel goes to the later one
            levels = grey_levels(rgb)
            pairs = co_occurrence(levels, labels.reshape(levels.shape), len(owners))
            runs = runs.take(runs.row < bottom).clipped(left, right)
        for piece, first, end in _pieces(runs, len(owners), len(self._channels.names), self._channels.bins):
            place, own = piece.pixels(left - around, top, width)
            yield (
                owners[first:end],
                tally_pixels(flat[place], own - first, end - first, self._channels, pairs[first:end]),
            )


def _pieces(runs: Runs, count: int, channels: int, bins: int) -> Iterator[tuple[Runs, int, int]]:
    """Cut runs between owners into pieces of about `_PIECE` values and bins: runs, first owner, end owner."""
    cost = channels * (np.bincount(runs.owner, runs.stop - runs.start, count) + bins)
    number = (cost.cumsum() // _PIECE).astype(np.int64)
    first = 0
    for end in [*(np.flatnonzero(np.diff(number)) + 1).tolist(), count]:
        low, high = np.searchsorted(runs.owner, (first, end))
        yield runs.take(slice(low, high)), first, end
        first = end
