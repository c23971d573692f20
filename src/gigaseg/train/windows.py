"""Masks in decoding windows: the truth cut to them, and logits put back into the whole frame."""

from __future__ import annotations

import torch
from torch import Tensor

from gigaseg.train.batches import Batch


def targets(batch: Batch, origin: Tensor, shape: tuple[int, ...], stride: int) -> Tensor:
    """Each object's mask in its window: (n, y·stride, x·stride) bool for windows of `shape` at `origin`, low-res px."""
    device = batch.labels.device
    ys = origin[:, 1, None] * stride + torch.arange(shape[0] * stride, device=device)
    xs = origin[:, 0, None] * stride + torch.arange(shape[1] * stride, device=device)
    found = batch.labels[batch.image[:, None, None], ys[:, :, None], xs[:, None, :]]
    return found == batch.ids[:, None, None]


def paste(logits: Tensor, origin: Tensor, full: tuple[int, int], outside: float = -10.0) -> Tensor:
    """Logits of windows (n, y, x) in the whole low-res frame (n, *full), `outside` elsewhere."""
    n, height, width = logits.shape
    if (height, width) == full:
        return logits
    found = logits.new_full((n, *full), outside)
    rows = torch.arange(n, device=logits.device)[:, None, None]
    ys = (origin[:, 1, None] + torch.arange(height, device=logits.device))[:, :, None]
    xs = (origin[:, 0, None] + torch.arange(width, device=logits.device))[:, None, :]
    found[rows, ys, xs] = logits
    return found
