"""Losses of CFR-SAM's second stage (paper eq. 15 and 16), as its published code has them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.train.losses import dice, focal

_LEAST_AREA = 100
"""Px as which a smaller object counts where each does."""


@dataclass(frozen=True)
class Weights:
    """Of the parts of `mask_losses`, and of the boundaries'."""

    focal: float = 20.0
    dice: float = 1.0
    quality: float = 1.0
    boundary: float = 0.01


def mask_losses(logits: Tensor, truth: Tensor, quality: Tensor, *, each: bool = False) -> dict[str, Tensor]:
    """Losses of the masks of n prompts.

    Parameters
    ----------
    logits, truth : (n, y, x), the truth 0 or 1.
    quality : (n,) predicted IoU.
    each : ours: every object counts the same.

    Returns
    -------
    focal : gamma 2, no class weight, mean over all pixels of all prompts; with `each` a mask's sum over twice its area.
    dice : 1 minus one ratio for all prompts together, in which a small object hardly counts; with `each` the mean.
    quality : mean squared error against the soft IoU of the mask, through which a gradient goes too.
    """
    probability = logits.sigmoid()
    shared, sums = (probability * truth), probability.sum() + truth.sum()
    inside = shared.flatten(1).sum(1)
    union = probability.flatten(1).sum(1) + truth.flatten(1).sum(1) - inside
    area = truth.flatten(1).sum(1).clamp(min=_LEAST_AREA)
    spread = 2 * focal(logits, truth, alpha=0.5) * (truth[0].numel() / (2 * area) if each else 1)
    return {
        "focal": spread.mean(),
        "dice": dice(logits, truth).mean() if each else 1 - 2 * shared.sum() / (sums + 1e-7),
        "quality": (quality - inside / (union + 1e-7)).square().mean(),
    }


def inner_boundary(masks: Tensor) -> Tensor:
    """Pixels of each mask whose 3 x 3 surroundings it does not fill: (n, y, x) bool to the same.

    The published code takes the Sobel magnitude of the union of all objects and cuts it to whole numbers, which leaves
    a quarter of such pixels and no boundary between objects that touch. The window's border is a cut, no boundary.
    """
    outside = 1.0 - masks[:, None].float()
    near = F.max_pool2d(outside, 3, stride=1, padding=1)[:, 0] > 0.5
    return masks & near


def total(parts: list[dict[str, Tensor]], boundary: Tensor | None, weights: Weights) -> Tensor:
    """The loss of coarse and refined masks, each counting the same, and of the boundaries."""
    whole = torch.stack([getattr(weights, name) * part[name] for part in parts for name in part]).sum()
    return whole if boundary is None else whole + weights.boundary * boundary
