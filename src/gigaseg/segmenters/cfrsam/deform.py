"""Modulated deformable convolution (DCNv2; Zhu et al. 2019, arXiv:1811.11168, eq. 1), by operators that torch has.

A convolution is linear and so is bilinear sampling: each of the nine taps is multiplied with its weights first and
sampled then, which moves the few channels that come out instead of the many that go in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = 9


class Deformable(nn.Module):
    """A 3 x 3 deformable convolution, batch normalisation and ReLU.

    What tells where to look starts at zero, so that it begins as half of the plain convolution.

    Attributes
    ----------
    offsets : gives 27 channels: y and x of each tap's offset, px, tap by tap, then the taps' weights before a sigmoid
        (the order of mmcv).
    weight : (out, in, 3, 3).
    norm : of the result.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(channels, 3 * TAPS, 3, padding=1)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)  # type: ignore[arg-type]
        self.weight = nn.Parameter(torch.empty(out, channels, 3, 3))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor, where: Tensor | None = None) -> Tensor:
        """(n, in, h, w) to (n, out, h, w); `where` is what `offsets` gives for `x`, if that is known."""
        told = self.offsets(x) if where is None else where
        return F.relu(self.norm(deform(x, told[:, : 2 * TAPS], told[:, 2 * TAPS :].sigmoid(), self.weight)))


def deform(x: Tensor, offsets: Tensor, modulation: Tensor, weight: Tensor) -> Tensor:
    """Sum over the taps k of m_k W_k x(p + p_k + Δ_k), bilinear, zero outside.

    Parameters
    ----------
    x : (n, in, h, w).
    offsets : (n, 18, h, w) Δ of each tap, px: y, x, y, x, ...
    modulation : (n, 9, h, w) m.
    weight : (out, in, 3, 3).

    Returns
    -------
    (n, out, h, w).
    """
    n, _, h, w = x.shape
    out = weight.shape[0]
    taps = F.conv2d(x, weight.permute(2, 3, 0, 1).reshape(TAPS * out, -1, 1, 1))
    exact = torch.promote_types(taps.dtype, torch.float32)  # in half precision places would be off by whole px
    place = offsets.to(exact).view(n, TAPS, 2, h, w)
    y = (
        torch.arange(h, device=x.device).view(1, 1, h, 1)
        + torch.arange(-1, 2, device=x.device).repeat_interleave(3)[None, :, None, None]
    )
    across = (
        torch.arange(w, device=x.device).view(1, 1, 1, w)
        + torch.arange(-1, 2, device=x.device).repeat(3)[None, :, None, None]
    )
    grid = torch.stack([(2 * (across + place[:, :, 1]) + 1) / w - 1, (2 * (y + place[:, :, 0]) + 1) / h - 1], dim=-1)
    seen = F.grid_sample(
        taps.view(n * TAPS, out, h, w).to(exact), grid.view(n * TAPS, h, w, 2), padding_mode="zeros",
        align_corners=False,
    )  # fmt: skip
    return (seen.view(n, TAPS, out, h, w) * modulation[:, :, None]).sum(1)
