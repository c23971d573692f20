"""The decoder's upscaling and mask products, cell by cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.sam.twoway import Casts

_ROWS = 1024
"""Cells upscaled at a time on a CPU without gradients: 2 MB in float32 at 256 channels, what a core's cache holds."""


def upscale(
    layers: Any, x: Tensor, weights: Tensor, shape: tuple[int, int], casts: Casts, *, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """Upscale cells four times and multiply them by the mask weights.

    Transposed convolutions with kernel and stride 2 spread each cell by itself, so they are matrix products over the
    cells, with the channels last, and can be done in pieces.

    Parameters
    ----------
    layers : the decoder's `output_upscaling`.
    x : (n, h w, C) cells.
    weights : (n, m, C / 8), a vector a mask.
    shape : (h, w).
    keep : return the upscaled embedding too.

    Returns
    -------
    logits : (n, m, 4 h, 4 w).
    embedding : (n, C / 8, 4 h, 4 w) or None.
    """
    n, cells = x.shape[:2]
    h, w = shape
    first, second = _as_linear(layers[0], x.dtype), _as_linear(layers[3], x.dtype)
    weights = weights.to(x.dtype)
    if keep or torch.is_grad_enabled() or x.device.type != "cpu":
        fine = _spread(casts, layers, first, second, x)  # (n, h w, 16, C / 8)
        product = torch.bmm(fine.view(n, 16 * cells, -1), weights.mT)
        embedding = _places(fine.view(n, 16 * cells, -1), n, h, w) if keep else None
        return _places(product, n, h, w), embedding
    product = x.new_empty(n, cells, 16, weights.shape[1])
    for i in range(n):
        for start in range(0, cells, _ROWS):
            piece = slice(start, start + _ROWS)
            fine = _spread(casts, layers, first, second, x[i, piece])
            product[i, piece] = fine @ weights[i].mT
    return _places(product, n, h, w), None


def _as_linear(layer: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A transposed convolution 2 x 2 as weight (4 out, in) and bias (4 out), ordered (row, column, channel)."""
    weight = layer.weight.permute(2, 3, 1, 0).reshape(-1, layer.weight.shape[0])
    return weight.to(dtype), layer.bias.repeat(4).to(dtype)


def _spread(
    casts: Casts, layers: Any, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], x: Tensor
) -> Tensor:
    """(…, C) to (…, 16, C / 8): each cell's 16 places, ordered (row, column, row within, column within)."""
    y = F.linear(x, *first)
    y = y.view(*x.shape[:-1], 4, -1)
    y = F.linear(_gelu(casts.norm(y, layers[1])), *second)
    return _gelu(y).view(*x.shape[:-1], 16, -1)


def _gelu(x: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return F.gelu(x)
    return torch.ops.aten.gelu_(x)  # type: ignore[no-any-return]


def _places(x: Tensor, n: int, h: int, w: int) -> Tensor:
    """(n, h w 16, k) or (n, h w, 16, k) to (n, k, 4 h, 4 w)."""
    x = x.view(n, h, w, 2, 2, 2, 2, -1)
    return x.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(n, -1, 4 * h, 4 * w)
