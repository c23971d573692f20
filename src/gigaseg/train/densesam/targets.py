"""What DenseSAM's boundary head learns."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def boundary_target(labels: Tensor, extra: int = 0) -> Tensor:
    """Rims of the instances, about two pixels wide: where dilation and erosion of one of them differ.

    Both with the cross of 3 x 3, once; the target is the union over the instances, so that edges that touch count no
    more than others. A pixel belongs to it when it and its four neighbours show an instance and something else. The
    image's border is no rim.

    Parameters
    ----------
    labels : (b, y, x) whole numbers, 0 is background.
    extra : further dilations; 2 for CPM17 in the published code.

    Returns
    -------
    (b, y, x) bool.
    """
    near = _cross(labels)
    rim = (near.amax(0) > 0) & (near.amax(0) != near.amin(0))
    for _ in range(extra):
        rim = _cross(rim.to(torch.uint8)).amax(0) > 0
    return rim


def _cross(values: Tensor) -> Tensor:
    """(5, b, y, x): each pixel and its four neighbours; beyond the border the pixel at the border."""
    height, width = values.shape[-2:]
    rows = torch.arange(height, device=values.device)
    cols = torch.arange(width, device=values.device)
    up, down = (rows - 1).clamp(min=0), (rows + 1).clamp(max=height - 1)
    left, right = (cols - 1).clamp(min=0), (cols + 1).clamp(max=width - 1)
    return torch.stack([values, values[:, up], values[:, down], values[:, :, left], values[:, :, right]])


def token_labels(foreground: Tensor, grid: tuple[int, int]) -> Tensor:
    """Foreground (b, y, x) at the tokens, by the nearest pixel, as the contrastive loss takes it: (b, h, w) bool."""
    return F.interpolate(foreground[:, None].float(), grid, mode="nearest-exact")[:, 0] > 0.5
