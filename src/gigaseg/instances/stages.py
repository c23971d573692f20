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

from gigaseg.instances.batches import Job
from gigaseg.tiles.first_look import is_blank
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
    """Looks at pixels where they are read; can be sent to a process.

    Attributes
    ----------
    wanted : whether it looks at all: where there is a model to spare, unless the user wants it asked.
    """

    wanted: bool

    @classmethod
    def of(cls, job: Job) -> FirstLook:
        """The one of a job."""
        return cls(job.card.needs_gpu and job.segmenter.skip_blank)

    def __call__(self, pixels: Pixels) -> bool:
        """Whether a tile is blank."""
        return self.wanted and is_blank(pixels)


def may_be_skipped(job: Job, tile: Tile) -> bool:
    """Whether the model need not be asked about a blank tile: where there are prompts it is, whatever the pixels."""
    return job.prompts is None or not len(job.prompts.rows_of(tile.row, tile.col))


def as_images(pixels: Pixels) -> Tensor:
    """Pixels (..., y, x, 3) as (..., 3, y, x), the same memory."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3)
