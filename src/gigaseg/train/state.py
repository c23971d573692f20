"""The state of a run: what an exact resume needs, written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.files import atomic

FORMAT = "gigaseg/training/2"


class Average:
    """Exponential moving average of a model's parameters and buffers.

    The decay is min(decay, (1 + step) / (10 + step)), so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimiser step `step` (1, 2, ...)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        names, current = [], model.state_dict()
        for name, value in self.values.items():
            if value.is_floating_point():
                names.append(name)
            else:
                value.copy_(current[name])
        torch._foreach_lerp_([self.values[n] for n in names], [current[n] for n in names], 1 - decay)


@dataclass
class Progress:
    """Where a run stands.

    Attributes
    ----------
    step : optimiser steps done.
    seconds : time spent in them, over all starts.
    best, best_step : the best validation score, and after which step it was.
    stale : validations since then.
    stopped : whether the run ended early.
    figures : of the best validation.
    sums : what was logged since the last row of the log.
    """

    step: int = 0
    seconds: float = 0.0
    best: float = float("-inf")
    best_step: int = 0
    stale: int = 0
    stopped: bool = False
    figures: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)


def write_state(
    path: Path,
    digest: str,
    progress: Progress,
    model: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    average: dict[str, Tensor] | None,
) -> None:
    """Write everything that decides how the run goes on. The random numbers follow from the step's number."""
    content = {
        "format": FORMAT,
        "digest": digest,
        "progress": vars(progress),
        "model": model.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        "average": average,
    }
    with atomic(path) as temporary:
        torch.save(content, temporary)


def read_state(path: Path, digest: str) -> dict[str, Any]:
    """Read what `write_state` wrote.

    Raises
    ------
    FormatError
        The file is damaged, or was made with another configuration.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read as a training state ({one_line(error)[:200]})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError(f"{path}: no training state; expected {FORMAT}")
    if content["digest"] != digest:
        raise FormatError(
            f"{path}: made with another configuration or data set ({content['digest']}, now {digest}); "
            "resume with the same options, or train into another folder"
        )
    return content
