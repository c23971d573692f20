"""Reading PerSense's checkpoints: a density regressor beside a checkpoint of SAM, or SAM alone."""

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
from gigaseg.segmenters.persense.config import DensityConfig
from gigaseg.segmenters.persense.density_net import DENSITY, DensityNet

DEFAULT_CHECKPOINT = "persense-v1"
"""Name of the checkpoint that ships with the package."""


@dataclass(frozen=True)
class Loaded:
    """A SAM model and a density regressor on one device.

    Attributes
    ----------
    backend : the SAM model.
    density : the regressor in evaluation mode; None: the checkpoint is one of SAM alone.
    config : of the regressor.
    card : the checkpoint's metadata.
    """

    backend: Backend
    density: DensityNet | None
    config: DensityConfig | None
    card: dict[str, Any]


def open_persense(
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    input_size: int | None = None,
    precision: str = "auto",
    compile: bool = False,
) -> Loaded:
    """Load a checkpoint of ``gigaseg train persense``, or one of SAM, which has no regressor.

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
        config = net = None
        if "persense" in card:
            config = DensityConfig.from_dict(card["persense"])
            with torch.device("meta"):
                net = DensityNet(config)
            net = filled(net, part_of(state, DENSITY), "the density regressor").eval()
            state = {name: tensor for name, tensor in state.items() if not name.startswith(DENSITY)}
        elif card.get("method", "sam") != "sam":
            raise CheckpointError(
                f"weights of method '{one_line(card['method'])}', expected those that `gigaseg train persense` "
                "writes, or those of a SAM model"
            )
        sam = SamConfig.from_dict(card["config"]) if "config" in card else infer_config(state)
        model = from_state(state, sam)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    backend = Backend.from_model(model, sam, card, device, input_size, precision, compile)
    return Loaded(backend, None if net is None else net.to(backend.device), config, card)
