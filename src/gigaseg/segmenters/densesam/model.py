"""DenseSAM's forward pass: one mask token, no prompt, image tokens with the injected term, two heads of that token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.sam.config import SamConfig
from gigaseg.sam.encoder import Encoded
from gigaseg.sam.prompting import embed_masks, grid_positions
from gigaseg.sam.twoway import Casts
from gigaseg.sam.upscaling import upscale
from gigaseg.segmenters.densesam.config import DenseSamConfig
from gigaseg.segmenters.densesam.injection import Injection

DENSE = "densesam."
"""Of the names of what DenseSAM adds to a SAM model; all others are SAM's, by their official names."""

MASK_TOKEN = 2
"""Row of SAM's mask tokens that the mask token starts from: the second of the three for ambiguous prompts."""


class Dense(nn.Module):
    """What DenseSAM adds to a SAM model, initialised.

    Attributes
    ----------
    token : (1, C) the mask token ("semantic embedding").
    iou_token : (1, C), beside it; it never trains on its own.
    objects, boundaries : the networks that make a filter (C / 8) of that token; boundaries is None with one head.
    injection : None when nothing is injected.
    """

    def __init__(self, config: DenseSamConfig, sam: SamConfig) -> None:
        super().__init__()
        channels = sam.prompt_dim
        self.token = nn.Parameter(torch.zeros(1, channels))
        self.iou_token = nn.Parameter(torch.randn(1, channels), requires_grad=False)
        self.objects = _filter(channels)
        self.boundaries = _filter(channels) if config.heads == 2 else None
        self.injection = (
            Injection(sam.embed_dim, channels, local_branch=config.local_branch, global_branch=config.global_branch)
            if config.injects
            else None
        )

    @torch.no_grad()
    def start_from(self, sam: nn.Module, iou_token: str) -> None:
        """Take the mask token, and with "sam" the IoU token, from SAM's decoder."""
        decoder = cast(Any, sam).mask_decoder
        self.token.copy_(decoder.mask_tokens.weight[MASK_TOKEN : MASK_TOKEN + 1])
        if iou_token == "sam":
            self.iou_token.copy_(decoder.iou_token.weight)


@dataclass(frozen=True)
class Maps:
    """What a DenseSAM model yields.

    Attributes
    ----------
    logits : (b, heads, 4 h, 4 w) float32 on the low-res grid of the embedding h x w: objects, then boundaries.
    contrast : of `gigaseg.segmenters.densesam.injection.Injected`.
    cells : (b, N, C) the image tokens that the heads meet.
    """

    logits: Tensor
    contrast: Tensor | None
    cells: Tensor


def dense_maps(sam: nn.Module, dense: nn.Module, config: DenseSamConfig, encoded: Encoded) -> Maps:
    """Logits of each image; differentiable. It computes in float32, under autocast too: nothing bounds the local term.

    Parameters
    ----------
    sam : `segment_anything.modeling.Sam`, whose decoder and prompt encoder are used.
    dense : `Dense`.
    encoded : embedding, and hidden features of which `config.inner_idx` are injected (`selected`).
    """
    with torch.autocast(encoded.embedding.device.type, enabled=False):
        layers = [x.float() for x in selected(encoded, config)] if config.injects else []
        return _maps(sam, cast(Dense, dense), config, encoded.embedding.float(), layers)


def _maps(sam: nn.Module, net: Dense, config: DenseSamConfig, embedding: Tensor, layers: list[Tensor]) -> Maps:
    decoder = cast(Any, sam).mask_decoder
    b, c, h, w = embedding.shape
    injected = None if net.injection is None else net.injection(layers)
    term = None if injected is None else injected.term
    cells = (embedding + embed_masks(sam, None).view(1, c, 1, 1)).flatten(2).mT
    positions = grid_positions(sam, (h, w))[None]
    tokens = torch.cat([net.iou_token, net.token])[None].expand(b, -1, -1)
    state, cells = _transform(decoder.transformer, tokens, cells, positions, term, config)
    heads = [net.objects] if net.boundaries is None else [net.objects, net.boundaries]
    filters = torch.stack([head(state[:, 1]) for head in heads], 1)
    logits, _ = upscale(decoder.output_upscaling, cells, filters, (h, w), Casts(), keep=False)
    return Maps(logits, None if injected is None else injected.contrast, cells)


def selected(encoded: Encoded, config: DenseSamConfig) -> list[Tensor]:
    """The features that are injected, of all that the encoder kept."""
    return [encoded.hidden[i] for i in config.inner_idx]


def upsampled(logits: Tensor, shape: tuple[int, int]) -> Tensor:
    """Maps (b, k, h, w) at another size, bilinear as SAM resizes its masks."""
    if logits.shape[-2:] == shape:
        return logits
    return F.interpolate(logits.float(), shape, mode="bilinear", align_corners=False)


def _filter(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU(),
        nn.Linear(channels, channels // 8),
    )  # fmt: skip


def _transform(
    transformer: Any, tokens: Tensor, cells: Tensor, positions: Tensor, term: Tensor | None, config: DenseSamConfig
) -> tuple[Tensor, Tensor]:
    """SAM's two-way transformer with the injected term; tokens (b, 2, C) and image tokens (b, N, C) at its end.

    Without the update of image tokens, SAM's LN(K + attention) is LN(K), so that they do not depend on the tokens.
    """
    state = tokens
    for block in transformer.layers:
        if term is not None and config.site == "before":
            cells = cells + term
        if block.skip_first_layer_pe:
            state = block.self_attn(q=state, k=state, v=state)
        else:
            placed = state + tokens
            state = state + block.self_attn(q=placed, k=placed, v=state)
        state = block.norm1(state)
        state = block.norm2(state + block.cross_attn_token_to_image(q=state + tokens, k=cells + positions, v=cells))
        state = block.norm3(state + block.mlp(state))
        if config.image_token_update:
            cells = cells + block.cross_attn_image_to_token(q=cells + positions, k=state + tokens, v=state)
        cells = block.norm4(cells)
        if term is not None and config.site == "after":
            cells = cells + term
    if term is not None and config.site == "end":
        cells = cells + term
    attended = transformer.final_attn_token_to_image(q=state + tokens, k=cells + positions, v=cells)
    return transformer.norm_final_attn(state + attended), cells
