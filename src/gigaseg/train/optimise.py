"""The optimisers of a run: AdamW, or Muon for the matrices of hidden layers with AdamW for all the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gigaseg.train.config import LoopConfig


def optimisers(groups: Sequence[dict[str, Any]], config: LoopConfig) -> list[torch.optim.Optimizer]:
    """The optimisers that share a method's parameter groups; each step takes one of all.

    Muon orthogonalises the momentum of a matrix (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon), scaled
    so that its updates are as large as AdamW's (Liu et al. 2025, arXiv 2502.16982, eq. 4): one rate serves both. It
    takes the two-dimensional parameters that decay; tables of positions and tokens, convolutions, norms and biases
    stay with AdamW.

    Parameters
    ----------
    groups : as AdamW takes them; ``scale`` multiplies the learning rate (default 1).
    """
    plain: list[dict[str, Any]] = []
    matrices: list[dict[str, Any]] = []
    for group in groups:
        group = {"scale": 1.0, **group}
        decay = group.get("weight_decay", config.decay)
        parameters = list(group["params"])
        own = [p for p in parameters if config.optimiser == "muon" and decay and p.ndim == 2]
        taken = {id(p) for p in own}
        plain.append({**group, "params": [p for p in parameters if id(p) not in taken]})
        if own:
            matrices.append({**group, "params": own, "weight_decay": decay})
    plain = [group for group in plain if group["params"]]
    found: list[torch.optim.Optimizer] = []
    if plain:
        betas = (0.9, config.beta2)
        found.append(torch.optim.AdamW(plain, lr=config.rate, betas=betas, weight_decay=config.decay, fused=True))
    if matrices:
        found.append(torch.optim.Muon(matrices, lr=config.rate, adjust_lr_fn="match_rms_adamw"))
    return found
