"""One model computes for all: other processes read tiles ahead of it and write parts behind it, in bounded queues."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from gigaseg.instances.job import Job, Parts, open_source
from gigaseg.instances.stages import FirstLook, Pixels, Ran, Step, as_images
from gigaseg.processes import end_with_parent
from gigaseg.tiles.first_look import is_blank
from gigaseg.tiles.pool import read_tiles
from gigaseg.tiles.tiling import Tile

if TYPE_CHECKING:
    from torch import Tensor

    from gigaseg.instances.model import Model

_AHEAD = 2
"""Batches that wait for the model, and parts that wait for each process that writes them."""


def around_one_model(
    job: Job, step: Step, parts: Parts, missing: Sequence[int], workers: int, ran: Ran
) -> Iterator[int]:
    """Make parts; their numbers as they are finished, in order.

    Parameters
    ----------
    workers : half of them read, half write; one does both here, in turn. On a CPU the model has so many threads.
    ran : told what was done; the time for which the model waited for pixels counts as read.
    """
    from gigaseg.instances.model import Model

    if job.device == "cpu":
        import torch

        torch.set_num_threads(workers)
    open_source(job).close()  # a damaged one is told before a model is loaded
    model = Model(job, step.compute)
    tiles = [tile for part in missing for tile in parts.of(part)]
    found: list[Any] = []
    left = deque(missing)
    with _Writers(job, step, workers // 2, ran) as writers:
        with closing(_batches(job, model, tiles, max(1, workers // 2), ran)) as batches:
            for some, blank, images in batches:
                with ran.clock("model"):
                    of_images = iter(model([tile for tile, skip in zip(some, blank) if not skip], images))
                    found += [None if skip else next(of_images) for skip in blank]
                ran.blank += sum(blank)
                while left and len(found) >= len(parts.of(left[0])):
                    part = left.popleft()
                    mine = parts.of(part)
                    writers.take(part, mine, found[: len(mine)], dict(model.told), parts.file(part))
                    found = found[len(mine) :]
                yield from writers.finished(_AHEAD)
        yield from writers.finished(0)


class _Writers:
    """Processes that write parts; with none, they are written here."""

    def __init__(self, job: Job, step: Step, processes: int, ran: Ran) -> None:
        self._task = (step.write, replace(job, prompts=None))  # which may be many, and are not looked at any more
        self._processes, self._ran = processes, ran
        self._waiting: deque[tuple[int, Future[float]]] = deque()
        context = get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, context, _start_writer, self._task) if processes else None

    def __enter__(self) -> _Writers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def take(self, part: int, *task: Any) -> None:
        """Write a part, or let it be written."""
        if self._pool is not None:
            self._waiting.append((part, self._pool.submit(_write, *task)))
            return
        written: Future[float] = Future()
        written.set_result(_timed(*self._task, *task))
        self._waiting.append((part, written))

    def finished(self, ahead: int) -> Iterator[int]:
        """Parts, in order, as they are finished, until only `ahead` a process are left."""
        while len(self._waiting) > ahead * self._processes:
            part, written = self._waiting.popleft()
            self._ran.seconds["write"] += written.result()
            yield part


_writing: tuple[Any, ...]


def _start_writer(*task: Any) -> None:
    global _writing
    _writing = task
    end_with_parent()
    logging.basicConfig(level=logging.WARNING)


def _write(*task: Any) -> float:
    return _timed(*_writing, *task)


def _timed(write: Callable[..., None], *task: Any) -> float:
    """Write a part; returns the seconds that it took."""
    start = time.perf_counter()
    write(*task)
    return time.perf_counter() - start


_Batch = tuple[list[Tile], list[bool], "Tensor"]
"""Tiles in order, which of them are blank, and the pixels of the others."""


def _batches(job: Job, model: Model, tiles: Sequence[Tile], readers: int, ran: Ran) -> Generator[_Batch, None, None]:
    """The tiles in batches for the model, filled ahead by a thread."""
    ready: queue.Queue[_Batch | BaseException | None] = queue.Queue(_AHEAD)
    over = threading.Event()

    def put(item: _Batch | BaseException | None) -> None:
        while not over.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def feed() -> None:
        try:
            with closing(_read(job, model, tiles, readers)) as batches:
                for batch in batches:
                    put(batch)
                    if over.is_set():
                        return
            put(None)
        except BaseException as error:  # raised where the batch is asked for
            put(error)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        while True:
            with ran.clock("read"):
                batch = ready.get()
            if batch is None:
                return
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        over.set()
        thread.join()


def _read(job: Job, model: Model, tiles: Sequence[Tile], readers: int) -> Generator[_Batch, None, None]:
    """Fill batches of as many tiles that are not blank as the model takes; the last one has what is left."""
    some: list[Tile] = []
    blank: list[bool] = []
    images = model.buffer()
    filled = 0
    look = FirstLook.of(job)
    opener = partial(open_source, job)
    pixels_of = read_tiles(opener, job.grid.tiling, tiles, readers, is_blank if look.spared else _no)
    with closing(pixels_of):
        for tile, (pixels, nothing) in zip(tiles, pixels_of):
            some.append(tile)
            blank.append(nothing and (tile.row, tile.col) in look.spared)
            if not blank[-1]:
                images[filled] = as_images(pixels)
                filled += 1
            if filled == len(images):
                yield some, blank, images
                some, blank, images, filled = [], [], model.buffer(), 0
        if some:
            yield some, blank, images[:filled]


def _no(pixels: Pixels) -> bool:
    return False
