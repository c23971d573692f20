"""Pixels of the instances of a window of the slide, each read once: band by band and block by block.

Instances that lie in several blocks are added up; what reaches out of the window is left as sums for `Joiner`. In
memory are one block, the next one that a thread may read ahead, and the outlines and sums of the window's instances.
"""

from __future__ import annotations

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
from gigaseg.measure.texture import LEVELS, NAMES, co_occurrence, grey_levels
from gigaseg.slides.base import Slide
from gigaseg.tiles.tiling import Tiling

BLOCK = 2048
"""Side of what is read at once, working px: 12 MB of RGB. Larger blocks cut fewer instances and need more memory."""

_PIECE = 2**22
"""Values and bins that are worked on at once: a few ten MB."""

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Statistics:
    """What is measured of the pixels of an instance.

    Attributes
    ----------
    channels : the values.
    quantiles : of them.
    texture : whether Haralick features are measured too.
    """

    channels: Channels
    quantiles: tuple[float, ...]
    texture: bool = False

    @property
    def columns(self) -> list[str]:
        """Names of what `of` gives."""
        return column_names(self.channels, self.quantiles, NAMES if self.texture else ())

    def of(self, tally: Tally) -> npt.NDArray[np.float64]:
        """(n, columns) measurements of the pixels added up in `tally`."""
        return measurements_of(tally, self.channels, self.quantiles)


@dataclass(frozen=True)
class WindowPixels:
    """What the pixels of one window tell.

    Attributes
    ----------
    index : (m,) instances of which all pixels lie in the window.
    values : (m, columns) their measurements.
    cut : (k,) instances that have pixels beyond the window too.
    sums : of the k, over the window; None for no such instance.
    last : (l,) instances that reach out of the window, and into no later one in the order of rows of windows.
    """

    index: Index
    values: npt.NDArray[np.float64]
    cut: Index
    sums: Tally | None
    last: Index


def pixel_boxes(geometry: npt.NDArray[np.object_], tiling: Tiling) -> Index:
    """(n, 4) pixels of the slide that outlines (working px) may cover: xmin, ymin, xmax, ymax, half-open."""
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    box = np.concatenate([np.floor(bounds[:, :2]), np.ceil(bounds[:, 2:])], axis=1)
    return box.clip(0, (tiling.width, tiling.height) * 2).astype(np.int64)


def measure_pixels(
    slide: Slide,
    tiling: Tiling,
    statistics: Statistics,
    geometry: npt.NDArray[np.object_],
    window: tuple[int, int, int, int],
    block: int = BLOCK,
    ahead: bool = True,
) -> WindowPixels:
    """Measure the pixels of a window.

    Parameters
    ----------
    slide : read at the working resolution of `tiling`.
    geometry : (n,) outlines, working px: all that reach into the window or into the pixels around it, the later ones
        of overlapping instances behind the earlier ones.
    window : left, top, right, bottom, working px; a multiple of `block` or the slide's end.
    block : side of what is read at once, working px.
    ahead : whether a thread reads the next block meanwhile.
    """
    return _Sweep(slide, tiling, statistics, geometry, window, block, ahead).run()


