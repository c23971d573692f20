"""Tiles of a slide, read in parallel and handed out in order.

Worker processes read runs of neighbouring tiles into a ring of shared memory; the caller sees them in order and
gives each place back by asking for the next. Memory is that of the ring, whatever the slide's size.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt

from gigaseg.processes import end_with_parent
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.archive import crc32
from gigaseg.tiles.source import SlideTiles
from gigaseg.tiles.tiling import Tile, Tiling

RUN = 4
"""Tiles that a worker reads in a row: neighbours, which share tiles of the slide that readers keep decoded."""

RUNS_PER_WORKER = 2
"""Places in the ring for each worker, in runs: one is being filled while another waits to be written."""

_KEPT = 128 * 2**20
"""Freed bytes that a worker may hold."""

Pixels = npt.NDArray[np.uint8]


def read_tiles(info: SlideInfo, tiling: Tiling, tiles: Sequence[Tile], workers: int) -> Iterator[tuple[Pixels, int]]:
    """Read tiles in `workers` processes; with one, in this process.

    Yields
    ------
    (tile, tile, 3) uint8 pixels and their CRC-32, in the order of `tiles`. The array is valid only until the
    next one is asked for.

    Raises
    ------
    SlideError
        The slide cannot be opened or decoded.
    concurrent.futures.process.BrokenProcessPool
        A worker was killed, by lack of memory for instance.
    """
    runs = [tiles[start : start + RUN] for start in range(0, len(tiles), RUN)]
    workers = min(workers, len(runs))
    if workers > 1:
        yield from _in_processes(info, tiling, runs, workers)
    elif runs:
        source = SlideTiles(info, tiling)
        try:
            for tile in tiles:
                pixels = source.read(tile)
                yield pixels, crc32(pixels.data)
        finally:
            source.close()


def _in_processes(
    info: SlideInfo, tiling: Tiling, runs: Sequence[Sequence[Tile]], workers: int
) -> Iterator[tuple[Pixels, int]]:
    context = get_context("spawn")
    places = workers * RUNS_PER_WORKER
    # an unlinked file in /dev/shm, or in the temporary folder where that is too small: a kill leaves nothing
    memory = context.RawArray(ctypes.c_uint8, places * RUN * tiling.tile**2 * 3)
    ring = _as_ring(memory, tiling)
    waiting: deque[Future[list[int]]] = deque()
    with ProcessPoolExecutor(workers, context, _start, (info, tiling, memory)) as pool:
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


_info: SlideInfo
_tiling: Tiling
_ring: Pixels
_source: SlideTiles | None = None


def _start(info: SlideInfo, tiling: Tiling, memory: ctypes.Array[ctypes.c_uint8]) -> None:
    global _info, _tiling, _ring
    _info, _tiling, _ring = info, tiling, _as_ring(memory, tiling)
    _keep_freed_memory()
    end_with_parent()


def _keep_freed_memory() -> None:
    # glibc hands blocks of a tile's size back to the system when they are freed and takes them anew for the next
    # tile, page by page; kept, a tile from openslide takes 2 ms less (M_TRIM_THRESHOLD -1, M_MMAP_THRESHOLD -3)
    with contextlib.suppress(AttributeError, OSError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(-1, _KEPT)
        allocator.mallopt(-3, _KEPT // 4)


def _fill(place: int, tiles: Sequence[Tile]) -> list[int]:
    """Read `tiles` into a place of the ring; returns their CRC-32s."""
    global _source
    if _source is None:
        _source = SlideTiles(_info, _tiling)  # here and not in _start, whose errors the pool does not pass on
    checks = []
    for pixels, tile in zip(_ring[place], tiles):
        pixels[:] = _source.read(tile)
        checks.append(crc32(pixels.data))
    return checks
