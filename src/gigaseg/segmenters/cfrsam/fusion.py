"""CFR-SAM's fusion of the encoder's levels: hierarchical modulated fusion (HMFM; paper eq. 6 to 8), and its rivals.

Each level is the output of a block, brought by SAM's own neck to the embedding's channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 4


def level_blocks(depth: int) -> tuple[int, ...]:
    """Blocks (from 0) whose outputs are the levels: those at a quarter, half, three quarters and the end of `depth`."""
    return tuple(-(-(i + 1) * depth // LEVELS) - 1 for i in range(LEVELS))


class Fusion(nn.Module):
    """Four levels into one embedding.

    A level is modulated as F + w F, with w = sigmoid of the mean over the image of ReLU(BN(conv(F))) for each channel.
    As the ReLU comes before the mean, w is at least 1/2: levels are amplified 1.5 to 2 times, and their sum is some six
    to eight times one of them, which the decoder has to learn.

    Parameters
    ----------
    channels : C, of the embedding.
    kind : of `gigaseg.segmenters.cfrsam.config.FUSIONS`: the modulated levels as a sum; or, ours, added to SAM's own
        embedding with a weight a channel that is zero at first ("gated"); without modulation their mean, their sum,
        a convolution over all; or the last one alone, which is SAM's embedding.
    """

    def __init__(self, channels: int, kind: str = "sum") -> None:
        super().__init__()
        self.kind = kind
        if kind in ("sum", "gated"):
            self.gates = nn.ModuleList(
                nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
                for _ in range(LEVELS)
            )
        if kind == "gated":
            self.scale = nn.Parameter(torch.zeros(LEVELS, channels, 1, 1))
        if kind == "concat":
            self.join = nn.Conv2d(LEVELS * channels, channels, 1, bias=False)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (b, C, h, w), SAM's own embedding last, to (b, C, h, w)."""
        if self.kind == "last":
            return levels[-1]
        if self.kind == "concat":
            return F.conv2d(torch.cat(list(levels), 1), self.join.weight)
        if self.kind in ("add", "average"):
            whole = torch.stack(list(levels)).sum(0)
            return whole / LEVELS if self.kind == "average" else whole
        modulated = [x + gate(x).mean((2, 3), keepdim=True).sigmoid() * x for x, gate in zip(levels, self.gates)]
        if self.kind == "gated":
            return levels[-1] + torch.stack([scale * x for scale, x in zip(self.scale, modulated)]).sum(0)
        return torch.stack(modulated).sum(0)
