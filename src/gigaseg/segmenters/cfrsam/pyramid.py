"""Layers of the point learner: feature pyramids, sampling of maps at points, and heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al. 2017): from the coarsest map down, without norms or activations.

    Parameters
    ----------
    widths : channels of the backbone's maps, the finest first.
    channels : of all levels.
    levels : finest ones that are put out; the coarser ones still reach them from above.
    """

    def __init__(self, widths: Sequence[int], channels: int, levels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(levels))
        for conv in (*self.laterals, *self.outputs):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (b, width, h, w), the finest first, to `levels` maps (b, channels, h, w)."""
        merged = [lateral(found) for lateral, found in zip(self.laterals, maps, strict=True)]
        for k in reversed(range(len(merged) - 1)):
            merged[k] = merged[k] + F.interpolate(merged[k + 1], merged[k].shape[-2:], mode="nearest")
        return [output(found) for output, found in zip(self.outputs, merged)]


class MaskHead(nn.Module):
    """From the finest level to logits of being of any object, at the image's resolution.

    Parameters
    ----------
    legacy : as published: the last convolution pads its 1 x 1 kernel, and the frame is laid on the image's corners,
        which stretches the mask by up to 2.5 px.
    """

    def __init__(self, channels: int, legacy: bool) -> None:
        super().__init__()
        self.legacy = legacy
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.last = nn.Conv2d(channels, 1, 1, padding=1 if legacy else 0)

    def forward(self, level: Tensor, size: tuple[int, int]) -> Tensor:
        """(b, channels, h, w) to (b, H, W) float32; `size` is (H, W)."""
        plane = self.last(F.relu(self.norm(self.first(level)))).float()
        return enlarged(plane, size, self.legacy)[:, 0]


def mlp(channels: int, outputs: int, dropout: float) -> nn.Sequential:
    """Two linear layers, ReLU and dropout between them."""
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Dropout(dropout), nn.Linear(channels, outputs))


def anchor_grid(rows: int, cols: int, spacing: int, device: torch.device | str = "cpu") -> Tensor:
    """Middles of the squares of a grid, row by row: (rows * cols, 2) float32 x, y in px."""
    y, x = (spacing * torch.arange(n, device=device, dtype=torch.float32) + spacing / 2 for n in (rows, cols))
    return torch.stack([x.expand(rows, cols), y[:, None].expand(rows, cols)], -1).view(-1, 2)


def sample_at(level: Tensor, points: Tensor, size: tuple[int, int], legacy: bool = False) -> Tensor:
    """Bilinear values of a map at points.

    Exact: cell i of a map of stride s is centred at s i + s / 2 px, and beyond the border the border goes on. In
    grid_sample's frame that is 2 p / size - 1 without aligned corners.

    Parameters
    ----------
    level : (b, c, h, w).
    points : (b, n, 2) x, y in px, pixel corners at integers.
    size : (H, W) of the image that the map covers, px.
    legacy : aligned corners, as published: off by half a stride at the borders, the other way at the opposite one.

    Returns
    -------
    (b, c, n)
    """
    height, width = size
    places = 2 * points / points.new_tensor([width, height]) - 1
    beyond = "zeros" if legacy else "border"
    return F.grid_sample(level, places[:, None], "bilinear", beyond, align_corners=legacy)[:, :, 0]


def enlarged(planes: Tensor, size: tuple[int, int], legacy: bool = False) -> Tensor:
    """Planes (b, c, h, w) at `size` (H, W), which they cover: bilinear, exact but for aligned corners (`legacy`)."""
    return F.interpolate(planes, size, mode="bilinear", align_corners=legacy)
