"""Reading SAC's checkpoints: LoRA, U-Net and a mask decoder, stored as changes over a checkpoint of SAM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gigaseg.errors import CheckpointError, one_line
from gigaseg.sam.adapters import Adapter
from gigaseg.sam.backend import Backend
from gigaseg.sam.checkpoints import filled, part_of, read_checkpoint
from gigaseg.sam.config import SamConfig, infer_config
from gigaseg.sam.model import from_state
from gigaseg.segmenters.sac.config import SacConfig
from gigaseg.segmenters.sac.model import LORA, UNET, build_lora, build_unet
from gigaseg.segmenters.sac.unet import UNet

DEFAULT_CHECKPOINT = "sac-v1"
"""Name of the checkpoint that ships with the package."""


@dataclass(frozen=True)
class Loaded:
    """A SAC model on one device.

    Attributes
    ----------
    backend : the SAM model.
    unet : in evaluation mode.
    config : of both.
    card : the checkpoint's metadata.
    adapter : of the encoder, for a model in training; None where it is merged, as in what `open_sac` reads.
    """

    backend: Backend
    unet: UNet
    config: SacConfig
    card: dict[str, Any]
    adapter: Adapter | None = None


def open_sac(
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    input_size: int | None = None,
    precision: str = "auto",
    compile: bool = False,
) -> Loaded:
    """Load a checkpoint of ``gigaseg train sac``; its LoRA is merged into the encoder.

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
        if "sac" not in card:
            whose = f"of method '{card['method']}'" if "method" in card else "of a SAM model"
            raise CheckpointError(f"weights {one_line(whose)}, expected those that `gigaseg train sac` writes")
        config = SacConfig.from_dict(card["sac"])
        rest = {name: tensor for name, tensor in state.items() if not name.startswith((LORA, UNET))}
        sam = SamConfig.from_dict(card["config"]) if "config" in card else infer_config(rest)
        config.check_fit(sam.patch)
        with torch.device("meta"):
            unet, lora = build_unet(config), build_lora(config, sam)
        unet = filled(unet, part_of(state, UNET), "the U-Net").eval()
        model = from_state(rest, sam)
        if lora is not None:
            # from_state takes tensors over as they are: nothing else holds them
            filled(lora, part_of(state, LORA), "the LoRA").merge(model.image_encoder)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    backend = Backend.from_model(model, sam, card, device, input_size, precision, compile)
    return Loaded(backend, unet.to(backend.device), config, card)
