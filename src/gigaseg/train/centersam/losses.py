"""Losses of the detector: heat map, box sizes and centre offsets (CenterNet)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.segmenters.centersam.detector import Maps
from gigaseg.train.centersam.targets import Targets


def focal_heatmap(logits: Tensor, target: Tensor) -> Tensor:
    """Focal loss of a heat map, over the number of cells that are exactly 1 in the whole batch (none: over 1).

    -(1 - p)² log p there and -(1 - Y)⁴ p² log(1 - p) elsewhere, p = sigmoid of the logits cut to [1e-4, 1 - 1e-4]
    (Zhou et al. 2019, arXiv 1904.07850, eq. 1).

    Parameters
    ----------
    logits, target : of one shape; target 0..1.
    """
    p = logits.float().sigmoid().clamp(1e-4, 1 - 1e-4)
    peak = target == 1
    loss = -torch.where(peak, (1 - p) ** 2 * p.log(), (1 - target) ** 4 * p**2 * (1 - p).log())
    return loss.sum() / peak.sum().clamp(min=1)


def size_loss(predicted: Tensor, target: Tensor, variant: str = "code") -> Tensor:
    """L1 of two coordinates an object, (n, 2) each.

    Variant "code": their sum over 2n + 1e-4, as the published code has it; "paper": over n, as the text has it.
    """
    return _summed((predicted.float() - target).abs(), variant)


def offset_loss(predicted: Tensor, target: Tensor, variant: str = "code") -> Tensor:
    """As `size_loss`; variant "paper" is the smooth L1 over n: e² / 2 below 1, |e| - 1/2 above."""
    error = (predicted.float() - target).abs()
    if variant == "paper":
        error = torch.where(error < 1, 0.5 * error**2, error - 0.5)
    return _summed(error, variant)


def _summed(error: Tensor, variant: str) -> Tensor:
    n = len(error)
    return error.sum() / (2 * n + 1e-4 if variant == "code" else max(n, 1))


def detector_losses(
    stacks: Sequence[Maps], targets: Targets, *, size: float = 0.1, offset: float = 1.0, variant: str = "code"
) -> dict[str, Tensor]:
    """Mean losses over a detector's stacks.

    Parameters
    ----------
    stacks : maps of one or more stacks, all of them trained.
    size, offset : weights of the two.
    variant : of the box losses, "code" or "paper".

    Returns
    -------
    loss (weighted sum), heat, size, offset: scalars.
    """
    found: dict[str, list[Tensor]] = {"heat": [], "size": [], "offset": []}
    for maps in stacks:
        found["heat"].append(focal_heatmap(maps.heat, targets.heat))
        found["size"].append(size_loss(_at(maps.size, targets), targets.size, variant))
        found["offset"].append(offset_loss(_at(maps.offset, targets), targets.offset, variant))
    parts = {name: torch.stack(values).mean() for name, values in found.items()}
    return {"loss": parts["heat"] + size * parts["size"] + offset * parts["offset"], **parts}


def foreground_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of foreground logits and the foreground's share of each place; ours.

    Parameters
    ----------
    logits : (b, h, w).
    labels : (b, k h, k w), 0 is background.
    """
    share = F.avg_pool2d((labels > 0).float()[:, None], labels.shape[-1] // logits.shape[-1])[:, 0]
    return F.binary_cross_entropy_with_logits(logits, share)


def _at(values: Tensor, targets: Targets) -> Tensor:
    """Values (b, 2, h, w) at each object's cell, (n, 2)."""
    return values.flatten(2)[targets.image, :, targets.index]
