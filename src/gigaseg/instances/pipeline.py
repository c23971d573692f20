"""A segmenter over the tiles of a shard: read, look, compute and write, at once and in bounded memory.

Where the CPU computes, several processes of one thread each do all stages for one part after another, which uses the
cores better than any exchange between them. Where one model computes for all, on a GPU or because it is too large to be
held several times, other processes read tiles ahead of it and write parts behind it. The result is the same.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gigaseg.instances.batches import Job, Parts, model_bytes, open_source
from gigaseg.processes import end_with_parent, keep_freed_memory
from gigaseg.tiles.first_look import is_blank
from gigaseg.tiles.pool import read_tiles
from gigaseg.tiles.tiling import Tile

if TYPE_CHECKING:
    from torch import Tensor

    from gigaseg.instances.model import Model
    from gigaseg.segmenters.base import Segmenter, TileBatch

log = logging.getLogger(__name__)

LARGE_MODEL = 256_000_000
"""Bytes of a checkpoint, with its base, above which it is loaded once and not once a process."""

_AHEAD = 2
"""Batches that wait for the model, and parts that wait for each process that writes them."""

STAGES = ("read", "model", "write")


@dataclass(frozen=True)
class Step:
    """What a step does with tiles; functions of a module, which can be sent to a process.

    Attributes
    ----------
    compute : what a segmenter finds on each tile of a batch, in the host's memory.
    write : makes a part of its tiles and what was found on each, None on a blank one; `told` is what the segmenter says
        of itself (`gigaseg.instances.model.Model.told`).
    """

    compute: Callable[[Job, Segmenter, TileBatch], Sequence[Any]]
    write: Callable[[Job, Sequence[Tile], Sequence[Any], Mapping[str, Any], Path], None]


@dataclass
class Ran:
    """What a run did.

    Attributes
    ----------
    files : the parts, in order.
    seconds : of each stage, of all processes together.
    blank : tiles on which the model was not asked.
    """

    files: list[Path]
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    blank: int = 0

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start

    def add(self, other: Ran) -> None:
        """Add what another process did."""
        for stage, seconds in other.seconds.items():
            self.seconds[stage] += seconds
        self.blank += other.blank


def run_parts(job: Job, step: Step, parts: Parts, workers: int) -> Ran:
    """Make the parts of a shard that are not there yet.

    Parameters
    ----------
    job, step, parts : what to do, with what, and where it goes.
    workers : processes of one thread each where the CPU computes; where one model computes for all, those that read and
        write for it, and its threads on a CPU. The result is the same for any number.
    """
    parts.discard_others()
    missing = parts.missing()
    ran = Ran([parts.file(part) for part in range(len(parts))])
    done = len(parts) - len(missing)
    if done:
        log.info("going on after %d of %d parts", done, len(parts))
    start = time.perf_counter()
    for part in _run(job, step, parts, missing, workers, ran):
        done += 1
        log.info("part %d finished, %d of %d", part, done, len(parts))
    if missing:
        told = ", ".join(f"{stage} {ran.seconds[stage]:.1f} s" for stage in STAGES)
        log.info("%s; %.1f s by the clock; %d blank tiles", told, time.perf_counter() - start, ran.blank)
    return ran


def _run(job: Job, step: Step, parts: Parts, missing: list[int], workers: int, ran: Ran) -> Iterator[int]:
    """Make parts; their numbers as they are finished, in order."""
    if not missing:
        return
    if _one_model(job):
        yield from _around_one_model(job, step, parts, missing, workers, ran)
        return
    workers = min(workers, len(missing))
    if workers > 1:
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(job, step, parts)) as pool:
            for part, did in zip(missing, pool.map(_make, missing)):
                ran.add(did)
                yield part
        return
    import torch

    torch.set_num_threads(1)
    worker = _Worker(job, step, parts)
    for part in missing:
        ran.add(worker.make(part))
        yield part


def _one_model(job: Job) -> bool:
    """Whether one model computes for all; on a CPU several processes gain more than several threads do."""
    return job.device != "cpu" or (job.checkpoint is not None and model_bytes(job.checkpoint) > LARGE_MODEL)


class _Worker:
    """All stages in one process; the segmenter and the source of tiles are opened once."""

    def __init__(self, job: Job, step: Step, parts: Parts) -> None:
        from gigaseg.instances.model import Model

        self._job, self._step, self._parts = job, step, parts
        self._model = Model(job, step.compute)
        self._source = open_source(job)
        self._note = partial(_look, _looks(job))

    def make(self, part: int) -> Ran:
        """Make one part."""
        did = Ran([])
        found: list[Any] = []
        tiles = self._parts.of(part)
        for tile in tiles:
            with did.clock("read"):
                pixels = self._source.read(tile)
                blank = self._note(pixels) and _may_be_skipped(self._job, tile)
            did.blank += blank
            with did.clock("model"):
                found += [None] if blank else self._model([tile], _tensor(pixels[None]))
        with did.clock("write"):
            self._step.write(self._job, tiles, found, self._model.told, self._parts.file(part))
        return did


_worker: _Worker | None = None
_task: tuple[Job, Step, Parts]


def _start(*task: Any) -> None:
    global _task
    import torch

    _task = task
    end_with_parent()
    keep_freed_memory()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)


def _make(part: int) -> Ran:
    global _worker
    if _worker is None:
        _worker = _Worker(*_task)  # here and not in _start, whose errors the pool does not pass on
    return _worker.make(part)


def _around_one_model(job: Job, step: Step, parts: Parts, missing: list[int], workers: int, ran: Ran) -> Iterator[int]:
    """Read ahead of the model and write behind it, each in half of the workers; with one, both here in turn."""
    from gigaseg.instances.model import Model

    if job.device == "cpu":
        import torch

        torch.set_num_threads(workers)
    model = Model(job, step.compute)
    half = workers // 2
    writers = ProcessPoolExecutor(half, get_context("spawn"), initializer=_start_writer) if half else None
    write = partial(_write, step.write, job)
    waiting: deque[tuple[int, Future[float]]] = deque()
    found: list[Any] = []
    left = deque(missing)

    def finished(part: int, future: Future[float]) -> int:
        ran.seconds["write"] += future.result()
        return part

    try:
        for tiles, blank, images in _batches(
            job, model, [tile for part in missing for tile in parts.of(part)], half, ran
        ):
            with ran.clock("model"):
                of_images = iter(model([tile for tile, skip in zip(tiles, blank) if not skip], images))
                found += [None if skip else next(of_images) for skip in blank]
            ran.blank += sum(blank)
            while left and len(found) >= len(parts.of(left[0])):
                part = left.popleft()
                mine = parts.of(part)
                task = (mine, found[: len(mine)], dict(model.told), parts.file(part))
                found = found[len(mine) :]
                if writers is None:
                    ran.seconds["write"] += write(*task)
                    yield part
                else:
                    waiting.append((part, writers.submit(write, *task)))
            while len(waiting) > _AHEAD * half:
                yield finished(*waiting.popleft())
        while waiting:
            yield finished(*waiting.popleft())
    finally:
        if writers is not None:
            writers.shutdown(cancel_futures=True)


def _start_writer() -> None:
    end_with_parent()
    logging.basicConfig(level=logging.WARNING)


def _write(write: Callable[..., None], job: Job, *task: Any) -> float:
    """Make a part; returns the seconds that it took."""
    start = time.perf_counter()
    write(job, *task)
    return time.perf_counter() - start


_Batch = tuple[list[Tile], list[bool], "Tensor"]


def _batches(job: Job, model: Model, tiles: Sequence[Tile], readers: int, ran: Ran) -> Iterator[_Batch]:
    """The tiles in batches, read ahead by a thread: tiles, which of them are blank, and the pixels of the others.

    The time for which the model waited counts as read.
    """
    ready: queue.Queue[_Batch | BaseException | None] = queue.Queue(_AHEAD)
    over = threading.Event()

    def put(item: _Batch | BaseException | None) -> None:
        while not over.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def feed() -> None:
        try:
            for batch in _read(job, model, tiles, max(1, readers)):
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


def _read(job: Job, model: Model, tiles: Sequence[Tile], readers: int) -> Iterator[_Batch]:
    some: list[Tile] = []
    blank: list[bool] = []
    images = model.buffer()
    filled = 0
    note = partial(_look, _looks(job))
    pixels_of = read_tiles(partial(open_source, job), job.grid.tiling, tiles, readers, note)
    for tile, (pixels, nothing) in zip(tiles, pixels_of):
        some.append(tile)
        blank.append(nothing and _may_be_skipped(job, tile))
        if not blank[-1]:
            images[filled] = _tensor(pixels)
            filled += 1
        if filled == len(images):
            yield some, blank, images
            some, blank, images, filled = [], [], model.buffer(), 0
    if some:
        yield some, blank, images[:filled]


def _tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """(..., y, x, 3) as (..., 3, y, x), the same memory."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3)


def _looks(job: Job) -> bool:
    return job.card.needs_gpu and job.segmenter.skip_blank


def _look(wanted: bool, pixels: npt.NDArray[np.uint8]) -> bool:
    return wanted and is_blank(pixels)


def _may_be_skipped(job: Job, tile: Tile) -> bool:
    """Where prompts say that there is something the model looks, whatever the pixels."""
    return job.prompts is None or not len(job.prompts.rows_of(tile.row, tile.col))
