"""Target guidance inside SAM's decoder (PerSAM, section 3.2), for the few prompts that look for an exemplar.

Plain PyTorch over the reference modules: the decoder's fast path shares work between prompts that guidance changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.sam.decoder import Decoded
from gigaseg.sam.prompting import PromptSets, embed_prompts, grid_positions
from gigaseg.segmenters.persense.target import Target, cosine


@dataclass(frozen=True, eq=False)
class Guidance:
    """What steers the decoder to the target.

    Attributes
    ----------
    attention : (gh gw,) added to the attention of tokens to cells, before a second softmax; None: not changed.
    semantic : (C,) added to the tokens in every layer; None: not changed.
    """

    attention: Tensor | None
    semantic: Tensor | None

    @classmethod
    def of(cls, features: Tensor, target: Target) -> Guidance:
        """Guidance in a picture (C, gh, gw).

        The cosines of the cells are standardised (unbiased deviation) and squashed. The published code does so at the
        size of the picture and squeezes the result, unpadded, onto the grid of the padded input, which misplaces it in
        pictures that are not square; here it stays on the grid.
        """
        cells = cosine(features, target.direction).flatten()
        deviation = cells.std().clamp(min=1e-6)
        return cls(torch.sigmoid((cells - cells.mean()) / deviation), target.embedding)


@torch.inference_mode()
def guided_masks(model: nn.Module, features: Tensor, sets: PromptSets, guidance: Guidance) -> Decoded:
    """The three masks of each prompt set of one picture; without guidance those of SAM's own decoder, bit for bit.

    Parameters
    ----------
    model : `segment_anything.modeling.Sam`.
    features : (C, gh, gw) of the picture.
    sets : in px of SAM's input; all with a box, or none.
    """
    sam = cast(Any, model)
    decoder = sam.mask_decoder
    channels, rows, cols = features.shape
    patch = int(sam.image_encoder.patch_embed.proj.stride[0])
    sparse, dense = embed_prompts(model, sets, (rows * patch, cols * patch))
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(len(sets), -1, -1), sparse], dim=1)
    cells = features[None].float().expand(len(sets), -1, -1, -1) + dense
    # laid out in memory as the cells are, or products would be rounded otherwise than in SAM's own decoder
    positions = grid_positions(model, (rows, cols)).T[None].repeat(len(sets), 1, 1).mT
    state, cells = _transform(decoder.transformer, cells.flatten(2).mT, positions, tokens, guidance)
    fine = decoder.output_upscaling(cells.mT.reshape(len(sets), channels, rows, cols))
    masks = range(decoder.num_mask_tokens)
    vectors = torch.stack([decoder.output_hypernetworks_mlps[m](state[:, 1 + m]) for m in masks], dim=1)
    logits = (vectors @ fine.flatten(2)).view(len(sets), len(masks), *fine.shape[2:])[:, 1:]
    quality = decoder.iou_prediction_head(state[:, 0])[:, 1:]
    return Decoded(logits, torch.zeros(len(sets), 2, dtype=torch.int64, device=logits.device), quality)


def _transform(
    transformer: Any, cells: Tensor, positions: Tensor, tokens: Tensor, guidance: Guidance
) -> tuple[Tensor, Tensor]:
    """The two-way transformer.

    The published code adds the semantic prompt in place to a tensor that is the tokens' positional term too: both hold
    it from then on, and so it does here.
    """
    bias, semantic = guidance.attention, guidance.semantic
    place = tokens if semantic is None else tokens + semantic
    queries, keys = place, cells
    for index, block in enumerate(transformer.layers):
        if semantic is not None and index > 0:
            queries = queries + semantic
        if block.skip_first_layer_pe:
            queries = block.self_attn(q=queries, k=queries, v=queries)
        else:
            placed = queries + place
            queries = queries + block.self_attn(q=placed, k=placed, v=queries)
        queries = block.norm1(queries)
        attended = _attend(block.cross_attn_token_to_image, queries + place, keys + positions, keys, bias)
        queries = block.norm2(queries + attended)
        queries = block.norm3(queries + block.mlp(queries))
        given = block.cross_attn_image_to_token(q=keys + positions, k=queries + place, v=queries)
        keys = block.norm4(keys + given)
    last = queries + place if semantic is None else queries + place + semantic
    attended = transformer.final_attn_token_to_image(q=last, k=keys + positions, v=keys)
    return transformer.norm_final_attn(queries + attended), keys


def _attend(attention: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention whose weights, with a bias, go through a second softmax."""
    if bias is None:
        return cast(Tensor, attention(q=q, k=k, v=v))
    heads = attention.num_heads
    query, key, value = (
        layer(x).unflatten(2, (heads, -1)).transpose(1, 2)
        for layer, x in ((attention.q_proj, q), (attention.k_proj, k), (attention.v_proj, v))
    )
    share = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1)
    share = F.softmax(share + bias, dim=-1)
    return cast(Tensor, attention.out_proj((share @ value).transpose(1, 2).flatten(2)))
