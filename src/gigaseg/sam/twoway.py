"""The decoder's two-way transformer, arranged for many prompts an image.

It computes what segment-anything's `TwoWayTransformer` computes, over the parameters of that module. A prompt has few
tokens (t, about seven) and an image many cells (N, thousands), so what is done to every cell of every prompt is what
costs. Per cross-attention and head the reference projects all N cells; here the projection is moved to the tokens:

- a score is q . (W x + b) = (W^T q) . x + q . b: with 8 heads, 8 t vectors of the cells' own width meet the cells;
  q . b is the same for every cell and leaves the softmax over cells as it is;
- a sum of values is W (sum of p x) + b, as the weights p of a head sum to 1;
- what cells receive from tokens, W_out (sum of p v), is the sum of p (W_out v).

Before the first block's second half the cells are the same for all prompts of an image (unless they have mask
prompts): there the projections are made once an image (`Shared`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Cells:
    """The image's cells as prompts see them.

    Attributes
    ----------
    x : (n, N, C) with the dense prompt added; n = 1 stands for any number of prompts.
    pe : (n or 1, N, C) positional encoding.
    """

    x: Tensor
    pe: Tensor


class Casts:
    """Parameters in the precision of what they meet, converted once in the life of this object."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, torch.dtype], Tensor] = {}

    def __call__(self, parameter: Tensor, dtype: torch.dtype) -> Tensor:
        """`parameter` as `dtype`."""
        if parameter.dtype == dtype:
            return parameter
        key = (id(parameter), dtype)
        if key not in self._known:
            self._known[key] = parameter.to(dtype)
        return self._known[key]

    def linear(self, x: Tensor, layer: Any) -> Tensor:
        """`layer` on `x`, in the precision of `x`."""
        return F.linear(x, self(layer.weight, x.dtype), self(layer.bias, x.dtype))

    def norm(self, x: Tensor, layer: Any) -> Tensor:
        """`layer`, a LayerNorm, on the last axis of `x`, in the precision of `x`."""
        return F.layer_norm(x, x.shape[-1:], self(layer.weight, x.dtype), self(layer.bias, x.dtype), layer.eps)


@dataclass(frozen=True)
class Shared:
    """Projections of the first block that are the same for every prompt of an image, each (heads, N, c).

    Attributes
    ----------
    key, value : of the attention from tokens to cells.
    query : of the attention from cells to tokens, already divided by sqrt c.
    """

    key: Tensor
    value: Tensor
    query: Tensor

    @classmethod
    def of(cls, block: Any, cells: Cells, casts: Casts) -> Shared:
        """For the cells of one image, n = 1."""
        placed = (cells.x + cells.pe)[0]
        to_cells, to_tokens = block.cross_attn_token_to_image, block.cross_attn_image_to_token
        query = _heads(casts.linear(placed, to_tokens.q_proj), to_tokens.num_heads)
        return cls(
            _heads(casts.linear(placed, to_cells.k_proj), to_cells.num_heads),
            _heads(casts.linear(cells.x[0], to_cells.v_proj), to_cells.num_heads),
            query * query.shape[-1] ** -0.5,
        )


def transform(
    transformer: Any, tokens: Tensor, cells: Cells, shared: Shared | None, wanted: list[int], casts: Casts
) -> tuple[Tensor, Tensor]:
    """Run the two-way transformer.

    Parameters
    ----------
    transformer : segment-anything's `TwoWayTransformer`.
    tokens : (n, t, C) float32.
    cells : in the precision to compute with.
    shared : of the first block, when the cells are those of one image; else None.
    wanted : the tokens whose final state is asked for.

    Returns
    -------
    tokens : (n, len(wanted), C) float32.
    cells : (n, N, C).
    """
    x, dtype = cells.x, cells.x.dtype
    state = tokens
    for index, block in enumerate(transformer.layers):
        placed = state if index == 0 else state + tokens
        attended = _among_tokens(casts, block.self_attn, placed.to(dtype), state.to(dtype)).float()
        state = casts.norm(attended if index == 0 else state + attended, block.norm1)
        at_cells = shared if index == 0 and shared is not None else Cells(x, x + cells.pe)
        attended = _tokens_to_cells(casts, block.cross_attn_token_to_image, (state + tokens).to(dtype), at_cells)
        state = casts.norm(state + attended.float(), block.norm2)
        hidden = F.relu(casts.linear(state.to(dtype), block.mlp.lin1))
        state = casts.norm(state + casts.linear(hidden, block.mlp.lin2).float(), block.norm3)
        to_tokens, placed = block.cross_attn_image_to_token, (state + tokens).to(dtype)
        x = _cells_to_tokens(casts, to_tokens, placed, state.to(dtype), x, at_cells, own=index > 0)
        x = casts.norm(x, block.norm4)
    last = (state + tokens)[:, wanted].to(dtype)
    attended = _tokens_to_cells(casts, transformer.final_attn_token_to_image, last, Cells(x, x + cells.pe))
    return casts.norm(state[:, wanted] + attended.float(), transformer.norm_final_attn), x


