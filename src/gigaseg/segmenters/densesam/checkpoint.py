"""Reading DenseSAM's checkpoints: injection, token and heads, stored as changes over a checkpoint of SAM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gigaseg.errors import CheckpointError, one_line
from gigaseg.sam.backend import Backend
from gigaseg.sam.checkpoints import filled, part_of, read_checkpoint
from gigaseg.sam.config import SamConfig, infer_config
from gigaseg.sam.model import from_state
from gigaseg.segmenters.densesam.config import DenseSamConfig
from gigaseg.segmenters.densesam.model import DENSE, Dense

DEFAULT_CHECKPOINT = "densesam-v1"
"""Name of the checkpoint that ships with the package."""


@dataclass(frozen=True)
class Loaded:
    """A DenseSAM model on one device.

    Attributes
    ----------
    backend : the SAM model.
    dense : what is added, in evaluation mode.
    config : of what is added.
    card : the checkpoint's metadata.
    """

    backend: Backend
    dense: Dense
    config: DenseSamConfig
    card: dict[str, Any]


def open_densesam(
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    input_size: int | None = None,
    precision: str = "auto",
    compile: bool = False,
) -> Loaded:
    """Load a checkpoint of ``gigaseg train densesam``.

    Parameters
    ----------
    checkpoint : name or file (`gigaseg.sam.checkpoints.checkpoint_path`); None for the one that ships.
    device, input_size, precision, compile : as `gigaseg.sam.backend.Backend.open`.

    Raises
    ------
    CheckpointError
        It is missing, damaged or another method's, or its base is not there.
    DeviceError, SegmenterError
        As `gigaseg.sam.backend.Backend.open`.
    """
    path, state, card = read_checkpoint(checkpoint or DEFAULT_CHECKPOINT)
    try:
        if "densesam" not in card:
            whose = f"of method '{card['method']}'" if "method" in card else "of a SAM model"
            raise CheckpointError(f"weights {one_line(whose)}, expected those that `gigaseg train densesam` writes")
        config = DenseSamConfig.from_dict(card["densesam"])
        rest = {name: tensor for name, tensor in state.items() if not name.startswith(DENSE)}
        sam = SamConfig.from_dict(card["config"]) if "config" in card else infer_config(rest)
        config.check_fit(len(sam.global_blocks))
        with torch.device("meta"):
            dense = Dense(config, sam)
        dense = filled(dense, part_of(state, DENSE), "DenseSAM's part").eval()
        model = from_state(rest, sam)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    backend = Backend.from_model(model, sam, card, device, input_size, precision, compile)
    return Loaded(backend, dense.to(backend.device), config, card)
