"""Reading point learners: checkpoints of their own, or the part of one that holds more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gigaseg.devices import choose_device
from gigaseg.errors import CheckpointError, SegmenterError, one_line, unknown
from gigaseg.sam.backend import PRECISIONS
from gigaseg.sam.checkpoints import filled, part_of, read_checkpoint
from gigaseg.segmenters.cfrsam.config import PointsConfig
from gigaseg.segmenters.cfrsam.points import PointNet, build_points

PREFIX = "points."
"""Of the names of the net's tensors in a checkpoint that holds more than them."""

DEFAULT_THRESHOLD = 0.5
"""Least score of a point where a checkpoint's card names none."""


@dataclass(frozen=True)
class LoadedPoints:
    """A point learner on one device.

    Attributes
    ----------
    net : in evaluation mode.
    config : its sizes.
    card : the checkpoint's metadata.
    dtype : in which it computes, under autocast.
    """

    net: PointNet
    config: PointsConfig
    card: dict[str, Any]
    dtype: torch.dtype = torch.float32

    @property
    def threshold(self) -> float:
        """Least score of a point, 0..1, as the card has it."""
        return float(self.card.get("threshold", DEFAULT_THRESHOLD))

    @contextmanager
    def running(self) -> Iterator[None]:
        """No gradients, and the precision that it was opened with."""
        device = next(self.net.parameters()).device.type
        with torch.inference_mode(), torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
            yield


def open_points(checkpoint: str | Path, device: str = "cpu", precision: str = "auto") -> LoadedPoints:
    """Load a checkpoint of ``gigaseg train cfrsam-points``.

    Its card holds ``points`` (`PointsConfig.as_dict`), ``classes`` and ``threshold`` (which validation picked).

    Parameters
    ----------
    checkpoint : name or file (`gigaseg.sam.checkpoints.checkpoint_path`).
    device, precision : as `gigaseg.sam.backend.Backend.open`.

    Raises
    ------
    CheckpointError
        It is missing, damaged or another method's.
    DeviceError, SegmenterError
        The device is not there, the precision unknown, or the backbone needs a package that is missing.
    """
    if precision not in PRECISIONS:
        raise SegmenterError(unknown("precision", precision, PRECISIONS))
    place = torch.device(choose_device(device))
    path, state, card = read_checkpoint(checkpoint)
    try:
        net = points_from({PREFIX + name: tensor for name, tensor in state.items()}, card)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    dtype = PRECISIONS[precision] or (torch.float32 if place.type == "cpu" else torch.bfloat16)
    return LoadedPoints(net.to(place), net.config, card, dtype)


def points_from(state: Mapping[str, Tensor], card: Mapping[str, Any]) -> PointNet:
    """The net in the tensors of a checkpoint that are named `PREFIX`…, in float32 and evaluation mode, on the CPU.

    Raises CheckpointError when the card states none or another one than the tensors are of, or its threshold is none.
    """
    if "points" not in card:
        whose = f"of method '{card['method']}'" if "method" in card else "of a SAM model"
        raise CheckpointError(f"weights {one_line(whose)}, expected those that `gigaseg train cfrsam-points` writes")
    threshold = card.get("threshold", DEFAULT_THRESHOLD)
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise CheckpointError(f"threshold is {one_line(threshold)!r}, accepted: a number from 0 to 1")
    config = PointsConfig.from_dict(card["points"])
    with torch.device("meta"):
        net = build_points(config)
    return filled(net, part_of(state, PREFIX), f"a '{config.backbone}' point learner").eval()