class Joiner:
    """Adds up instances that lie in several windows."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._open: dict[int, Tally] = {}

    def add(self, index: Index, sums: Tally | None, last: Index) -> tuple[Index, npt.NDArray[np.float64]]:
        """Take in a window, in the order of windows; returns the instances that it completes and their measurements.

        Parameters
        ----------
        index, sums, last : `cut`, `sums` and `last` of the window, instances numbered alike in all windows.
        """
        for i, row in enumerate(index.tolist()):
            if sums is not None:
                part = sums.take(slice(i, i + 1))
                # a view would keep the sums of the whole window alive
                self._open[row] = self._open[row] + part if row in self._open else part.copy()
        done = [row for row in last.tolist() if row in self._open]
        if not done:
            return np.empty(0, np.int64), np.empty((0, len(self._statistics.columns)))
        return np.array(done), self._statistics.of(Tally.concat([self._open.pop(row) for row in done]))


class _Sweep:
    def __init__(
        self,
        slide: Slide,
        tiling: Tiling,
        statistics: Statistics,
        geometry: npt.NDArray[np.object_],
        window: tuple[int, int, int, int],
        block: int,
        ahead: bool,
    ) -> None:
        self._slide, self._tiling, self._statistics = slide, tiling, statistics
        self._geometry, self._window, self._block, self._ahead = geometry, window, block, ahead
        self._around = int(statistics.texture)
        self._box = pixel_boxes(geometry, tiling)
        self._open: dict[int, Tally] = {}
        self._done: list[tuple[Index, npt.NDArray[np.float64]]] = []

    def run(self) -> WindowPixels:
        left, top, right, bottom = self._window
        box = self._box
        inside = (box[:, 0] >= left) & (box[:, 1] >= top) & (box[:, 2] <= right) & (box[:, 3] <= bottom)
        for y in range(top, bottom, self._block):
            end = min(y + self._block, bottom)
            self._measure_band(y, end)
            self._finish([i for i in self._open if inside[i] and box[i, 3] <= end])
        cut = sorted(self._open)
        corner = (box[:, 2] <= right) & (box[:, 3] <= bottom) & (box[:, 2] > left) & (box[:, 3] > top)
        return WindowPixels(
            index=np.concatenate([np.empty(0, np.int64), *(index for index, _ in self._done)]),
            values=np.concatenate([np.empty((0, len(self._statistics.columns))), *(found for _, found in self._done)]),
            cut=np.array(cut, np.int64),
            sums=Tally.concat([self._open[i] for i in cut]) if cut else None,
            last=np.flatnonzero(corner & ~inside),
        )

    def _finish(self, ended: list[int]) -> None:
        if ended:
            sums = Tally.concat([self._open.pop(i) for i in ended])
            self._done.append((np.array(ended), self._statistics.of(sums)))

    def _measure_band(self, top: int, bottom: int) -> None:
        around = self._around
        x0, _, x1, _ = self._window
        box = self._box
        near = (box[:, 1] < bottom + around) & (box[:, 3] > top) & (box[:, 0] < x1 + around) & (box[:, 2] > x0 - around)
        index = np.flatnonzero(near)
        if len(index) == 0:
            return
        # texture compares with the row below
        runs = pixel_runs(self._geometry[index], top, min(bottom + around, self._tiling.height), self._tiling.width)
        for left, pixels, in_block in self._blocks(runs, top, bottom):
            right = min(left + self._block, x1)
            for owners, tally in self._measure_block(pixels, in_block, (left, top, right, bottom)):
                mine = box[index[owners]]
                # texture looks at a pixel around the block, where others lie
                here = (mine[:, 0] < right) & (mine[:, 2] > left) & (mine[:, 1] < bottom)
                whole = here & (mine[:, 0] >= left) & (mine[:, 1] >= top) & (mine[:, 2] <= right)
                whole &= mine[:, 3] <= bottom
                if whole.any():
                    sums = tally if whole.all() else tally.take(np.flatnonzero(whole))
                    self._done.append((index[owners[whole]], self._statistics.of(sums)))
                for i in np.flatnonzero(here & ~whole).tolist():
                    key, part = int(index[owners[i]]), tally.take(slice(i, i + 1)).copy()
                    self._open[key] = self._open[key] + part if key in self._open else part

    def _blocks(self, runs: Runs, top: int, bottom: int) -> Iterator[tuple[int, npt.NDArray[Any], Runs]]:
        """Left side, native pixels and runs of every block of a band that any instance touches."""
        around, block = self._around, self._block
        x0, _, x1, _ = self._window
        proper = runs.take(runs.row < bottom).clipped(x0, x1)
        used = np.zeros(-(-self._tiling.width // block) + 1, np.int64)
        np.add.at(used, proper.start // block, 1)
        np.add.at(used, (proper.stop - 1) // block + 1, -1)
        lefts = [int(number) * block for number in np.flatnonzero(used.cumsum() > 0)]

        def of(left: int) -> Runs:
            end = min(left + block, x1)
            mine = np.flatnonzero((runs.stop > left - around) & (runs.start < end + around))
            return runs.take(mine).clipped(left - around, end + around)

        if not self._ahead:
            yield from ((left, self._read(left, top, bottom), of(left)) for left in lefts)
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(self._read, left, top, bottom) for left in lefts[:1]]
            for i, left in enumerate(lefts):
                pixels = ahead.pop().result()
                if i + 1 < len(lefts):
                    ahead.append(pool.submit(self._read, lefts[i + 1], top, bottom))
                yield left, pixels, of(left)

    def _read(self, left: int, top: int, bottom: int) -> npt.NDArray[Any]:
        around = self._around
        right = min(left + self._block, self._window[2])
        bounds = Bounds(left - around, top, right + around, bottom + around)
        shape = Shape2d(bottom + around - top, right - left + 2 * around)
        # all channels are read where they are rendered
        only = None if around else self._statistics.channels.used
        return self._slide.read(bounds.scaled(*self._tiling.scale), shape, only)

    def _measure_block(
        self, native: npt.NDArray[Any], runs: Runs, bounds: tuple[int, int, int, int]
    ) -> Iterator[tuple[Index, Tally]]:
        """The instances with a pixel in or at a block, and their sums over it, some at a time."""
        left, top, right, bottom = bounds
        around, channels = self._around, self._statistics.channels
        owners, local = np.unique(runs.owner, return_inverse=True)
        runs = Runs(local, runs.row, runs.start, runs.stop)
        width = right - left + 2 * around
        rgb = self._slide.info.rendering.rgb(native) if around or channels.used is None else native
        source = rgb
        if channels.used is not None:
            source = native[..., list(channels.used)] if around else native
        flat = source.reshape(-1, source.shape[-1])
        marked = np.zeros(len(flat) if around else 0, np.int32)
        if around:
            place, own = runs.pixels(left - 1, top, width)
            # where instances overlap a pixel goes to the later one
            marked[place] = (own + 1) * LEVELS + grey_levels(rgb.reshape(-1, 3)[place])
            runs = runs.take(runs.row < bottom).clipped(left, right)
        for piece, first, end in _pieces(runs, len(owners), len(channels.names), channels.bins):
            place, own = piece.pixels(left - around, top, width)
            pairs = np.zeros((end - first, 0, 0), np.int64)
            if around:
                pairs = co_occurrence(marked, width, place, own, first, end - first)
            yield owners[first:end], tally_pixels(flat[place], own - first, end - first, channels, pairs)


def _pieces(runs: Runs, count: int, channels: int, bins: int) -> Iterator[tuple[Runs, int, int]]:
    """Cut runs between owners into pieces of about `_PIECE` values and bins: runs, first owner, end owner."""
    cost = channels * (np.bincount(runs.owner, runs.stop - runs.start, count) + bins)
    number = (cost.cumsum() // _PIECE).astype(np.int64)
    first = 0
    for end in [*(np.flatnonzero(np.diff(number)) + 1).tolist(), count]:
        low, high = np.searchsorted(runs.owner, (first, end))
        yield runs.take(slice(low, high)), first, end
        first = end
