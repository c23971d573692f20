"""The image encoder's fast path: a functional forward over the parameters of segment-anything's `ImageEncoderViT`.

It computes what the reference computes and holds no weights of its own. Attention goes through PyTorch's fused
kernels, with the decomposed relative positions (`_attend`); inputs may have any size in patches, square or not, the
position tables being resized as ViTDet does (absolute: bicubic; relative: linear). The projections of windowed blocks
run on the image's tokens alone, since what pads a window is the projection's bias.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gigaseg.sam.adapters import Adapter
from gigaseg.sam.config import SamConfig

_SMALL_WINDOW = 14 * 14
"""Tokens of a window up to which gradients on a CPU are quicker through plain matrix products than fused kernels."""

_BIAS_BYTES = 64 << 20
"""Most bytes of attention bias held at a time before fused kernels; more costs memory and gains no speed."""

_LOGIT_BYTES = 4 << 20
"""Most bytes of attention logits held at a time on a CPU: what stays in its caches from one step to the next."""


@dataclass(frozen=True)
class Encoded:
    """What the encoder yields.

    Attributes
    ----------
    embedding : (b, C, h, w), h and w the input's sides in patches.
    hidden : when asked for: (b, h, w, D) each, the patch embedding with its absolute position, then the output of every
        global-attention block, or of the blocks asked for, in their order; else empty.
    """

    embedding: Tensor
    hidden: tuple[Tensor, ...] = ()


def normalise(images: Tensor, config: SamConfig) -> Tensor:
    """Images as the model takes them: (x - mean) / std of each channel.

    Parameters
    ----------
    images : (b, 3, H, W) uint8, or float on the scale 0..255, RGB.

    Returns
    -------
    (b, 3, H, W) float32 (float64 and half precision stay as they are).
    """
    if not images.is_floating_point():
        images = images.float()
    mean = images.new_tensor(config.pixel_mean).view(3, 1, 1)
    std = images.new_tensor(config.pixel_std).view(3, 1, 1)
    return (images - mean) / std


def encode(
    encoder: nn.Module,
    images: Tensor,
    *,
    hidden: bool | Collection[int] = False,
    adapter: Adapter | None = None,
    checkpointing: bool = False,
) -> Encoded:
    """Encode a batch of images.

    Parameters
    ----------
    encoder : `ImageEncoderViT` of segment-anything.
    images : (b, 3, H, W) normalised (`normalise`), H and W multiples of the patch side.
    hidden : return the features of `Encoded.hidden` too; positions of blocks (from 0) in place of the global ones.
    adapter : hooks of a method.
    checkpointing : keep no activations inside the blocks but compute them again for the gradient.

    Raises
    ------
    ValueError
        H or W is no multiple of the patch side.
    """
    vit = cast(Any, encoder)
    patch = vit.patch_embed.proj.weight.shape[-1]
    height, width = images.shape[-2:]
    if height % patch or width % patch or not height or not width:
        raise ValueError(f"images are {height} x {width} px, accepted: multiples of the patch side, {patch}")
    x = vit.patch_embed(images)
    x = (
        x + absolute_positions(vit.pos_embed, (height // patch, width // patch))
    ).contiguous()  # else x stays (b, D, h, w)
    wanted = _global_blocks(vit) if isinstance(hidden, bool) else hidden
    kept = [] if hidden is False else [x]
    for index, block in enumerate(vit.blocks):
        if checkpointing and torch.is_grad_enabled():
            x = cast(Tensor, checkpoint(_block, block, index, x, adapter, use_reentrant=False))
        else:
            x = _block(block, index, x, adapter)
        if hidden is not False and index in wanted:
            kept.append(x)
    return Encoded(neck(encoder, x), tuple(kept))


def _global_blocks(vit: Any) -> list[int]:
    return [index for index, block in enumerate(vit.blocks) if block.window_size == 0]


def neck(encoder: nn.Module, x: Tensor) -> Tensor:
    """The encoder's neck on tokens of any block: (b, h, w, D) to (b, C, h, w)."""
    first, norm1, second, norm2 = cast(Any, encoder).neck
    x = F.linear(x, first.weight[:, :, 0, 0])
    x = F.layer_norm(x, x.shape[-1:], norm1.weight, norm1.bias, norm1.eps).permute(0, 3, 1, 2)
    x = second(x).permute(0, 2, 3, 1)
    return F.layer_norm(x, x.shape[-1:], norm2.weight, norm2.bias, norm2.eps).permute(0, 3, 1, 2).contiguous()


