"""A light detector on the embedding that SAM has computed anyway, with a little of the image beside it.

The embedding knows what is an object, but has one vector a patch; a shallow branch on the image adds the resolution in
which neighbours part. Our own: the published detectors see the image alone and cost more than a small SAM.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.segmenters.centersam.blocks import Heads, Residual, conv_bn
from gigaseg.segmenters.centersam.detector import STRIDE, Detector, DetectorConfig, Maps


class Light(Detector):
    """Features of the image at stride 4 plus those of the embedding, brought there by a pixel shuffle."""

    uses_embedding = True

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        width, factor = config.width, config.patch // STRIDE
        self.multiple = config.patch
        self.image = nn.Sequential(
            conv_bn(3, width // 2, 3, 2), nn.ReLU(), conv_bn(width // 2, width, 3, 2), nn.ReLU(), Residual(width, width)
        )
        self.embedding = nn.Sequential(
            nn.BatchNorm2d(config.embedding),
            nn.Conv2d(config.embedding, width * factor**2, 1),
            nn.PixelShuffle(factor),
        )
        self.body = nn.Sequential(Residual(width, width), Residual(width, width))
        self.heads = Heads(width, width, len(config.classes))

    def forward(self, images: Tensor, embedding: Tensor | None = None) -> list[Maps]:
        """As `Detector.forward`, of one stack."""
        self.check_sides(images)
        grid = tuple(side // self.multiple for side in images.shape[-2:])
        if embedding is None or embedding.shape[-2:] != grid:
            found = "none" if embedding is None else " x ".join(map(str, embedding.shape[-2:]))
            raise ValueError(f"embedding is {found}, expected {grid[0]} x {grid[1]} cells for these images")
        # convolutions of so few channels are two times quicker with the channels last
        x = self.image(images.contiguous(memory_format=torch.channels_last))
        x = x + self.embedding(embedding.contiguous(memory_format=torch.channels_last))
        return [self.heads(self.body(F.relu(x)))]
