"""Decoding prompts into masks: the fast path of segment-anything's `MaskDecoder`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.sam.local import cut_masks, window_cells, window_origins
from gigaseg.sam.prompting import PromptSets, embed_masks, embed_prompts, grid_positions, groups
from gigaseg.sam.twoway import Casts, Cells, Shared, transform
from gigaseg.sam.upscaling import upscale

if TYPE_CHECKING:
    from gigaseg.sam.encoder import Encoded

_CPU_CELLS = 1 << 14
"""Cells of all prompts decoded at a time on a CPU (1 kB a cell and tensor): fewer, and reading the weights for each
chunk costs more than what the cache spares (measured)."""

_GPU_SHARE = 0.4
"""Share of the free memory of a GPU that one chunk may take."""

_BYTES_PER_CELL = 24
"""Peak memory of decoding, in bytes a cell, channel and prompt, as upper estimate for half precision."""


@dataclass(frozen=True)
class Decoded:
    """What the decoder yields for n prompt sets and m masks each.

    Attributes
    ----------
    logits : (n, m, 4 h', 4 w') float32 on the low-res grid (four times the embedding's), of the window or of the whole.
    origin : (n, 2) int64 x, y of the logits' first pixel in the low-res grid; zeros without a window.
    quality : (n, m) float32 predicted IoU.
    features : (n, C / 8, 4 h', 4 w') embedding after upscaling, when asked for.
    tokens : (n, m, C / 8) each mask's vector, whose product with that embedding are the logits; None: not known.
    """

    logits: Tensor
    origin: Tensor
    quality: Tensor
    features: Tensor | None = None
    tokens: Tensor | None = None


def decode(
    model: nn.Module,
    encoded: Encoded,
    sets: PromptSets,
    *,
    multimask: bool = False,
    window: int | None = None,
    chunk: int | None = None,
    features: bool = False,
) -> Decoded:
    """Decode prompt sets of several images in one flat batch.

    Equal to the reference prompt encoder and mask decoder, run image by image, within rounding. Differentiable with
    respect to the embedding, mask prompts and parameters. Under autocast it computes in that precision (the tokens'
    residual stream stays in float32); the result is float32.

    Parameters
    ----------
    model : `segment_anything.modeling.Sam`.
    encoded : embedding (b, C, h, w) of the images.
    sets : on the same device.
    multimask : the three masks for ambiguous prompts instead of the single one.
    window : local decoding: each prompt sees the `window` x `window` cells of the embedding around it. An approximation
        for weights trained without it. None: the whole embedding. Positions are those in the image if that has the size
        the model was made for; else the window stands in the middle of an image of that size, so that distances are
        those that the weights know, and a mask does not depend on where in the image its object lies.
    chunk : most prompts at a time; None: by memory (all at once when gradients are wanted). No result depends on it but
        by rounding.
    features : return `Decoded.features`.
    """
    embedding = encoded.embedding
    c, h, w = embedding.shape[1:]
    device = embedding.device
    patch = int(cast(Any, model).image_encoder.patch_embed.proj.stride[0])
    shape = (h, w) if window is None else (min(window, h), min(window, w))
    chunk = chunk or _chunk(shape[0] * shape[1], c, device)
    run = _Run(model, _compute_dtype(embedding), shape, [1, 2, 3] if multimask else [0], features, Casts())
    found: list[Decoded] = [_nothing(run, c, device)]
    order: list[Tensor] = []
    with torch.autocast(device.type, enabled=False):
        images = embedding.to(run.dtype).flatten(2).mT.contiguous()  # (b, N, C)
        place = None if window is None else _Place.of(model, shape, (h, w))
        positions = grid_positions(model, (h, w)).to(run.dtype)
        bare = images + embed_masks(model, None).to(run.dtype).view(1, 1, c)  # what sets without a mask prompt see
        for index, some in groups(sets):
            order.append(index)
            seen, input_shape = replace(some, masks=None), (h * patch, w * patch)
            origin = window_origins(some, patch, (h, w), max(shape) if window is None else window)
            if place is not None:
                seen, input_shape = place.moved(seen, origin, patch), place.input_shape
            sparse, _ = embed_prompts(model, seen, input_shape)
            if window is None and some.masks is None:
                origin = torch.zeros(len(some), 2, dtype=torch.int64, device=device)
                for image, start, stop in _runs(some.image):
                    cells = Cells(bare[image : image + 1], positions[None])
                    shared = Shared.of(run.decoder.transformer.layers[0], cells, run.casts)
                    found += [_piece(run, sparse[at], cells, shared, origin[at]) for at in _slices(start, stop, chunk)]
                continue
            for at in _slices(0, len(some), chunk):
                near = window_cells(origin[at], shape, (h, w))  # (n, N)
                flat = (some.image[at, None] * (h * w) + near).flatten()
                x = (bare if some.masks is None else images).flatten(0, 1)
                x = x.index_select(0, flat).view(*near.shape, c)  # its gradient is quick, unlike that of an index
                if some.masks is not None:
                    masks = cut_masks(some.masks[at], 4 * origin[at], run.size)
                    x = x + embed_masks(model, masks).to(run.dtype).flatten(2).mT
                if place is None:
                    pe = positions.index_select(0, near.flatten()).view(*near.shape, c)
                else:
                    pe = place.positions.to(run.dtype).expand(len(near), -1, -1)
                found.append(_piece(run, sparse[at], Cells(x, pe), None, 4 * origin[at]))
    return _join(found, order)


@dataclass(frozen=True)
class _Place:
    """Where windows stand in an image of the size that the model was made for.

    Attributes
    ----------
    corner : (2,) int64 x, y of their first cell there.
    positions : (1, N, C) float32 encoding of their cells.
    input_shape : height and width of that image, px.
    """

    corner: Tensor
    positions: Tensor
    input_shape: tuple[int, int]

    @classmethod
    def of(cls, model: nn.Module, shape: tuple[int, int], grid: tuple[int, int]) -> _Place | None:
        """In its middle; None where windows keep their own positions: in such an image, or if they are larger."""
        encoder = cast(Any, model).prompt_encoder
        made_for: tuple[int, int] = tuple(encoder.image_embedding_size)
        if grid in (made_for, shape) or shape[0] > made_for[0] or shape[1] > made_for[1]:
            return None
        y, x = ((whole - part) // 2 for whole, part in zip(made_for, shape))
        cells = grid_positions(model, made_for).view(*made_for, -1)[y : y + shape[0], x : x + shape[1]]
        corner = torch.tensor([x, y], device=cells.device)
        return cls(corner, cells.flatten(0, 1)[None], tuple(encoder.input_image_size))

    def moved(self, sets: PromptSets, origin: Tensor, patch: int) -> PromptSets:
        """The prompts of windows at `origin` (n, 2) x, y in cells, moved along with them."""
        shift = ((self.corner - origin) * patch).float()
        boxes = None if sets.boxes is None else sets.boxes + shift.repeat(1, 2)
        return replace(sets, points=sets.points + shift[:, None], boxes=boxes)


@dataclass(frozen=True)
class _Run:
    """What all pieces of a call share."""

    model: nn.Module
    dtype: torch.dtype
    shape: tuple[int, int]
    masks: list[int]
    features: bool
    casts: Casts

    @property
    def decoder(self) -> Any:
        return cast(Any, self.model).mask_decoder

    @property
    def size(self) -> tuple[int, int]:
        """Of the logits."""
        return 4 * self.shape[0], 4 * self.shape[1]


def _piece(run: _Run, sparse: Tensor, cells: Cells, shared: Shared | None, origin: Tensor) -> Decoded:
    """Decode n prompts; `origin` in low-res px."""
    decoder = run.decoder
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
    state, x = transform(decoder.transformer, tokens, cells, shared, [0] + [1 + mask for mask in run.masks], run.casts)
    weights = torch.stack(
        [_mlp(run.casts, decoder.output_hypernetworks_mlps[m], state[:, 1 + i]) for i, m in enumerate(run.masks)], dim=1
    )
    logits, embedding = upscale(decoder.output_upscaling, x, weights, run.shape, run.casts, keep=run.features)
    quality = _mlp(run.casts, decoder.iou_prediction_head, state[:, 0])[:, run.masks]
    return Decoded(logits.float(), origin, quality, embedding, weights.float())


def _nothing(run: _Run, channels: int, device: torch.device) -> Decoded:
    m = len(run.masks)
    features = torch.zeros(0, channels // 8, *run.size, dtype=run.dtype, device=device) if run.features else None
    none = torch.zeros(0, 2, dtype=torch.int64, device=device)
    quality, tokens = torch.zeros(0, m, device=device), torch.zeros(0, m, channels // 8, device=device)
    return Decoded(torch.zeros(0, m, *run.size, device=device), none, quality, features, tokens)


def _join(found: list[Decoded], order: list[Tensor]) -> Decoded:
    """Pieces as one; `order` holds the positions of the groups that they come from, one after another."""
    if len(found) == 2:
        joined = found[1]
    else:
        features = [piece.features for piece in found if piece.features is not None]
        joined = Decoded(
            torch.cat([piece.logits for piece in found]),
            torch.cat([piece.origin for piece in found]),
            torch.cat([piece.quality for piece in found]),
            torch.cat(features) if features else None,
            torch.cat([piece.tokens for piece in found if piece.tokens is not None]),
        )
    if len(order) < 2:
        return joined
    back = torch.cat(order).argsort()
    features_ = None if joined.features is None else joined.features[back]
    tokens = None if joined.tokens is None else joined.tokens[back]
    return Decoded(joined.logits[back], joined.origin[back], joined.quality[back], features_, tokens)


def _mlp(casts: Casts, mlp: Any, x: Tensor) -> Tensor:
    for layer in mlp.layers[:-1]:
        x = F.relu(casts.linear(x, layer))
    return casts.linear(x, mlp.layers[-1])


def _compute_dtype(embedding: Tensor) -> torch.dtype:
    if torch.is_autocast_enabled(embedding.device.type):
        return torch.get_autocast_dtype(embedding.device.type)
    return embedding.dtype


def _chunk(cells: int, channels: int, device: torch.device) -> int:
    if torch.is_grad_enabled():
        return 1 << 30
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        free -= torch.cuda.memory_allocated(device)
        return max(1, int(_GPU_SHARE * free) // (_BYTES_PER_CELL * cells * channels))
    return max(1, _CPU_CELLS // cells)


def _slices(start: int, stop: int, step: int) -> Iterator[slice]:
    for first in range(start, stop, step):
        yield slice(first, min(stop, first + step))


def _runs(image: Tensor) -> Iterator[tuple[int, int, int]]:
    """Image, first and last + 1 prompt of each run of equal images."""
    values, counts = torch.unique_consecutive(image, return_counts=True)
    start = 0
    for value, count in zip(values.tolist(), counts.tolist()):
        yield value, start, start + count
        start += count
