"""Losses of masks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def focal(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss, averaged over a mask's pixels.

    -a_t (1 - p_t)^gamma log p_t with a_t = alpha where the target is 1, else 1 - alpha (Lin et al. 2017, eq. 5).

    Parameters
    ----------
    logits, target : (n, ..., y, x); target 0..1.

    Returns
    -------
    (n, ...)
    """
    p = logits.sigmoid()
    wrong = p + target - 2 * p * target
    weight = (2 * alpha - 1) * target + (1 - alpha)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * wrong**gamma * weight).flatten(-2).mean(-1)


def dice(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - Dice of the probabilities: 1 - (2 Σpt + smooth) / (Σp + Σt + smooth); shapes as `focal`."""
    p = logits.sigmoid().flatten(-2)
    t = target.flatten(-2)
    return 1 - (2 * (p * t).sum(-1) + smooth) / (p.sum(-1) + t.sum(-1) + smooth)


def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of logits > 0 with target > 0.5; (n, ..., y, x) -> (n, ...), 1 for two empty masks."""
    found, true = (logits > 0).flatten(-2), (target > 0.5).flatten(-2)
    both = (found & true).sum(-1).float()
    return (both + 1e-9) / ((found | true).sum(-1).float() + 1e-9)