def absolute_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Absolute position embedding (1, g, g, D) resized to `grid` (h, w): (1, h, w, D), bicubic, not corner-aligned."""
    if table.shape[1:3] == grid:
        return table
    resized = F.interpolate(table.permute(0, 3, 1, 2).float(), grid, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).to(table.dtype)


def relative_positions(table: Tensor, side: int) -> Tensor:
    """Relative position vectors of every pair along an axis of `side` tokens.

    Parameters
    ----------
    table : (2 g - 1, c), one vector a distance; resized linearly when g is not `side`.

    Returns
    -------
    (side, side, c): [i, j] is the vector of distance i - j.
    """
    if table.shape[0] != 2 * side - 1:
        resized = F.interpolate(table.float().T[None], 2 * side - 1, mode="linear", align_corners=False)
        table = resized[0].T.to(table.dtype)
    index = torch.arange(side, device=table.device)
    return table[index[:, None] - index + side - 1]


def _block(block: Any, index: int, x: Tensor, adapter: Adapter | None) -> Tensor:
    x = x + _attention(block, index, block.norm1(x), adapter)
    x = x + _mlp(block.mlp, block.norm2(x))
    return x if adapter is None else adapter.output(index, x)


def _mlp(mlp: Any, x: Tensor) -> Tensor:
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return cast(Tensor, mlp(x))
    # in place: on a CPU fresh pages for the widest of all tensors take longer than the function itself
    return cast(Tensor, mlp.lin2(torch.ops.aten.gelu_(mlp.lin1(x))))


def _attention(block: Any, index: int, x: Tensor, adapter: Adapter | None) -> Tensor:
    """Attention of a block over its normed tokens, (b, h, w, D) to (b, h, w, D)."""
    attn = block.attn
    b, h, w, dim = x.shape
    qkv = attn.qkv(x)
    if adapter is not None:
        qkv = adapter.qkv(index, x, qkv)
    side_h, side_w = (block.window_size, block.window_size) if block.window_size else (h, w)
    rows, cols = -(-h // side_h), -(-w // side_w)
    if (rows * side_h, cols * side_w) != (h, w):
        qkv = F.pad(qkv, (0, 0, 0, cols * side_w - w, 0, rows * side_h - h))
        if attn.qkv.bias is not None:  # the projection of a zero
            bias = attn.qkv.bias.to(qkv.dtype)
            qkv[:, h:] = bias
            qkv[:, :h, w:] = bias
    heads = attn.num_heads
    # (b, rows, side, cols, side, 3, heads, c) -> (3, b, rows, cols, heads, side, side, c)
    qkv = qkv.reshape(b, rows, side_h, cols, side_w, 3, heads, dim // heads).permute(5, 0, 1, 3, 6, 2, 4, 7)
    query, key, value = qkv.reshape(3, b * rows * cols, heads, side_h * side_w, dim // heads).unbind()
    out = _attend(
        query,
        key,
        value,
        relative_positions(attn.rel_pos_h, side_h).to(query.dtype),
        relative_positions(attn.rel_pos_w, side_w).to(query.dtype),
    )
    # (b, rows, cols, heads, side, side, c)
    out = out.view(b, rows, cols, heads, side_h, side_w, dim // heads)
    if adapter is None or type(adapter).attention is Adapter.attention:
        return cast(Tensor, attn.proj(_join(out.permute(0, 1, 4, 2, 5, 3, 6), (h, w))))
    windows = attn.proj(out.permute(0, 1, 2, 4, 5, 3, 6).reshape(b * rows * cols, side_h, side_w, dim))
    windows = adapter.attention(index, windows)
    return _join(windows.view(b, rows, cols, side_h, side_w, 1, dim).permute(0, 1, 3, 2, 4, 5, 6), (h, w))


def _join(windows: Tensor, size: tuple[int, int]) -> Tensor:
    """(b, rows, side, cols, side, heads, c) to the image's tokens (b, h, w, heads c), without what padded them."""
    b, rows, side_h, cols, side_w = windows.shape[:5]
    # contiguous: a linear layer would go row by row
    return windows.reshape(b, rows * side_h, cols * side_w, -1)[:, : size[0], : size[1]].contiguous()


