"""The SAM checkpoint that a method trains over, and checkpoints of the method to go on from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from gigaseg.errors import CheckpointError
from gigaseg.files import sha256_file
from gigaseg.sam.checkpoints import checkpoint_path, read_checkpoint
from gigaseg.sam.config import SamConfig, infer_config


@dataclass(frozen=True)
class Base:
    """A whole checkpoint of SAM.

    Attributes
    ----------
    name : or file.
    config : sizes of the model.
    card : its metadata; empty for published ones.
    """

    name: str
    config: SamConfig
    card: dict[str, Any]

    @classmethod
    def open(cls, name: str) -> Base:
        """Read its card; raises CheckpointError when it is missing, damaged, or itself one of changes."""
        path, state, card = read_checkpoint(name)
        if "base" in card:
            raise CheckpointError(f"{path}: holds changes over another one; expected a whole checkpoint")
        config = SamConfig.from_dict(card["config"]) if "config" in card else infer_config(state)
        return cls(name, config, card)

    @cached_property
    def sha256(self) -> str:
        """Of its file."""
        return sha256_file(checkpoint_path(self.name))

    def started(self, start: str) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
        """File, all tensors and card of a checkpoint over this one; raises CheckpointError when it is over another."""
        path, state, card = read_checkpoint(start)
        if card.get("sam_sha256") != self.sha256:
            raise CheckpointError(f"{path}: holds no changes of this method over {self.name}; accepted: one that does")
        return path, state, card
