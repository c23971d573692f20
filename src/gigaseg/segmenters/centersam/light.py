"""A light detector on the embedding that SAM has computed anyway, with the image beside it.

The embedding knows what is an object, but has one vector a patch; a small U-Net on the image (Ronneberger et al. 2015),
which the embedding joins at stride 8, adds the resolution in which neighbours part and outlines lie. Our own: the
published detectors see the image alone and cost more than a small SAM.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.segmenters.centersam.blocks import Heads, Residual, conv_bn
from gigaseg.segmenters.centersam.detector import Detector, DetectorConfig, Maps

JOINT = 8
"""Stride at which the embedding joins, px: patches are multiples of it."""


class Light(Detector):
    """Features at strides 2, 4, 8 and 16, and back up to 4 for the heads, to 2 for the detail."""

    uses_embedding = True

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        width, factor = config.width, config.patch // JOINT
        half, more, most = width // 2, 3 * width // 2, 2 * width
        self.multiple = config.patch
        self.fine = nn.Sequential(conv_bn(3, half, 3, 2), nn.ReLU())
        self.image = nn.Sequential(conv_bn(half, width, 3, 2), nn.ReLU(), Residual(width, width))
        self.middle = Residual(width, more, 2)
        self.embedding = nn.Sequential(
            nn.BatchNorm2d(config.embedding), nn.Conv2d(config.embedding, more * factor**2, 1), nn.PixelShuffle(factor)
        )
        self.joint = Residual(more, more)
        self.deep = nn.Sequential(Residual(more, most, 2), Residual(most, most))
        self.up_middle = Up(most, more)
        self.up_image = Up(more, width)
        self.heads = Heads(width, width, len(config.classes))
        self.detail = Detail(width, half, config.detail, config.embedding // 8) if config.detail else None

    def forward(self, images: Tensor, embedding: Tensor | None = None) -> list[Maps]:
        """As `Detector.forward`, of one stack."""
        self.check_sides(images)
        grid = tuple(side // self.multiple for side in images.shape[-2:])
        if embedding is None or embedding.shape[-2:] != grid:
            found = "none" if embedding is None else " x ".join(map(str, embedding.shape[-2:]))
            raise ValueError(f"embedding is {found}, expected {grid[0]} x {grid[1]} cells for these images")
        # convolutions of so few channels are two times quicker with the channels last
        fine = self.fine(images.contiguous(memory_format=torch.channels_last))
        image = self.image(fine)
        middle = self.middle(image) + self.embedding(embedding.contiguous(memory_format=torch.channels_last))
        middle = self.joint(F.relu(middle))
        x = self.up_image(self.up_middle(self.deep(middle), middle), image)
        maps = self.heads(x)
        if self.detail is None:
            return [maps]
        planes = F.avg_pool2d(self.detail(x, fine), self.multiple // JOINT)
        return [replace(maps, detail=planes[:, 1:], foreground=planes[:, 0])]


class Up(nn.Module):
    """Features of the next coarser level, brought to this one and added to it."""

    def __init__(self, coarse: int, width: int) -> None:
        super().__init__()
        self.coarse = conv_bn(coarse, width, 1)
        self.body = Residual(width, width)

    def forward(self, coarse: Tensor, here: Tensor) -> Tensor:
        """(b, coarse, about h / 2, about w / 2) and (b, width, h, w) to (b, width, h, w)."""
        up = F.interpolate(self.coarse(coarse), here.shape[-2:], mode="bilinear", align_corners=False)
        out: Tensor = self.body(F.relu(here + up))
        return out


class Detail(nn.Module):
    """From the features at stride 4 and those of the image at stride 2 to planes at stride 2.

    Fresh, they are 0 everywhere, so that masks are as without them.
    """

    def __init__(self, coarse: int, fine: int, hidden: int, planes: int) -> None:
        super().__init__()
        self.fine = conv_bn(fine, hidden, 3)
        self.up = Up(coarse, hidden)
        self.last = nn.Conv2d(hidden, 1 + planes, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(b, coarse, h, w) and (b, fine, 2h, 2w) to (b, 1 + planes, 2h, 2w) in float32: the foreground first."""
        x = self.up(coarse, self.fine(fine))
        with torch.autocast(x.device.type, enabled=False):
            found: Tensor = self.last(x.float())
        return found
