"""Batches of crops: which image and which random numbers belong to a step follows from the step's number alone.

So nothing about the data needs to be saved for an exact resume, any number of threads gives the same batches, and N
processes share one global batch the way a distributed sampler would.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gigaseg.train.crops import Crop
from gigaseg.train.data import Sample

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Crops of one size and their objects, flat.

    Attributes
    ----------
    images : (b, 3, s, s) float32, 0..255.
    labels : (b, s, s) int32.
    image : (n,) int64, the crop of each object, ascending.
    ids, boxes, centres, inside, classes : as in `Crop`, one row an object.
    """

    images: Tensor
    labels: Tensor
    image: Tensor
    ids: Tensor
    boxes: Tensor
    centres: Tensor
    inside: Tensor
    classes: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def __getitem__(self, rows: Tensor) -> Batch:
        """The same crops with some of the objects, by ascending positions."""
        names = ("image", "ids", "boxes", "centres", "inside", "classes")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def collate(crops: Sequence[Crop], objects: int, rng: np.random.Generator) -> Batch:
    """Join crops; of each at most `objects` objects are kept, at random."""
    crops = [c[torch.from_numpy(np.sort(rng.permutation(len(c.ids))[:objects]))] for c in crops]
    image = [torch.full((len(c.ids),), i, dtype=torch.int64) for i, c in enumerate(crops)]
    return Batch(
        torch.stack([c.image for c in crops]),
        torch.stack([c.labels for c in crops]),
        torch.cat(image),
        *(torch.cat([getattr(c, name) for c in crops]) for name in ("ids", "boxes", "centres", "inside", "classes")),
    )


def weights(samples: Sequence[Sample], balance: float) -> np.ndarray:
    """Chance of each sample, summing to 1: a group of n images has the share n^(1 - balance).

    0 takes images as they are, 1 makes groups equally frequent.
    """
    count = Counter(sample.group for sample in samples)
    chance = np.array([count[sample.group] ** -balance for sample in samples])
    return np.asarray(chance / chance.sum())


def epoch_order(chance: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Indices of one epoch, shuffled: each sample floor(n·chance) or ceil(n·chance) times (systematic resampling)."""
    rng = np.random.default_rng([seed, 1, epoch])
    n = len(chance)
    picked = np.searchsorted(np.cumsum(chance), (np.arange(n) + rng.random()) / n).clip(max=n - 1)
    return rng.permutation(picked)


@dataclass(frozen=True)
class Feed:
    """Where batches come from.

    Attributes
    ----------
    samples : the training images.
    prepare : (sample, rng) -> item, run in threads.
    collate : (items, rng) -> batch.
    batch : items of a batch of one process.
    rank, world : this process and their number.
    """

    samples: Sequence[Sample]
    prepare: Callable[[Sample, np.random.Generator], Crop]
    collate: Callable[[Sequence[Crop], np.random.Generator], Batch]
    batch: int
    seed: int
    balance: float = 0.0
    rank: int = 0
    world: int = 1

    def at(self, number: int, pool: ThreadPoolExecutor | None = None) -> Callable[[], Batch]:
        """Start making batch `number` (0, 1, ...) of this process; the call of what is returned waits for it."""
        chance = weights(self.samples, self.balance)
        first = (number * self.world + self.rank) * self.batch
        jobs: list[Callable[[], Crop]] = []
        for position in range(first, first + self.batch):
            epoch, offset = divmod(position, len(self.samples))
            sample = self.samples[epoch_order(chance, self.seed, epoch)[offset]]
            rng = np.random.default_rng([self.seed, 2, position])
            jobs.append(_start(pool, self.prepare, sample, rng))
        last = np.random.default_rng([self.seed, 3, first])
        return lambda: self.collate([job() for job in jobs], last)

    def batches(self, start: int, workers: int = 0, ahead: int = 2) -> Generator[Batch]:
        """Batches from number `start` on, endlessly; `workers` threads make the next `ahead` ones meanwhile."""
        if workers == 0:
            while True:
                yield self.at(start)()
                start += 1
        with ThreadPoolExecutor(workers) as pool:
            queue = deque(self.at(start + i, pool) for i in range(ahead))
            start += ahead
            while True:
                made = queue.popleft()()
                queue.append(self.at(start, pool))
                start += 1
                yield made


def _start(
    pool: ThreadPoolExecutor | None, call: Callable[[Sample, np.random.Generator], T], *args: object
) -> Callable[[], T]:
    if pool is None:
        return lambda: call(*args)  # type: ignore[arg-type]
    future: Future[T] = pool.submit(call, *args)  # type: ignore[arg-type]
    return future.result
