"""A segmenter over the tiles of a shard: read, look, compute and write, at once and in bounded memory.

Where the CPU computes, several processes of one thread each do all stages for one part after another, which uses the
cores better than any exchange between them. Where one model computes for all, on a GPU or because it is too large to be
held several times, other processes work around it (`gigaseg.instances.one_model`). The result is the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from gigaseg.instances.job import Job, Parts, model_bytes, open_source
from gigaseg.instances.one_model import around_one_model
from gigaseg.instances.stages import STAGES, FirstLook, Ran, Step, as_images
from gigaseg.processes import end_with_parent, keep_freed_memory
from gigaseg.progress import Progress

log = logging.getLogger(__name__)

LARGE_MODEL = 256_000_000
"""Bytes of a checkpoint, with its base, above which it is loaded once and not once a process."""


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
    if len(missing) < len(parts):
        log.info("going on after %d of %d parts", len(parts) - len(missing), len(parts))
    start = time.perf_counter()
    done = len(parts.tiles) - sum(len(parts.of(part)) for part in missing)
    with Progress(parts.step, "tiles", len(parts.tiles) if missing else 0, done=done) as progress:
        for part in _run(job, step, parts, missing, workers, ran):
            progress.add(len(parts.of(part)))
    if missing:
        told = ", ".join(f"{stage} {ran.seconds[stage]:.1f} s" for stage in STAGES)
        log.info("%s; %.1f s by the clock; %d blank tiles", told, time.perf_counter() - start, ran.blank)
    return ran


def _run(job: Job, step: Step, parts: Parts, missing: list[int], workers: int, ran: Ran) -> Iterator[int]:
    """Make parts; their numbers as they are finished, in order."""
    if not missing:
        return
    if _one_model(job):
        yield from around_one_model(job, step, parts, missing, workers, ran)
    elif workers > 1 and len(missing) > 1:
        context = get_context("spawn")
        with ProcessPoolExecutor(
            min(workers, len(missing)), context, initializer=_start, initargs=(job, step, parts)
        ) as pool:
            for part, did in zip(missing, pool.map(_make, missing)):
                ran.add(did)
                yield part
    else:
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
        self._source = open_source(job)  # first: a damaged one is told before a model is loaded
        self._model = Model(job, step.compute)
        self._look = FirstLook.of(job)

    def make(self, part: int) -> Ran:
        """Make one part."""
        did = Ran()
        found: list[Any] = []
        tiles = self._parts.of(part)
        for tile in tiles:
            with did.clock("read"):
                pixels = self._source.read(tile)
                blank = self._look(tile, pixels)
            did.blank += blank
            with did.clock("model"):
                found += [None] if blank else self._model([tile], as_images(pixels[None]))
        with did.clock("write"):
            self._step.write(self._job, tiles, found, self._model.told, self._parts.file(part))
        return did


_task: tuple[Job, Step, Parts]
_worker: _Worker | None = None


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
