"""Reading CFR-SAM's checkpoints: a point learner, and what is added to SAM, as changes over a checkpoint of SAM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from gigaseg.devices import choose_device
from gigaseg.errors import CheckpointError, SegmenterError, one_line, unknown
from gigaseg.sam.backend import PRECISIONS, Backend
from gigaseg.sam.checkpoints import checkpoint_path, filled, part_of, read_checkpoint, read_state
from gigaseg.sam.config import SamConfig, infer_config
from gigaseg.sam.downloads import checked_sha256
from gigaseg.sam.model import from_state
from gigaseg.segmenters.cfrsam.config import CfrSamConfig
from gigaseg.segmenters.cfrsam.model import ADDED, Added
from gigaseg.segmenters.cfrsam.points_checkpoint import PREFIX as POINTS
from gigaseg.segmenters.cfrsam.points_checkpoint import LoadedPoints, points_from

DEFAULT_CHECKPOINT = "cfrsam-v1"
"""Name of the checkpoint that ships with the package."""


@dataclass(frozen=True)
class Adapted:
    """The second stage on one device.

    Attributes
    ----------
    backend : the SAM model.
    added : what is added to it, in evaluation mode.
    """

    backend: Backend
    added: Added


@dataclass(frozen=True)
class Loaded:
    """A CFR-SAM model on one device.

    Attributes
    ----------
    points : its point learner.
    config : of what is added to SAM.
    card : the checkpoint's metadata.
    opened : reads the second stage.
    """

    points: LoadedPoints
    config: CfrSamConfig
    card: dict[str, Any]
    opened: Callable[[], Adapted]

    @cached_property
    def adapted(self) -> Adapted:
        """The second stage, read when it is first asked for: to propose points, nobody needs it."""
        return self.opened()


def open_cfrsam(
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    input_size: int | None = None,
    precision: str = "auto",
    compile: bool = False,
) -> Loaded:
    """Load a checkpoint of ``gigaseg train cfrsam``.

    Parameters
    ----------
    checkpoint : name or file (`gigaseg.sam.checkpoints.checkpoint_path`); None for the one that ships.
    device, input_size, precision, compile : as `gigaseg.sam.backend.Backend.open`.

    Raises
    ------
    CheckpointError
        It is missing, damaged or another method's, holds no point learner, or its base is not there.
    DeviceError, SegmenterError
        As `gigaseg.sam.backend.Backend.open`.
    """
    name = checkpoint or DEFAULT_CHECKPOINT
    path = checkpoint_path(name)
    checked_sha256(name, path)
    state, card = read_state(path)
    if precision not in PRECISIONS:
        raise SegmenterError(unknown("precision", precision, PRECISIONS))
    place = torch.device(choose_device(device))
    try:
        config = _config(card)
        if "points" not in card:
            raise CheckpointError("has no point learner, expected one that was trained with --points")
        net = points_from(state, card)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    dtype = PRECISIONS[precision] or (torch.float32 if place.type == "cpu" else torch.bfloat16)
    points = LoadedPoints(net.to(place), net.config, card, dtype)
    return Loaded(points, config, card, lambda: open_adapted(name, device, input_size, precision, compile))


def open_adapted(
    checkpoint: str | Path,
    device: str = "cpu",
    input_size: int | None = None,
    precision: str = "auto",
    compile: bool = False,
) -> Adapted:
    """Load the second stage of a checkpoint; parameters and errors as `open_cfrsam`, a point learner is not needed."""
    path, state, card = read_checkpoint(checkpoint)
    try:
        config = _config(card)
        rest = {name: tensor for name, tensor in state.items() if not name.startswith((ADDED, POINTS))}
        sam = SamConfig.from_dict(card["config"]) if "config" in card else infer_config(rest)
        with torch.device("meta"):
            added = Added(config, sam)
        added = filled(added, part_of(state, ADDED), "CFR-SAM's part").eval()
        model = from_state(rest, sam)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    backend = Backend.from_model(model, sam, card, device, input_size, precision, compile)
    return Adapted(backend, added.to(backend.device))


def _config(card: dict[str, Any]) -> CfrSamConfig:
    if "cfrsam" not in card:
        whose = f"of method '{card['method']}'" if "method" in card else "of a SAM model"
        raise CheckpointError(f"weights {one_line(whose)}, expected those that `gigaseg train cfrsam` writes")
    return CfrSamConfig.from_dict(card["cfrsam"])