def _attend(query: Tensor, key: Tensor, value: Tensor, towards_h: Tensor, towards_w: Tensor) -> Tensor:
    """Attention with decomposed relative positions (Li et al. 2022, arXiv:2112.01526, eq. 4) by fused kernels.

    Parameters
    ----------
    query, key, value : (n, heads, h w, c).
    towards_h, towards_w : (h, h, c) and (w, w, c), `relative_positions` of the two axes.

    Returns
    -------
    (n, heads, h w, c).

    Notes
    -----
    The logit of query i and key j is q.k / sqrt c + q.Rh + q.Rw. Four ways, equal but for rounding:

    - The terms q.Rh and q.Rw join the query as h + w further channels, against one-hot rows and columns joined to the
      key. The kernel then needs no bias: nothing of size (h w)^2 is written, in the gradient neither, and flash kernels
      apply. Better in half precision and with gradients.
    - The sum of both terms is written out as the kernel's bias, in pieces of queries. Better in float32 without
      gradients, where the further channels cost more than the bias.
    - On a CPU the same with no fused kernel, in pieces that stay in its caches (`_in_pieces`).
    - Windows with gradients on a CPU: all is written out, with no fused kernel; a quarter less time for `small`.
    """
    n, heads, tokens, c = query.shape
    h, w = len(towards_h), len(towards_w)
    grid = query.view(n, heads, h, w, c)
    by_row = torch.einsum("nahwc,hkc->nahwk", grid, towards_h).reshape(n, heads, tokens, h)
    by_column = torch.einsum("nahwc,wkc->nahwk", grid, towards_w).reshape(n, heads, tokens, w)
    learning = torch.is_grad_enabled() and (by_row.requires_grad or key.requires_grad or value.requires_grad)
    if learning and tokens <= _SMALL_WINDOW and query.device.type == "cpu":
        logits = torch.matmul(query * c**-0.5, key.mT).view(n, heads, tokens, h, w)
        logits = (logits + by_row[..., None] + by_column[..., None, :]).flatten(-2)
        return torch.matmul(logits.softmax(-1), value)
    if query.dtype == torch.float32 and not learning:
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if query.device.type == "cpu" and not traced:  # tracers do not see what is written into a buffer
            return _in_pieces(query, key, value, by_row, by_column)
        step = max(1, _BIAS_BYTES // (4 * n * heads * tokens))
        parts = [
            F.scaled_dot_product_attention(
                query[:, :, start : start + step],
                key,
                value,
                attn_mask=(
                    by_row[:, :, start : start + step, :, None] + by_column[:, :, start : start + step, None, :]
                ).flatten(-2),
            )
            for start in range(0, tokens, step)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    row = torch.eye(h, dtype=key.dtype, device=key.device).repeat_interleave(w, 0)
    column = torch.eye(w, dtype=key.dtype, device=key.device).repeat(h, 1)
    place = torch.cat([row, column], dim=1).expand(n, heads, -1, -1)
    out = F.scaled_dot_product_attention(
        torch.cat([query * c**-0.5, by_row, by_column], dim=-1),
        torch.cat([key, place], dim=-1),
        F.pad(value, (0, h + w)),  # flash kernels want one width
        scale=1.0,
    )
    return out[..., :c]


def _in_pieces(query: Tensor, key: Tensor, value: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """Attention by plain matrix products in one buffer for the logits: some heads, or some queries of one, at a time.

    Parameters
    ----------
    query, key, value : (n, heads, h w, c).
    by_row, by_column : (n, heads, h w, h) and (n, heads, h w, w), the terms of each query and row or column of keys.

    Returns
    -------
    (n, heads, h w, c).
    """
    n, heads, tokens, c = query.shape
    query, key, value, by_row, by_column = (x.flatten(0, 1) for x in (query * c**-0.5, key, value, by_row, by_column))
    most = max(1, _LOGIT_BYTES // (4 * tokens))
    rows, maps = min(most, tokens), max(1, min(most // tokens, n * heads))
    buffer = query.new_empty(maps * rows * tokens)
    out = torch.empty_like(value, memory_format=torch.contiguous_format)
    for first in range(0, n * heads, maps):
        some = slice(first, first + maps)
        for start in range(0, tokens, rows):
            part = query[some, start : start + rows]
            logits = buffer[: part.shape[0] * part.shape[1] * tokens].view(*part.shape[:2], tokens)
            torch.add(
                by_row[some, start : start + rows, :, None],
                by_column[some, start : start + rows, None],
                out=logits.view(*part.shape[:2], by_row.shape[2], by_column.shape[2]),
            )
            logits.baddbmm_(part, key[some].mT)
            torch.softmax(logits, -1, out=logits)
            torch.bmm(logits, value[some], out=out[some, start : start + rows])
    return out.view(n, heads, tokens, c)
