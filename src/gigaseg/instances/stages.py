"""The stages of a step that runs a segmenter: what is done to tiles, how long it takes, what is looked at before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gigaseg.instances.job import Job
from gigaseg.tiles.first_look import CONTRAST, is_blank
from gigaseg.tiles.tiling import Tile

if TYPE_CHECKING:
    from torch import Tensor

    from gigaseg.segmenters.base import Segmenter, TileBatch

Pixels = npt.NDArray[np.uint8]

STAGES = ("read", "model", "write")
"""Read: pixels and the first look at them; model: from there to masks in the host's memory; write: outlines, tables."""


@dataclass(frozen=True)
class Step:
    """What a step does with tiles; functions of a module, which can be sent to a process.

    Attributes
    ----------
    compute : what a segmenter finds on each tile of a batch, in the host's memory.
    write : makes a part of its tiles and what was found on each, None on a blank one; then what the segmenter says of
        itself (`gigaseg.instances.model.Model.told`), and the file.
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

    files: list[Path] = field(default_factory=list)
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


@dataclass(frozen=True)
class FirstLook:
    """Whether the model need be asked about a tile.

    Attributes
    ----------
    spared : (row, col) of the tiles about which it need not be when nothing stands out in them: those without prompts,
        for a segmenter that drops what hardly stands out (its option `min_contrast`), unless the user wants it asked.
    """

    spared: frozenset[tuple[int, int]]

    @classmethod
    def of(cls, job: Job) -> FirstLook:
        """Of the tiles of a job."""
        strict = job.metadata["options"].get("min_contrast", 0.0) >= CONTRAST
        if not (job.card.needs_gpu and strict and job.segmenter.skip_blank):
            return cls(frozenset())
        places = [(tile.row, tile.col) for tile in job.chosen]
        if job.prompts is not None:
            places = [place for place in places if not len(job.prompts.rows_of(*place))]
        return cls(frozenset(places))

    def __call__(self, tile: Tile, pixels: Pixels) -> bool:
        """Whether the model can be left out."""
        return (tile.row, tile.col) in self.spared and is_blank(pixels)


def as_images(pixels: Pixels) -> Tensor:
    """Pixels (..., y, x, 3) as (..., 3, y, x), the same memory."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3)
