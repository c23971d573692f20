"""The stacked hourglass of CenterNet ("Hourglass-104"; Newell et al. 2016, Law and Deng 2018, Zhou et al. 2019)."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.segmenters.centersam.blocks import Heads, Residual, conv_bn
from gigaseg.segmenters.centersam.detector import STRIDE, Detector, DetectorConfig, Maps


class Level(nn.Module):
    """One level of an hourglass: its own residuals, beside those of the level inside it at half the resolution.

    Resolution is halved by a residual of stride 2, not by pooling.
    """

    def __init__(self, dims: tuple[int, ...], counts: tuple[int, ...]) -> None:
        super().__init__()
        here, inner, count = dims[0], dims[1], counts[0]
        self.upper = _residuals([here] * (count + 1))
        self.down = _residuals([here] + [inner] * count, stride=2)
        last = len(dims) == 2
        self.inside: nn.Module = _residuals([inner] * (counts[1] + 1)) if last else Level(dims[1:], counts[1:])
        self.up = _residuals([inner] * count + [here])

    def forward(self, x: Tensor) -> Tensor:
        """(b, dims[0], h, w) to the same shape."""
        low = self.up(self.inside(self.down(x)))
        return cast(Tensor, self.upper(x) + F.interpolate(low, scale_factor=2.0, mode="nearest"))


def _residuals(channels: list[int], stride: int = 1) -> nn.Sequential:
    """Residuals from channels[0] to channels[1] and so on, the first with `stride`."""
    pairs = enumerate(pairwise(channels))
    return nn.Sequential(*(Residual(a, b, 1 if i else stride) for i, (a, b) in pairs))


class Hourglass(Detector):
    """Stacked hourglasses behind a stem of stride 4, every one with heads of its own.

    191,243,402 parameters as published. Sides of an input: multiples of 4 x 2 ** (levels - 1), 128 px as published.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        dim, stacks = config.dims[0], config.stacks
        self.multiple = STRIDE * 2 ** (len(config.dims) - 1)
        self.stem = nn.Sequential(conv_bn(3, dim // 2, 7, 2), nn.ReLU(), Residual(dim // 2, dim, 2))
        self.hourglasses = nn.ModuleList(Level(config.dims, config.counts) for _ in range(stacks))
        self.features = nn.ModuleList(nn.Sequential(conv_bn(dim, dim, 3), nn.ReLU()) for _ in range(stacks))
        self.heads = nn.ModuleList(Heads(dim, dim, len(config.classes)) for _ in range(stacks))
        # what carries on from one stack to the next
        self.before = nn.ModuleList(conv_bn(dim, dim, 1) for _ in range(stacks - 1))
        self.found = nn.ModuleList(conv_bn(dim, dim, 1) for _ in range(stacks - 1))
        self.between = nn.ModuleList(Residual(dim, dim) for _ in range(stacks - 1))

    def forward(self, images: Tensor, embedding: Tensor | None = None) -> list[Maps]:
        """As `Detector.forward`; `embedding` is not looked at."""
        self.check_sides(images)
        x = self.stem(images)
        maps = []
        for i, (hourglass, features, heads) in enumerate(zip(self.hourglasses, self.features, self.heads)):
            found = features(hourglass(x))
            maps.append(heads(found))
            if i < len(self.between):
                x = self.between[i](F.relu(self.before[i](x) + self.found[i](found)))
        return maps
