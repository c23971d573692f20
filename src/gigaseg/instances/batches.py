"""Work on the tiles of a shard, batch by batch and resumable: what the steps that run a segmenter share.

Each finished batch lies in ``.parts/STEP-NNN/<digest>/BBBB.parquet`` until the shard's table is written; a killed run
goes on from there. Parts of another digest are discarded. Batches are fixed by tile index and the last one is padded,
so that the same batch always holds the same tiles.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gigaseg import __version__
from gigaseg.config import SegmenterConfig
from gigaseg.devices import choose_device
from gigaseg.errors import FormatError
from gigaseg.files import digest as content_digest
from gigaseg.files import read_metadata, same_slide, sha256_file
from gigaseg.instances.classes import ClassTable
from gigaseg.processes import end_with_parent
from gigaseg.prompts.table import PromptTable
from gigaseg.sam.downloads import base_reference, checked_sha256, checkpoint_path, named_base
from gigaseg.segmenters.card import Card, read_card
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tile

if TYPE_CHECKING:
    from gigaseg.segmenters.base import Context, Segmenter, TileBatch
    from gigaseg.tiles.source import TileSource

log = logging.getLogger(__name__)

_LARGE_MODEL = 256_000_000
"""Bytes of a checkpoint, with its base, above which it is loaded once and not once a process."""

Work = Callable[["Job", "Segmenter", "TileBatch", int, Path], None]
"""Does one batch, of which the first so many tiles are no padding, and writes its part; a function of a module."""


@dataclass(frozen=True)
class Job:
    """All that a worker process needs to do batches of one shard.

    Attributes
    ----------
    info, grid, shard : the slide, its kept tiles and the shard's number.
    segmenter, card, checkpoint : the segmenter, and the file of its weights.
    metadata : of the table to write: slide, segmenter, grid, digest.
    tiles : tile store, or None to read the slide.
    annotations, exemplar, prompts, object_diameter : what else the segmenter gets.
    chosen : the tiles to look at, in order.
    class_names : names of classes of the segmenter and the ones they get, where these differ.
    device : where the segmenter runs, as torch names it.
    """

    info: SlideInfo
    grid: Grid
    shard: int
    segmenter: SegmenterConfig
    card: Card
    checkpoint: Path | None
    metadata: dict[str, Any]
    chosen: list[Tile]
    tiles: Path | None = None
    annotations: Path | None = None
    exemplar: Path | None = None
    prompts: PromptTable | None = None
    object_diameter: float | None = None
    class_names: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"

    @classmethod
    def open(
        cls, info: str | Path, grid: str | Path, shard: int, segmenter: SegmenterConfig, digest: str, **more: Any
    ) -> Job:
        """Read the inputs that every step has; `more`: further attributes."""
        slide_info, kept = SlideInfo.read(info), Grid.read(grid)
        same_slide(slide_info.slide, kept.slide, grid)
        card = read_card(segmenter.name)
        wanted = segmenter.checkpoint or card.checkpoint
        checkpoint = checkpoint_path(wanted) if wanted else None
        metadata: dict[str, Any] = {
            "slide": slide_info.slide,
            "segmenter": card.name,
            "revision": card.revision,
            "options": card.complete(segmenter.options),
            "checkpoint": checked_sha256(wanted, checkpoint) if wanted and checkpoint else None,
            "version": __version__,
            "digest": digest,
            "shard": shard,
            "grid": kept.tiling.to_dict(),
        }
        chosen = kept.tiles(shard)
        return cls(slide_info, kept, shard, segmenter, card, checkpoint, metadata, chosen, **more)

    @property
    def context(self) -> Context:
        """What the segmenter gets to know of the slide."""
        from gigaseg.segmenters.base import Context

        return Context(
            info=self.info,
            tiling=self.grid.tiling,
            device=self.device,
            annotations=self.annotations,
            exemplar=self.exemplar,
            checkpoint=self.checkpoint,
            classes=self.prompts.classes if self.prompts and self.card.needs_prompts else (),
            object_diameter=self.object_diameter,
            options=self.metadata["options"],
        )


@dataclass(frozen=True)
class Parts:
    """Where the batches of a shard are put aside.

    Attributes
    ----------
    folder : of this digest's parts.
    format : of their tables.
    """

    folder: Path
    format: str

    @classmethod
    def beside(cls, out: Path, step: str, format: str, job: Job, side_files: Sequence[str | Path | None] = ()) -> Parts:
        """Those of the shard's table `out`; without a digest what the result depends on is hashed here."""
        state: list[Any] = [job.metadata, job.info.fingerprint, asdict(job.segmenter), job.object_diameter]
        state += [str(job.tiles), sorted(job.class_names.items()), [[tile.row, tile.col] for tile in job.chosen]]
        state += [sha256_file(path) if path and Path(path).is_file() else None for path in side_files]
        folder = out.parent.parent if out.parent.name in ("instances", "prompts") else out.parent
        return cls(folder / ".parts" / f"{step}-{out.stem}" / (job.metadata["digest"] or content_digest(state)), format)

    def file(self, batch: int) -> Path:
        """The part of a batch."""
        return self.folder / f"{batch:04d}.parquet"

    def is_finished(self, batch: int) -> bool:
        """Whether a batch has its part; a damaged one (power loss, say) is done again."""
        if not self.file(batch).exists():
            return False
        try:
            read_metadata(self.file(batch), self.format)
        except FormatError as error:
            log.warning("doing a batch again: %s", error)
            return False
        return True

    def discard_others(self) -> None:
        """Remove unfinished work of other digests."""
        if self.folder.parent.is_dir():
            for other in self.folder.parent.iterdir():
                if other.name != self.folder.name:
                    log.info("discarding unfinished work of digest %s", other.name)
                    shutil.rmtree(other, ignore_errors=True)

    def remove(self) -> None:
        """Remove the parts, once the shard's table is written."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        with suppress(OSError):  # other shards may still be at work
            self.folder.parent.parent.rmdir()


def run_batches(job: Job, work: Work, parts: Parts, workers: int) -> list[Path]:
    """Do the batches of a shard that have no part yet.

    Parameters
    ----------
    job : its `device` is chosen by the segmenter's configuration.
    work : what to do.
    parts : where the batches go.
    workers : processes of one thread each where the CPU computes; the result is the same for any number. A model too
        large to be held several times gets one process with so many threads.

    Returns
    -------
    The parts of all batches, in order.
    """
    parts.discard_others()
    batches = -(-len(job.chosen) // job.segmenter.batch_size)
    missing = [batch for batch in range(batches) if not parts.is_finished(batch)]
    if len(missing) < batches:
        log.info("going on after %d of %d batches", batches - len(missing), batches)
    done = batches - len(missing)
    for batch in _run(job, work, parts, missing, _processes(job, workers)):
        done += 1
        log.info("batch %d finished, %d of %d", batch, done, batches)
    return [parts.file(batch) for batch in range(batches)]


def device_of(job: Job) -> str:
    """Where the job's segmenter runs."""
    return choose_device(job.segmenter.device) if job.card.needs_gpu else "cpu"


