"""Reading CenterSAM's checkpoints: a detector, and a SAM model, stored as changes over a checkpoint of the latter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gigaseg.errors import CheckpointError, one_line
from gigaseg.sam.backend import Backend
from gigaseg.sam.checkpoints import fitted, read_checkpoint
from gigaseg.sam.config import SamConfig, infer_config
from gigaseg.sam.model import from_state
from gigaseg.segmenters.centersam.blocks import fuse
from gigaseg.segmenters.centersam.detector import Detector, DetectorConfig, build_detector

DEFAULT_CHECKPOINT = "centersam-v2"
"""Name of the checkpoint that ships with the package."""

PREFIX = "detector."
"""Of the names of the detector's tensors in a checkpoint; all others are SAM's, by their official names."""

DEFAULT_THRESHOLD = 0.3
"""Least score of an object where a checkpoint's card names none."""


@dataclass(frozen=True)
class Loaded:
    """A detector and the SAM model that it prompts, on one device.

    Attributes
    ----------
    backend : the SAM model.
    detector : in evaluation mode; for inference alone where `open_centersam` gives it.
    card : the checkpoint's metadata.
    """

    backend: Backend
    detector: Detector
    card: dict[str, Any]

    @property
    def threshold(self) -> float:
        """Least score of an object, 0..1, as the card has it."""
        return float(self.card.get("threshold", DEFAULT_THRESHOLD))


def open_centersam(
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    input_size: int | None = None,
    precision: str = "auto",
    compile: bool = False,
) -> Loaded:
    """Load a checkpoint of ``gigaseg train centersam``.

    Its card holds ``detector`` (`DetectorConfig.as_dict`), ``threshold`` (the score that validation picked), the
    ``base`` that it was trained over.

    Parameters
    ----------
    checkpoint : name or file (`gigaseg.sam.checkpoints.checkpoint_path`); None for the one that ships.
    device, input_size, precision, compile : as `gigaseg.sam.backend.Backend.open`.

    Raises
    ------
    CheckpointError
        It is missing, damaged or another method's, its base is not there, or its detector is for another SAM.
    DeviceError, SegmenterError
        As `gigaseg.sam.backend.Backend.open`.
    """
    path, state, card = read_checkpoint(checkpoint or DEFAULT_CHECKPOINT)
    try:
        if "detector" not in card:
            whose = f"of method '{card['method']}'" if "method" in card else "of a SAM model"
            raise CheckpointError(f"weights {one_line(whose)}, expected those that `gigaseg train centersam` writes")
        threshold = card.get("threshold", DEFAULT_THRESHOLD)
        if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise CheckpointError(f"threshold is {one_line(threshold)!r}, accepted: a number from 0 to 1")
        detector = detector_from_state(
            {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)},
            DetectorConfig.from_dict(card["detector"]),
        )
        rest = {name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)}
        config = SamConfig.from_dict(card["config"]) if "config" in card else infer_config(rest)
        check_fit(detector.config, config)
        model = from_state(rest, config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    backend = Backend.from_model(model, config, card, device, input_size, precision, compile)
    detector = detector.to(backend.device)
    if backend.device.type == "cpu" and detector.config.kind == "light":
        # a fifth less time; its layers see the channels last
        fuse(detector)
        detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Loaded(backend, detector, card)


def check_fit(detector: DetectorConfig, sam: SamConfig) -> None:
    """Raise CheckpointError when a detector on the embedding is for another SAM's."""
    wanted, given = (detector.embedding, detector.patch), (sam.prompt_dim, sam.patch)
    if detector.kind == "light" and wanted != given:
        raise CheckpointError(
            f"its detector is for embeddings of {wanted[0]} channels and patches of {wanted[1]} px, but "
            f"'{sam.name}' has {given[0]} and {given[1]}"
        )


def detector_from_state(state: Mapping[str, Tensor], config: DetectorConfig) -> Detector:
    """A detector with exactly these tensors, in float32 and evaluation mode.

    Raises
    ------
    CheckpointError
        They do not fit `config`, are no plain values, or are not finite.
    """
    with torch.device("meta"):
        detector = build_detector(config)
    tensors = fitted(state, detector.state_dict(), f"a '{config.kind}' detector")
    detector.load_state_dict(tensors, assign=True)  # nothing is initialised in vain
    return detector.eval()
