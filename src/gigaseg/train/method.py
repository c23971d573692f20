"""What a method hands to the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from gigaseg.train.batches import Batch
from gigaseg.train.crops import Crop
from gigaseg.train.data import Sample


class Method(Protocol):
    """A trainable method: its model, what it makes of an image, its losses and its figure of merit.

    Attributes
    ----------
    name : of the method.
    base : checkpoint by name or file that its own stores changes over; None: a checkpoint is whole.
    drops : shares of the run, 0..1, at which the learning rate falls to a tenth, instead of half a cosine.
    """

    name: str

    @property
    def base(self) -> str | None: ...  # noqa: D102

    @property
    def drops(self) -> tuple[float, ...]: ...  # noqa: D102

    def build(self) -> nn.Module:
        """The model, initialised, on the CPU. The loop seeds the generator before."""
        ...

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups as AdamW takes them; a group's ``scale`` multiplies the learning rate (default 1)."""
        ...

    def prepare(self, sample: Sample, rng: np.random.Generator) -> Crop:
        """One training item of an image; runs in threads, all randomness from `rng`."""
        ...

    def collate(self, items: Sequence[Crop], rng: np.random.Generator) -> Batch:
        """Items to a batch."""
        ...

    def losses(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """Scalars; ``loss`` is minimised, the others are logged. Runs under autocast."""
        ...

    def validate(self, model: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """Figures on the validation split; ``score`` decides which weights are the best ones (higher is better)."""
        ...

    def exported(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What of the model's state belongs into the checkpoint."""
        ...

    def card(self) -> dict[str, Any]:
        """What the checkpoint's metadata says about the method.

        Where ``classes`` are several, every object of the images must have one of them.
        """
        ...