def _processes(job: Job, workers: int) -> int:
    """How many processes share the batches: on a CPU they gain more than threads do."""
    if job.device != "cpu":
        return 1
    large = job.checkpoint is not None and model_bytes(job.checkpoint) > _LARGE_MODEL
    import torch

    torch.set_num_threads(workers if large else 1)  # also where there turns out to be work for one process only
    return 1 if large else workers


def model_bytes(checkpoint: Path) -> int:
    """Size of a checkpoint, and of the one that it holds changes over."""
    base = named_base(checkpoint)
    whole = checkpoint_path(base_reference(checkpoint, base)).stat().st_size if base else 0
    return whole + checkpoint.stat().st_size


def _run(job: Job, work: Work, parts: Parts, batches: list[int], workers: int) -> Iterator[int]:
    """Do the batches, in order of completion of their predecessors."""
    workers = min(workers, len(batches))
    if workers <= 1:
        worker = _Worker(job, work, parts)
        for batch in batches:
            worker.run(batch)
            yield batch
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start, initargs=(job, work, parts)) as pool:
        yield from pool.map(_run_one, batches)


class _Worker:
    """A segmenter and its source of tiles, opened once."""

    def __init__(self, job: Job, work: Work, parts: Parts) -> None:
        from gigaseg.segmenters.registry import load_segmenter

        self._job, self._work, self._parts = job, work, parts
        self._segmenter: Segmenter = load_segmenter(job.card.name, job.context)
        self._source = _open_source(job)
        ClassTable(self._segmenter.card.classes, job.class_names).check(job.card.name)

    def run(self, batch: int) -> None:
        """Do one batch."""
        import torch

        from gigaseg.segmenters.base import TileBatch

        size = self._job.segmenter.batch_size
        tiles = self._job.chosen[batch * size : (batch + 1) * size]
        images = np.stack([self._source.read(tile) for tile in tiles])
        real = len(tiles)
        if self._job.device != "cpu" or self._job.card.needs_gpu:
            padding = size - real
            images = np.concatenate([images, np.repeat(images[-1:], padding, axis=0)])
            tiles = tiles + tiles[-1:] * padding
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2).to(self._job.device)
        found = TileBatch(images=tensor, tiles=tiles)
        self._work(self._job, self._segmenter, found, real, self._parts.file(batch))


def _open_source(job: Job) -> TileSource:
    from gigaseg.tiles.source import SlideTiles

    if job.tiles is None:
        return SlideTiles(job.info, job.grid.tiling)
    from gigaseg.tiles.store import StoredTiles

    store = StoredTiles(job.tiles)
    if store.slide != job.grid.slide or store.shard != job.shard or store.tiling != job.grid.tiling:
        raise FormatError(f"{job.tiles}: made for another slide, shard or grid; run tile again")
    return store


_task: tuple[Job, Work, Parts]
_worker: _Worker | None = None


def _start(*task: Any) -> None:
    global _task
    import torch

    _task = task
    end_with_parent()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)


def _run_one(batch: int) -> int:
    global _worker
    if _worker is None:
        _worker = _Worker(*_task)  # here and not in _start, whose errors the pool does not pass on
    _worker.run(batch)
    return batch
