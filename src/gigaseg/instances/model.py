"""The segmenter of a shard on its device: batches of a size that its memory takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gigaseg.instances.classes import ClassTable
from gigaseg.instances.job import Job
from gigaseg.segmenters.base import Segmenter, TileBatch
from gigaseg.segmenters.registry import load_segmenter

if TYPE_CHECKING:
    from gigaseg.tiles.tiling import Tile

log = logging.getLogger(__name__)

LARGEST = 64
"""Most tiles of a batch whose size is chosen here; more gain nothing on any card."""

_TRIAL = 4
"""Tiles of the batch by which what a tile needs is told from what all share."""

_SHARE = 0.5
"""Share of the free memory that a batch may take by what one tile took: others hold more objects."""


class Model:
    """Computes what a step wants of tiles; a batch too large for the memory is halved, and so are those after it.

    Attributes
    ----------
    size : tiles that are computed at a time: 1 on a CPU, where a tile fills the core.
    told : what the segmenter says of itself, for the metadata of results: its `classes`, its `back_ends` where it has
        some, and `batch_halved_to` where memory ended.

    Raises
    ------
    UserError
        The segmenter cannot be loaded, or has none of the classes that were given names.
    """

    def __init__(self, job: Job, compute: Callable[[Job, Segmenter, TileBatch], Sequence[Any]]) -> None:
        self._job, self._compute = job, compute
        self._segmenter: Segmenter = load_segmenter(job.card.name, job.context)
        ClassTable(self._segmenter.card.classes, job.class_names).check(job.card.name)
        self.told: dict[str, Any] = {}
        self._tell()
        self.size: int | None = 1 if job.device == "cpu" else job.segmenter.batch_size

    def buffer(self) -> Tensor:
        """Memory of the host for the pixels of a batch, from which a GPU copies by itself: (size, 3, y, x) uint8."""
        side = self._job.grid.tiling.tile
        pinned = self._job.device != "cpu"
        return torch.empty((self.size or 1, side, side, 3), dtype=torch.uint8, pin_memory=pinned).movedim(-1, 1)

    def __call__(self, tiles: Sequence[Tile], images: Tensor) -> list[Any]:
        """What the step wants of each tile.

        Parameters
        ----------
        images : (n, 3, y, x) uint8, on any device.

        Raises
        ------
        torch.OutOfMemoryError, MemoryError
            The memory does not even take one tile.
        """
        if not tiles:
            return []
        images = images.to(self._job.device, non_blocking=True)
        if self.size is None:
            self.size = self._fitting(tiles, images)
        found: list[Any] = []
        while len(found) < len(tiles):
            some = slice(len(found), len(found) + self.size)
            try:
                found += self._compute(self._job, self._segmenter, TileBatch(images[some], list(tiles[some])))
            except (MemoryError, RuntimeError) as error:
                self._halve(error)
        self._tell()
        return found

    def _tell(self) -> None:
        self.told["classes"] = self._segmenter.card.classes
        if back_ends := getattr(self._segmenter, "back_ends", None):
            self.told["back_ends"] = back_ends

    def _halve(self, error: Exception) -> None:
        if self.size is None or self.size == 1 or not is_out_of_memory(error):
            raise error
        self.size = -(-self.size // 2)
        self.told["batch_halved_to"] = self.size
        log.warning("out of memory; going on with batches of %d tiles", self.size)

    def _fitting(self, tiles: Sequence[Tile], images: Tensor) -> int:
        """The size of batches on a GPU, by what the first tile needs of its memory, alone and several times."""
        device = self._job.device
        before = torch.cuda.memory_allocated(device)
        peaks = []
        for n in (1, 1, _TRIAL):  # the first one warms up
            torch.cuda.reset_peak_memory_stats(device)
            batch = TileBatch(images[:1].expand(n, -1, -1, -1), list(tiles[:1]) * n)
            try:
                self._compute(self._job, self._segmenter, batch)
            except (MemoryError, RuntimeError) as error:
                if n == 1 or not is_out_of_memory(error):
                    raise
                return 2
            peaks.append(torch.cuda.max_memory_allocated(device) - before)
        torch.cuda.empty_cache()
        size = fitting(torch.cuda.mem_get_info(device)[0], *peaks[1:])
        log.info("%d tiles a batch", size)
        return size


def fitting(free: int, one: int, several: int) -> int:
    """Tiles of a batch, a power of two up to `LARGEST`.

    Parameters
    ----------
    free : memory, bytes.
    one, several : what batches of one and of `_TRIAL` tiles took at most, bytes. Where what a tile adds hides below
        what all share, a quarter of the first is taken for it.
    """
    a_tile = max((several - one) // (_TRIAL - 1), one // 4, 1)
    return 1 << max(0, min(int(_SHARE * free / a_tile), LARGEST).bit_length() - 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ended, on a GPU, in one of its libraries, or on the host."""
    texts = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(text in str(error) for text in texts)
