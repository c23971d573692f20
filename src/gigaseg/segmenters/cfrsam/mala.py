"""CFR-SAM's adapters: multi-scale adaptive local-aware (MALA; paper eq. 3 to 5), two in every block of the encoder.

Each brings the tokens down to a few channels, mixes neighbours by three kernel sizes, and adds the result to what it
got. The kernels are made for every pixel and shared by its channels, as in the published code; one for each channel
would need 73 million parameters. The up-projection starts at zero, so that the adapted encoder is SAM's at first; the
published one starts anywhere.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gigaseg.sam.adapters import Adapter

SIZES = (3, 5, 7)
"""Sides of the kernels."""

LEAST = SIZES[-1] // 2 + 1
"""Least side of the maps, tokens: the largest kernel sees their mirror image beyond the border."""

DROPOUT = 0.1


class Mala(nn.Module):
    """One adapter, for maps of tokens at least `LEAST` wide and high.

    Parameters
    ----------
    width : channels of the tokens.
    rank : channels in between.
    kernels : "dynamic", or "static" for depth-wise convolutions.
    """

    def __init__(self, width: int, rank: int, kernels: str = "dynamic") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))
        self.gamma_x = nn.Parameter(torch.ones(width))
        self.down = nn.Linear(width, rank)
        if kernels == "dynamic":
            self.kernels = nn.ModuleList(nn.Conv2d(rank, k * k, 3, padding=1) for k in SIZES)
        else:
            self.kernels = nn.ModuleList(
                nn.Conv2d(rank, rank, k, padding=k // 2, padding_mode="reflect", groups=rank) for k in SIZES
            )
        self.dynamic = kernels == "dynamic"
        self.mix = nn.Conv2d(rank, rank, 1)
        self.up = nn.Linear(rank, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (b, h, w, width) with what the adapter adds."""
        z = self.down(self.gamma * self.norm(x) + self.gamma_x * x)
        mixed = self.core(z.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1)
        return x + cast(Tensor, self.up(F.dropout(F.gelu(mixed), DROPOUT, self.training)))

    def core(self, z: Tensor) -> Tensor:
        """Between the projections: (b, rank, h, w) to the same."""
        if min(z.shape[2:]) < LEAST:
            raise ValueError(f"a map of {z.shape[2]} x {z.shape[3]} tokens, accepted: at least {LEAST} x {LEAST}")
        if self.dynamic:
            y = dynamic(z, [F.softmax(kernel(z), 1) for kernel in self.kernels])
        else:
            y = cast(Tensor, sum(kernel(z) for kernel in self.kernels))
        u = z + y / len(SIZES)
        return u + cast(Tensor, self.mix(u))


class MalaAdapter(Adapter):
    """Two adapters a block: on what its attention gives, window by window, and on its output.

    Parameters
    ----------
    depth, embed_dim : of the encoder (`SamConfig`).
    rank, kernels : as `Mala`.
    """

    def __init__(self, depth: int, embed_dim: int, rank: int, kernels: str = "dynamic") -> None:
        super().__init__()
        self.inner = nn.ModuleList(Mala(embed_dim, rank, kernels) for _ in range(depth))
        self.outer = nn.ModuleList(Mala(embed_dim, rank, kernels) for _ in range(depth))

    def attention(self, block: int, x: Tensor) -> Tensor:
        """Adapt the attention's output; shapes as `Adapter.attention`."""
        return cast(Tensor, self.inner[block](x))

    def output(self, block: int, x: Tensor) -> Tensor:
        """Adapt the block's output; shapes as `Adapter.output`."""
        return cast(Tensor, self.outer[block](x))


def dynamic(z: Tensor, kernels: list[Tensor]) -> Tensor:
    """Sum over kernel sizes of Y[c, p] = sum over q of K[q, p] Z[c, p + q].

    The kernels of all sizes are added into one of the largest, which sees the same mirror image beyond the border.

    Parameters
    ----------
    z : (b, c, h, w).
    kernels : (b, k k, h, w) each, of odd sides k, the offsets q row by row.
    """
    b, _, h, w = z.shape
    largest = max(round(kernel.shape[1] ** 0.5) for kernel in kernels)
    total = z.new_zeros(b, largest, largest, h, w)
    for kernel in kernels:
        side = round(kernel.shape[1] ** 0.5)
        off = (largest - side) // 2
        total = total + F.pad(kernel.view(b, side, side, h, w), (0, 0, 0, 0, *(off,) * 4))
    # some fifty terms add up: in half precision each would be rounded
    padded = F.pad(z.float() if z.dtype != torch.float64 else z, (largest // 2,) * 4, mode="reflect")
    return cast(Tensor, _Dynamic.apply(padded, total.flatten(1, 2).to(padded.dtype)))  # type: ignore[no-untyped-call]


class _Dynamic(torch.autograd.Function):
    """One kernel a pixel, on a padded map, without a copy of each pixel's surroundings.

    padded : (b, c, h + k - 1, w + k - 1). kernel : (b, k k, h, w). Gives (b, c, h, w).
    """

    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(padded, kernel)
        out = padded.new_zeros(*padded.shape[:2], *kernel.shape[2:])
        for q, part in _parts(padded, kernel):
            out.addcmul_(part, kernel[:, q : q + 1])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        padded, kernel = ctx.saved_tensors
        of_padded, of_kernel = torch.zeros_like(padded), torch.empty_like(kernel)
        for q, part in _parts(of_padded, kernel):
            part.addcmul_(gradient, kernel[:, q : q + 1])
        for q, part in _parts(padded, kernel):
            torch.sum(gradient * part, 1, out=of_kernel[:, q])
        return of_padded, of_kernel


def _parts(padded: Tensor, kernel: Tensor) -> list[tuple[int, Tensor]]:
    """The map under each of a kernel's places, as views."""
    side = round(kernel.shape[1] ** 0.5)
    h, w = kernel.shape[2:]
    return [(q, padded[:, :, q // side : q // side + h, q % side : q % side + w]) for q in range(side * side)]
