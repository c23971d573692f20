"""The ResNet-18 detector of CenterNet, without deformable convolutions (Xiao et al. 2018, Zhou et al. 2019)."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from gigaseg.segmenters.centersam.blocks import Heads, Residual, conv_bn
from gigaseg.segmenters.centersam.detector import Detector, DetectorConfig, Maps

_STD = 0.001
"""Deviation of the fresh weights of the transposed convolutions and of the last layers of size and offset."""


class ResNet18(Detector):
    """ResNet-18 down to a stride of 32, three transposed convolutions up to 4; 15,815,237 parameters for one class.

    Fresh weights throughout, as the paper has it.
    """

    multiple = 32

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        self.stem = nn.Sequential(conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        widths = (64, 64, 128, 256, 512)
        stages = [
            nn.Sequential(Residual(a, b, 1 if i == 0 else 2), Residual(b, b))
            for i, (a, b) in enumerate(pairwise(widths))
        ]
        self.stages = nn.Sequential(*stages)
        ups: list[nn.Module] = []
        for source in (512, 256, 256):
            up = nn.ConvTranspose2d(source, 256, 4, 2, 1, bias=False)
            nn.init.normal_(up.weight, std=_STD)
            ups += [up, nn.BatchNorm2d(256), nn.ReLU()]
        self.up = nn.Sequential(*ups)
        self.heads = Heads(256, 64, len(config.classes))
        for name in ("size", "offset"):
            last = self.heads.last(name)
            nn.init.normal_(last.weight, std=_STD)
            nn.init.zeros_(cast(Tensor, last.bias))

    def forward(self, images: Tensor, embedding: Tensor | None = None) -> list[Maps]:
        """As `Detector.forward`, of one stack; `embedding` is not looked at."""
        self.check_sides(images)
        return [self.heads(self.up(self.stages(self.stem(images))))]
