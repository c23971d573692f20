"""Layers that the detectors share."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gigaseg.segmenters.centersam.detector import Maps

PRIOR = -2.19
"""Bias of a fresh heatmap: a probability of 0.1 everywhere, so that training begins with a small loss."""


def conv_bn(source: int, target: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size but for its stride, then batch normalisation in place of a bias."""
    conv = nn.Conv2d(source, target, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(target))


def fuse(module: nn.Module) -> None:
    """Put what batch normalisation does in evaluation mode into the convolution before it, in place, in all of it."""
    for child in module.children():
        layers = list(child) if isinstance(child, nn.Sequential) else []
        if len(layers) > 1 and isinstance(layers[0], nn.Conv2d) and isinstance(layers[1], nn.BatchNorm2d):
            fused = fuse_conv_bn_eval(layers[0], layers[1])
            cast(nn.Sequential, child)[0], cast(nn.Sequential, child)[1] = fused, nn.Identity()
        fuse(child)


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a skip, as in ResNet-18; the skip is a 1 x 1 convolution where shapes differ."""

    def __init__(self, source: int, target: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv_bn(source, target, 3, stride)
        self.second = conv_bn(target, target, 3)
        same = source == target and stride == 1
        self.skip: nn.Module = nn.Identity() if same else conv_bn(source, target, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(b, source, h, w) to (b, target, h / stride, w / stride)."""
        return F.relu(self.second(F.relu(self.first(x))) + self.skip(x))


class Heads(nn.Module):
    """From features to maps: of each map a 3 x 3 convolution, ReLU and a 1 x 1 convolution.

    Parameters
    ----------
    source, hidden : channels of the features, and between the two convolutions.
    classes : number of heatmaps.
    """

    def __init__(self, source: int, hidden: int, classes: int) -> None:
        super().__init__()
        for name, channels in (("heat", classes), ("size", 2), ("offset", 2)):
            head = nn.Sequential(nn.Conv2d(source, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))
            self.add_module(name, head)
        nn.init.constant_(cast(Tensor, self.last("heat").bias), PRIOR)

    def last(self, name: str) -> nn.Conv2d:
        """The layer that yields map "heat", "size" or "offset"."""
        return cast(nn.Conv2d, cast(nn.Sequential, getattr(self, name))[2])

    def forward(self, x: Tensor) -> Maps:
        """(b, source, h, w) to maps in float32: in half precision neighbours would tie, and a tie is two peaks."""
        maps = {}
        for name in ("heat", "size", "offset"):
            head = cast(nn.Sequential, getattr(self, name))
            features = F.relu(head[0](x))
            with torch.autocast(x.device.type, enabled=False):
                maps[name] = head[2](features.float())
        return Maps(**maps)
