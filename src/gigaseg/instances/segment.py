"""The segment step: the tiles of a shard in, its instance table out, batch by batch and resumable.

Each finished batch lies in ``.parts/segment-NNN/<digest>/BBBB.parquet`` until the shard's table is written; a killed
run goes on from there. Parts of another digest are discarded. Batches are fixed by tile index and the last one is
padded, so that the same batch always holds the same tiles.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gigaseg import __version__
from gigaseg.config import SegmenterConfig
from gigaseg.devices import choose_device
from gigaseg.errors import FormatError, SegmenterError
from gigaseg.files import digest as content_digest
from gigaseg.files import read_metadata, same_slide, sha256_file
from gigaseg.instances.table import INSTANCES_FORMAT, Instances, read_instances
from gigaseg.processes import end_with_parent
from gigaseg.prompts.counts import FATES, of_file, of_slide, total
from gigaseg.prompts.table import PromptTable
from gigaseg.sam.downloads import base_reference, checked_sha256, checkpoint_path, named_base
from gigaseg.segmenters.card import Card, read_card
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tile, Tiling

if TYPE_CHECKING:
    from gigaseg.segmenters.base import Segmenter
    from gigaseg.tiles.source import TileSource

log = logging.getLogger(__name__)

_LARGE_MODEL = 256_000_000
"""Bytes of a checkpoint, with its base, above which it is loaded once and not once a process."""


@dataclass(frozen=True)
class Job:
    """All that a worker process needs to segment batches of one shard."""

    info: SlideInfo
    grid: Grid
    shard: int
    tiles: Path | None
    segmenter: SegmenterConfig
    annotations: Path | None
    checkpoint: Path | None
    prompts: PromptTable | None
    chosen: list[Tile]
    object_diameter: float | None
    parts: Path
    device: str
    metadata: dict[str, Any]


def segment(
    info: str | Path,
    grid: str | Path,
    shard: int,
    out: str | Path,
    *,
    segmenter: SegmenterConfig,
    tiles: str | Path | None = None,
    annotations: str | Path | None = None,
    prompts: str | Path | None = None,
    object_diameter: float | None = None,
    workers: int = 1,
    digest: str = "",
) -> int:
    """Segment the tiles of a shard.

    Parameters
    ----------
    info, grid : slide.json and grid.parquet.
    shard : number of the shard.
    out : the instance table to write.
    segmenter : which one, and how.
    tiles : tile store of the shard; None: read from the slide.
    annotations : polygons for the segmenter that takes them.
    prompts : prompts.parquet, for a segmenter that needs prompts, which looks only at tiles that have some, or takes
        points as hints, which looks at all.
    object_diameter : typical object diameter in the slide's unit, where the preset states one.
    workers : processes of one thread each where the CPU computes; the result is the same for any number. A model too
        large to be held several times gets one process with so many threads.
    digest : of the step; unfinished work of another digest is discarded.

    Returns
    -------
    Number of instances.

    Raises
    ------
    UserError
        The segmenter is unknown, its options or side files are wrong, or an input is damaged. A CheckpointError when
        weights are missing or not the ones of their name, a DeviceError when the device is not there.
    """
    slide_info, kept = SlideInfo.read(info), Grid.read(grid)
    same_slide(slide_info.slide, kept.slide, grid)
    card = read_card(segmenter.name)
    wanted = segmenter.checkpoint or card.checkpoint
    checkpoint = checkpoint_path(wanted) if wanted else None
    prompted, told = _read_prompts(prompts, card, slide_info, kept)
    options = card.complete(segmenter.options)
    metadata: dict[str, Any] = {
        "slide": slide_info.slide,
        "segmenter": card.name,
        "revision": card.revision,
        "options": options,
        "overlaps": segmenter.overlaps or card.overlaps,
        "checkpoint": checked_sha256(wanted, checkpoint) if wanted and checkpoint else None,
        "outlines": card.outlines,
        "version": __version__,
        "digest": digest,
        "shard": shard,
        "grid": kept.tiling.to_dict(),
    }
    if prompted is not None:
        metadata["prompts"] = {**(total([]) if card.needs_prompts else {}), "file": told}
    chosen = kept.tiles(shard)
    if prompted is not None and card.needs_prompts:
        chosen = [tile for tile in chosen if len(prompted.rows_of(tile.row, tile.col))]
    target = Path(out)
    if not chosen:
        Instances.empty(card.classes).write(target, metadata)
        return 0
    state = [metadata, slide_info.fingerprint, asdict(segmenter), object_diameter, str(tiles)]
    state += [sha256_file(path) if path and Path(path).is_file() else None for path in (annotations, prompts)]
    folder = target.parent.parent if target.parent.name == "instances" else target.parent
    parts = folder / ".parts" / f"segment-{target.stem}" / (digest or content_digest(state))
    _discard_others(parts)
    job = Job(
        info=slide_info,
        grid=kept,
        shard=shard,
        tiles=Path(tiles) if tiles else None,
        segmenter=segmenter,
        annotations=Path(annotations) if annotations else None,
        checkpoint=checkpoint,
        prompts=prompted,
        chosen=chosen,
        object_diameter=object_diameter,
        parts=parts,
        device=choose_device(segmenter.device) if card.needs_gpu else "cpu",
        metadata=metadata,
    )
    batches = -(-len(chosen) // segmenter.batch_size)
    missing = [batch for batch in range(batches) if not _is_finished(_part(parts, batch))]
    if len(missing) < batches:
        log.info("going on after %d of %d batches", batches - len(missing), batches)
    for done, batch in enumerate(_run(job, missing, _processes(job, workers)), batches - len(missing) + 1):
        log.info("batch %d finished, %d of %d", batch, done, batches)
    found = [read_instances(_part(parts, batch), stitched=False) for batch in range(batches)]
    instances = Instances.concat([rows for rows, _ in found])
    if prompted is not None:
        metadata["prompts"] = of_slide(batch_metadata for _, batch_metadata in found)
    instances.write(target, metadata)
    shutil.rmtree(parts.parent, ignore_errors=True)
    with suppress(OSError):  # other shards may still be at work
        parts.parent.parent.rmdir()
    log.info("slide '%s' shard %d: %d instances in %d tiles", slide_info.slide, shard, len(instances), len(chosen))
    if prompted is not None and card.needs_prompts:
        _log_prompts(metadata["prompts"])
    return len(instances)


def _read_prompts(
    path: str | Path | None, card: Card, info: SlideInfo, kept: Grid
) -> tuple[PromptTable | None, dict[str, int]]:
    """The prompts, where the segmenter needs or takes some, and what the prompt step counted."""
    if not (card.needs_prompts or (card.takes_points and path is not None)):
        return None, {}
    if path is None:
        raise SegmenterError(f"segmenter '{card.name}' needs prompts; give prompts.parquet, which `prompt` writes")
    table, metadata = PromptTable.read(path)
    same_slide(info.slide, metadata["slide"], path)
    if Tiling.from_dict(metadata["grid"]) != kept.tiling:
        raise FormatError(f"{path}: made for another grid; run prompt again")
    if metadata.get("every_tile", False) != card.takes_points:
        way = "with" if card.takes_points else "without"
        raise FormatError(f"{path}: segmenter '{card.name}' takes prompts made {way} --every-tile; run prompt again")
    return table, of_file(metadata.get("found", {}))


def _log_prompts(counts: dict[str, Any]) -> None:
    lost = [f"{counts[name]} {what}" for name, what in FATES.items() if name not in ("objects", "instances")]
    level = logging.INFO if counts["instances"] == counts["objects"] else logging.WARNING
    log.log(level, "%d of %d objects have an instance; %s", counts["instances"], counts["objects"], ", ".join(lost))


def _part(parts: Path, batch: int) -> Path:
    return parts / f"{batch:04d}.parquet"


def _is_finished(part: Path) -> bool:
    """Whether a batch has its part; a damaged one (power loss, say) is done again."""
    if not part.exists():
        return False
    try:
        read_metadata(part, INSTANCES_FORMAT)
    except FormatError as error:
        log.warning("doing a batch again: %s", error)
        return False
    return True


def _discard_others(parts: Path) -> None:
    if parts.parent.is_dir():
        for other in parts.parent.iterdir():
            if other.name != parts.name:
                log.info("discarding unfinished work of digest %s", other.name)
                shutil.rmtree(other, ignore_errors=True)


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


def _run(job: Job, batches: list[int], workers: int) -> Iterator[int]:
    """Segment the batches, in order of completion of their predecessors."""
    workers = min(workers, len(batches))
    if workers <= 1:
        worker = _Worker(job)
        for batch in batches:
            worker.run(batch)
            yield batch
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start, initargs=(job,)) as pool:
        yield from pool.map(_run_one, batches)


class _Worker:
    """A segmenter and its source of tiles, opened once."""

    def __init__(self, job: Job) -> None:
        from gigaseg.segmenters.base import Context
        from gigaseg.segmenters.registry import load_segmenter

        card = read_card(job.segmenter.name)
        context = Context(
            info=job.info,
            tiling=job.grid.tiling,
            device=job.device,
            annotations=job.annotations,
            checkpoint=job.checkpoint,
            classes=job.prompts.classes if job.prompts and card.needs_prompts else (),
            object_diameter=job.object_diameter,
            options=card.complete(job.segmenter.options),
        )
        self._job = job
        self._tiles = job.chosen
        self._segmenter: Segmenter = load_segmenter(card.name, context)
        self._source = _open_source(job)

    def run(self, batch: int) -> None:
        """Segment one batch and write its part."""
        import torch

        from gigaseg.instances.prompts import tile_prompts
        from gigaseg.instances.tile import tile_rows
        from gigaseg.segmenters.base import NO_PROMPTS, TileBatch

        size = self._job.segmenter.batch_size
        tiles = self._tiles[batch * size : (batch + 1) * size]
        images = np.stack([self._source.read(tile) for tile in tiles])
        prompts = [tile_prompts(self._job.prompts, tile) for tile in tiles] if self._job.prompts is not None else []
        if self._job.device != "cpu" or read_card(self._job.segmenter.name).needs_gpu:
            padding = size - len(tiles)
            images = np.concatenate([images, np.repeat(images[-1:], padding, axis=0)])
            tiles = tiles + tiles[-1:] * padding
            prompts += [NO_PROMPTS] * padding if prompts else []
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2).to(self._job.device)
        found = self._segmenter.segment(TileBatch(images=tensor, tiles=tiles, prompts=prompts))
        exclusive = self._job.metadata["overlaps"] == "exclusive"
        classes = self._segmenter.card.classes
        tiling = self._job.grid.tiling
        real = self._tiles[batch * size : (batch + 1) * size]
        counts = Counter(objects=sum(len(p.id) for p in prompts))
        rows = [
            tile_rows(instances, tile, tiling, classes, exclusive=exclusive, counts=counts)
            for tile, instances in zip(real, found)
        ]
        metadata = self._job.metadata
        if "objects" in metadata.get("prompts", {}):
            metadata = {**metadata, "prompts": {**metadata["prompts"], **counts}}
        Instances.concat(rows).write(_part(self._job.parts, batch), metadata)


def _open_source(job: Job) -> TileSource:
    from gigaseg.tiles.source import SlideTiles

    if job.tiles is None:
        return SlideTiles(job.info, job.grid.tiling)
    from gigaseg.tiles.store import StoredTiles

    store = StoredTiles(job.tiles)
    if store.slide != job.grid.slide or store.shard != job.shard or store.tiling != job.grid.tiling:
        raise FormatError(f"{job.tiles}: made for another slide, shard or grid; run tile again")
    return store


_job: Job
_worker: _Worker | None = None


def _start(job: Job) -> None:
    global _job
    import torch

    _job = job
    end_with_parent()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)


def _run_one(batch: int) -> int:
    global _worker
    if _worker is None:
        _worker = _Worker(_job)  # here and not in _start, whose errors the pool does not pass on
    _worker.run(batch)
    return batch
