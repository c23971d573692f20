"""What the steps that run a segmenter work on: the tiles of a shard, and the parts in which they are finished.

Each finished part lies in ``.parts/STEP-NNN/<digest>/PPPP.parquet`` until the shard's table is written; a killed run
goes on from there. Parts of another digest are discarded. A part is a run of tiles fixed by their index, however many
a model works on at a time.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigaseg import __version__
from gigaseg.config import SegmenterConfig
from gigaseg.devices import choose_device
from gigaseg.errors import FormatError
from gigaseg.files import digest as content_digest
from gigaseg.files import read_metadata, same_slide, sha256_file
from gigaseg.prompts.table import PromptTable
from gigaseg.sam.downloads import base_reference, checked_sha256, checkpoint_path, named_base
from gigaseg.segmenters.card import Card, read_card
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tile

if TYPE_CHECKING:
    from gigaseg.segmenters.base import Context
    from gigaseg.tiles.source import TileSource

log = logging.getLogger(__name__)

PART = 4
"""Tiles of a part: neighbours, which share what a reader keeps decoded; few, so that little is done again.
Another number needs another revision of the steps, since parts are known by their number alone."""


@dataclass(frozen=True)
class Job:
    """All that a worker process needs to do tiles of one shard.

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
    """Where the tiles of a shard are put aside, some at a time.

    Attributes
    ----------
    step : that makes them.
    folder : of this digest's parts.
    format : of their tables.
    tiles : of the shard, in order.
    """

    step: str
    folder: Path
    format: str
    tiles: list[Tile]

    @classmethod
    def beside(cls, out: Path, step: str, format: str, job: Job, side_files: Sequence[str | Path | None] = ()) -> Parts:
        """Those of the shard's table `out`; without a digest what the result depends on is hashed here."""
        state: list[Any] = [job.metadata, job.info.fingerprint, asdict(job.segmenter), job.object_diameter]
        state += [str(job.tiles), sorted(job.class_names.items()), [[tile.row, tile.col] for tile in job.chosen]]
        state += [sha256_file(path) if path and Path(path).is_file() else None for path in side_files]
        folder = out.parent.parent if out.parent.name in ("instances", "prompts") else out.parent
        digest = job.metadata["digest"] or content_digest(state)
        return cls(step, folder / ".parts" / f"{step}-{out.stem}" / digest, format, job.chosen)

    def __len__(self) -> int:
        return -(-len(self.tiles) // PART)

    def file(self, part: int) -> Path:
        """The table of a part."""
        return self.folder / f"{part:04d}.parquet"

    def of(self, part: int) -> list[Tile]:
        """The tiles of a part."""
        return self.tiles[part * PART : (part + 1) * PART]

    def missing(self) -> list[int]:
        """The parts that are to be made."""
        return [part for part in range(len(self)) if not self._is_finished(part)]

    def _is_finished(self, part: int) -> bool:
        """Whether a part is there; a damaged one (power loss, say) is made again."""
        if not self.file(part).exists():
            return False
        try:
            read_metadata(self.file(part), self.format)
        except FormatError as error:
            log.warning("making a part again: %s", error)
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


def device_of(job: Job) -> str:
    """Where the job's segmenter runs."""
    return choose_device(job.segmenter.device) if job.card.needs_gpu else "cpu"


def model_bytes(checkpoint: Path) -> int:
    """Size of a checkpoint, and of the one that it holds changes over."""
    base = named_base(checkpoint)
    whole = checkpoint_path(base_reference(checkpoint, base)).stat().st_size if base else 0
    return whole + checkpoint.stat().st_size


def open_source(job: Job) -> TileSource:
    """Where the pixels of the job's tiles come from: the store, or the slide."""
    from gigaseg.tiles.source import SlideTiles

    if job.tiles is None:
        return SlideTiles(job.info, job.grid.tiling)
    from gigaseg.tiles.store import StoredTiles

    store = StoredTiles(job.tiles)
    if store.slide != job.grid.slide or store.shard != job.shard or store.tiling != job.grid.tiling:
        raise FormatError(f"{job.tiles}: made for another slide, shard or grid; run tile again")
    return store
