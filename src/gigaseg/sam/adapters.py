"""What methods attach to the image encoder without touching its modules: the hooks, and low-rank adaptation (LoRA)."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn


class Adapter(nn.Module):
    """Hooks that `gigaseg.sam.encoder.encode` calls in every block; here each hands back what it got.

    A subclass overrides the hooks it needs; hooks may have parameters. The encoder's own modules stay as they are.
    """

    def qkv(self, block: int, x: Tensor, out: Tensor) -> Tensor:
        """Change the projection to queries, keys and values, position by position.

        It is called on the image's tokens, before windows are cut; what windows add at the right and bottom border
        keeps the projection's bias, as in the reference.

        Parameters
        ----------
        block : position of the block, from 0.
        x : (b, h, w, D) tokens after the block's first norm.
        out : (b, h, w, 3 D) their projection: queries, keys, values.

        Returns
        -------
        (b, h, w, 3 D) tensor; `out` is not changed in place.
        """
        return out

    def attention(self, block: int, x: Tensor) -> Tensor:
        """Change the attention's output (after its last projection), before the residual is added.

        Parameters
        ----------
        block : position of the block, from 0.
        x : (b x windows, window, window, D) for a windowed block, what pads the image included; (b, h, w, D) for a
            global one.

        Returns
        -------
        Tensor of the same shape.
        """
        return x

    def output(self, block: int, x: Tensor) -> Tensor:
        """Change the block's output.

        Parameters
        ----------
        block : position of the block, from 0.
        x : (b, h, w, D), after the residual of the MLP.

        Returns
        -------
        Tensor of the same shape.
        """
        return x


class Lora(Adapter):
    """Low-rank adaptation of the query and value projections of every block (Hu et al. 2022, arXiv:2106.09685).

    Queries and values get s B A x added, with A (rank, D) drawn Kaiming-uniform (a = sqrt 5) and B (D, rank) zero:
    the encoder is exactly the original at the start. Keys stay as they are. There are 4 rank D depth parameters.

    Parameters
    ----------
    depth, embed_dim : of the encoder (`SamConfig`).
    rank : of the added product.
    alpha : s = alpha / rank; None for s = 1.
    """

    def __init__(self, depth: int, embed_dim: int, rank: int, alpha: float | None = None) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank is {rank}, accepted: 1 or more")
        self.rank = rank
        self.scale = 1.0 if alpha is None else alpha / rank
        self.a_q, self.a_v, self.b_q, self.b_v = (nn.ParameterList() for _ in range(4))
        for _ in range(depth):
            for down, up in ((self.a_q, self.b_q), (self.a_v, self.b_v)):
                a = torch.empty(rank, embed_dim)
                nn.init.kaiming_uniform_(a, a=math.sqrt(5))
                down.append(nn.Parameter(a))
                up.append(nn.Parameter(torch.zeros(embed_dim, rank)))

    def qkv(self, block: int, x: Tensor, out: Tensor) -> Tensor:
        """Add the low-rank terms to queries and values; shapes as `Adapter.qkv`."""
        query, key, value = out.chunk(3, dim=-1)
        query = query + self._term(x, self.a_q[block], self.b_q[block])
        value = value + self._term(x, self.a_v[block], self.b_v[block])
        return torch.cat([query, key, value], dim=-1)

    def _term(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return self.scale * nn.functional.linear(nn.functional.linear(x, a), b)

    @torch.no_grad()
    def merge(self, encoder: nn.Module) -> None:
        """Add the low-rank products to the weights of `encoder`, in place; afterwards it needs no adapter.

        Raises
        ------
        ValueError
            The encoder has another depth or width.
        """
        blocks = list(cast(Any, encoder).blocks)
        if len(blocks) != len(self.a_q) or blocks[0].attn.qkv.in_features != self.a_q[0].shape[1]:
            raise ValueError(
                f"an adapter of {len(self.a_q)} blocks of width {self.a_q[0].shape[1]} does not fit an encoder of "
                f"{len(blocks)} blocks of width {blocks[0].attn.qkv.in_features}"
            )
        for index, block in enumerate(blocks):
            weight = block.attn.qkv.weight
            third = weight.shape[0] // 3
            weight[:third] += self.scale * self.b_q[index] @ self.a_q[index]
            weight[2 * third :] += self.scale * self.b_v[index] @ self.a_v[index]
