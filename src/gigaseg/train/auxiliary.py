"""Dense targets on the embedding, for training only: what every pixel belongs to, without any prompt.

A randomly initialised encoder learns little from masks alone, since their gradient reaches it through a decoder that
knows nothing yet. A linear layer on each cell of the embedding that predicts foreground, borders and the way to the
object's centre (as distance-regression methods for nuclei do) teaches it from the first step. The layer is not part of
the checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 4
"""Foreground, border, and the offset (x, y) to the object's centroid."""

REACH = 16.0
"""Offsets are in units of this many px."""


def head(channels: int, patch: int, stride: int) -> nn.Conv2d:
    """The layer: from an embedding cell to all of `CHANNELS` at the patch / stride squared places of the cell."""
    return nn.Conv2d(channels, CHANNELS * (patch // stride) ** 2, 1)


def dense_targets(labels: Tensor, stride: int) -> Tensor:
    """Targets of label images at reduced resolution.

    Parameters
    ----------
    labels : (b, s, s) int32, 0 is background.
    stride : px of a place; foreground and border are the shares of it, offsets the mean over its foreground.

    Returns
    -------
    (b, CHANNELS, s / stride, s / stride) float32.
    """
    b, height, width = labels.shape
    inside = labels > 0
    border = torch.zeros_like(inside)
    across, down = labels[:, :, 1:] != labels[:, :, :-1], labels[:, 1:] != labels[:, :-1]
    border[:, :, 1:] |= across
    border[:, :, :-1] |= across
    border[:, 1:] |= down
    border[:, :-1] |= down
    most = int(labels.max()) + 1 if labels.numel() else 1
    flat = (labels + most * torch.arange(b, device=labels.device, dtype=labels.dtype)[:, None, None]).flatten().long()
    count = torch.bincount(flat, minlength=b * most).clamp(min=1)
    offsets = []
    for axis, side in ((2, width), (1, height)):
        shape = (1, 1, width) if axis == 2 else (1, height, 1)
        place = torch.arange(side, device=labels.device, dtype=torch.float32).view(shape).expand_as(labels)
        centroid = torch.bincount(flat, weights=place.reshape(-1), minlength=b * most) / count
        offsets.append((centroid[flat].view_as(labels) - place) / REACH)
    found = torch.stack([inside.float(), border.float(), *(inside * offset for offset in offsets)], 1).float()
    found = F.avg_pool2d(found, stride)
    return torch.cat([found[:, :2], found[:, 2:] / found[:, :1].clamp(min=1e-3)], 1)


def dense_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of foreground and border, plus the absolute error of the offsets over the foreground.

    Parameters
    ----------
    predicted : (b, CHANNELS · k², h, w), what `head` gives.
    target : (b, CHANNELS, k h, k w).
    """
    factor = target.shape[-1] // predicted.shape[-1]
    predicted = F.pixel_shuffle(predicted.float(), factor)
    entropy = F.binary_cross_entropy_with_logits(predicted[:, :2], target[:, :2])
    weight = target[:, :1]
    error = ((predicted[:, 2:] - target[:, 2:]).abs() * weight).sum() / (2 * weight.sum() + 1)
    return 2 * entropy + error
