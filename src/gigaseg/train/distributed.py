"""Several processes on one run: a thin layer over torch.distributed, inert without torchrun."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """One process among those that torchrun started (which tells by WORLD_SIZE, RANK and LOCAL_RANK)."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls, device: str) -> Group:
        """Join the processes of torchrun; alone without it. "auto" takes a GPU where there is one."""
        world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        gpu = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
        if gpu:
            own = int(os.environ.get("LOCAL_RANK", "0"))
            place = torch.device(device if ":" in device else f"cuda:{own}")
            torch.cuda.set_device(place)
        else:
            place = torch.device("cpu")
        if world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if gpu else "gloo")
        return cls(rank, world, place)

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module` with gradients averaged over the processes."""
        if self.world == 1:
            return module
        # which outputs a step trains is drawn, so some parameters have no gradient
        return DistributedDataParallel(module, find_unused_parameters=True, broadcast_buffers=False)

    def together(self, module: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Context of a backward pass: gradients are exchanged in the last one of a step only."""
        if isinstance(module, DistributedDataParallel) and not last:
            return module.no_sync()
        return nullcontext()

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean of scalars over the processes."""
        if self.world == 1:
            return dict(values)
        names = sorted(values)
        joined = torch.stack([values[name].float() for name in names])
        dist.all_reduce(joined)
        return dict(zip(names, joined / self.world))

    def longest(self, seconds: float) -> float:
        """The largest of the processes' times, so that all follow one schedule."""
        if self.world == 1:
            return seconds
        value = torch.tensor(seconds, dtype=torch.float64, device=self.device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return float(value)

    def share(self, value: T) -> T:
        """The first process's `value`, in all of them."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def leave(self) -> None:
        """End the exchange."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()