def _heads(x: Tensor, heads: int) -> Tensor:
    """(…, C) to (heads, …, C / heads), the axes between flattened."""
    return x.reshape(-1, heads, x.shape[-1] // heads).transpose(0, 1)


def _by_prompt(x: Tensor, n: int) -> Tensor:
    """(heads, n t, c) to (n, heads t, c)."""
    heads, _, c = x.shape
    return x.reshape(heads, n, -1, c).transpose(0, 1).reshape(n, -1, c)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(n, heads t, c) to (heads, n t, c)."""
    n, _, c = x.shape
    return x.view(n, heads, -1, c).transpose(0, 1).reshape(heads, -1, c)


def _rows(weight: Tensor, heads: int) -> Tensor:
    """(I, C) to (heads, I / heads, C)."""
    return weight.view(heads, -1, weight.shape[-1])


def _among_tokens(casts: Casts, attention: Any, placed: Tensor, x: Tensor) -> Tensor:
    n, t, _ = x.shape
    heads = attention.num_heads
    query, key, value = (
        casts.linear(of, layer).view(n, t, heads, -1).transpose(1, 2)
        for of, layer in ((placed, attention.q_proj), (placed, attention.k_proj), (x, attention.v_proj))
    )
    out = F.scaled_dot_product_attention(query, key, value)
    return casts.linear(out.transpose(1, 2).reshape(n, t, -1), attention.out_proj)


def _tokens_to_cells(casts: Casts, attention: Any, tokens: Tensor, cells: Cells | Shared) -> Tensor:
    """What each token takes from the cells: (n, t, C) to (n, t, C). With `Cells`, `pe` holds x + pe."""
    n, t, _ = tokens.shape
    heads = attention.num_heads
    query = _heads(casts.linear(tokens, attention.q_proj), heads)  # (heads, n t, c)
    if isinstance(cells, Shared):
        out = F.scaled_dot_product_attention(query[None], cells.key[None], cells.value[None])[0]
    else:
        query = query * query.shape[-1] ** -0.5
        absorbed = _by_prompt(torch.bmm(query, _rows(casts(attention.k_proj.weight, query.dtype), heads)), n)
        share = torch.softmax(torch.matmul(absorbed, cells.pe.mT), dim=-1)  # (n, heads t, N)
        value = _by_head(torch.matmul(share, cells.x), heads)  # (heads, n t, C)
        out = torch.bmm(value, _rows(casts(attention.v_proj.weight, query.dtype), heads).mT)
        out = out + casts(attention.v_proj.bias, query.dtype).view(heads, 1, -1)
    return casts.linear(out.transpose(0, 1).reshape(n, t, -1), attention.out_proj)


def _cells_to_tokens(
    casts: Casts, attention: Any, placed: Tensor, tokens: Tensor, x: Tensor, cells: Cells | Shared, *, own: bool
) -> Tensor:
    """The cells `x` (n or 1, N, C) and what each takes from the tokens: (n, N, C). `own`: nobody else needs `x`."""
    n, t, _ = tokens.shape
    heads = attention.num_heads
    key = _heads(casts.linear(placed, attention.k_proj), heads)
    value = _heads(casts.linear(tokens, attention.v_proj), heads)
    if isinstance(cells, Shared):
        scores = torch.bmm(key, cells.query.mT).view(heads, n, t, -1).transpose(0, 1)  # (n, heads, t, N)
    else:
        key = key * key.shape[-1] ** -0.5
        absorbed = _by_prompt(torch.bmm(key, _rows(casts(attention.q_proj.weight, key.dtype), heads)), n)
        constant = _by_prompt(torch.bmm(key, casts(attention.q_proj.bias, key.dtype).view(heads, -1, 1)), n)
        scores = (torch.matmul(absorbed, cells.pe.mT) + constant).view(n, heads, t, -1)
    share = torch.softmax(scores, dim=2).reshape(n, heads * t, -1)
    out = attention.out_proj
    given = torch.bmm(value, casts(out.weight, value.dtype).T.reshape(heads, -1, out.out_features))  # (heads, n t, C)
    given = _by_prompt(given, n).view(n, heads, t, -1)
    # a head's shares sum to 1, so its tokens can carry the bias
    given = torch.cat([given[:, :1] + casts(out.bias, given.dtype), given[:, 1:]], dim=1).view(n, heads * t, -1)
    if own and not torch.is_grad_enabled():
        return x.baddbmm_(share.mT, given)
    return torch.baddbmm(x.expand(n, -1, -1), share.mT, given)
