"""Tiles of a slide, read in parallel and handed out in order.

Worker processes read runs of neighbouring tiles into a ring of shared memory; the caller sees them in order and
gives each place back by asking for the next. Memory is that of the ring, whatever the slide's size.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gigaseg.processes import end_with_parent, keep_freed_memory
from gigaseg.tiles.source import TileSource
from gigaseg.tiles.tiling import Tile, Tiling

RUN = 4
"""Tiles that a worker reads in a row: neighbours, which share tiles of the slide that readers keep decoded."""

RUNS_PER_WORKER = 2
"""Places in the ring for each worker, in runs: one is being filled while another waits to be written."""

Pixels = npt.NDArray[np.uint8]

T = TypeVar("T")


def read_tiles(
    opener: Callable[[], TileSource], tiling: Tiling, tiles: Sequence[Tile], workers: int, note: Callable[[Pixels], T]
) -> Generator[tuple[Pixels, T], None, None]:
    """Read tiles in `workers` processes; with one, in this process.

    Parameters
    ----------
    opener : opens what they are read from, once in each process.
    note : what to find out about each tile, where it is read. Both are functions that can be sent to a process.

    Yields
    ------
    (tile, tile, 3) uint8 pixels and the note on them, in the order of `tiles`. The array is valid only until the next
    one is asked for.

    Raises
    ------
    SlideError, FormatError
        The slide or store cannot be opened or decoded.
    concurrent.futures.process.BrokenProcessPool
        A worker was killed, by lack of memory for instance.
    """
    runs = [tiles[start : start + RUN] for start in range(0, len(tiles), RUN)]
    workers = min(workers, len(runs))
    if workers > 1:
        yield from _in_processes(opener, tiling, runs, workers, note)
    elif runs:
        source = opener()
        try:
            for tile in tiles:
                pixels = source.read(tile)
                yield pixels, note(pixels)
        finally:
            source.close()


def _in_processes(
    opener: Callable[[], TileSource],
    tiling: Tiling,
    runs: Sequence[Sequence[Tile]],
    workers: int,
    note: Callable[[Pixels], T],
) -> Generator[tuple[Pixels, T], None, None]:
    context = get_context("spawn")
    places = workers * RUNS_PER_WORKER
    # an unlinked file in /dev/shm, or in the temporary folder where that is too small: a kill leaves nothing
    memory = context.RawArray(ctypes.c_uint8, places * RUN * tiling.tile**2 * 3)
    ring = _as_ring(memory, tiling)
    waiting: deque[Future[list[T]]] = deque()
    with ProcessPoolExecutor(workers, context, _start, (opener, tiling, memory, note)) as pool:
        try:
            for number in range(len(runs) + places):
                place = number % places
                if number >= places:
                    yield from zip(ring[place], waiting.popleft().result())
                if number < len(runs):
                    waiting.append(pool.submit(_fill, place, runs[number]))
        finally:
            pool.shutdown(cancel_futures=True)


def _as_ring(memory: ctypes.Array[ctypes.c_uint8], tiling: Tiling) -> Pixels:
    return np.ctypeslib.as_array(memory).reshape(-1, RUN, tiling.tile, tiling.tile, 3)


_opener: Callable[[], TileSource]
_note: Callable[[Pixels], Any]
_ring: Pixels
_source: TileSource | None = None


def _start(
    opener: Callable[[], TileSource], tiling: Tiling, memory: ctypes.Array[ctypes.c_uint8], note: Callable[[Pixels], T]
) -> None:
    global _opener, _note, _ring
    _opener, _note, _ring = opener, note, _as_ring(memory, tiling)
    keep_freed_memory()
    end_with_parent()


def _fill(place: int, tiles: Sequence[Tile]) -> list[Any]:
    """Read `tiles` into a place of the ring; returns the notes on them."""
    global _source
    if _source is None:
        _source = _opener()  # here and not in _start, whose errors the pool does not pass on
    notes = []
    for pixels, tile in zip(_ring[place], tiles):
        pixels[:] = _source.read(tile)
        notes.append(_note(pixels))
    return notes
