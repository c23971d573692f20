"""CFR-SAM's second stage: what is added to a SAM model, and how it encodes images and decodes prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.errors import CheckpointError
from gigaseg.sam.backend import reaches_edge
from gigaseg.sam.config import SamConfig
from gigaseg.sam.decoder import Decoded
from gigaseg.sam.encoder import Encoded, encode, neck
from gigaseg.sam.masks import chosen
from gigaseg.segmenters.cfrsam.config import CfrSamConfig
from gigaseg.segmenters.cfrsam.fusion import LEVELS, Fusion, level_blocks
from gigaseg.segmenters.cfrsam.mala import MalaAdapter
from gigaseg.segmenters.cfrsam.refine import ImageMaps, Refinement

ADDED = "cfrsam."
"""What the names of the added tensors begin with in a checkpoint."""

_ACTIVATIONS = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Pixels of all windows that are refined at a time, times channels: some 40 floats each are alive at once."""


class Added(nn.Module):
    """What CFR-SAM adds to a SAM model.

    Attributes
    ----------
    mala : adapters of the encoder, or None.
    fusion : of its levels.
    refine : of masks, or None.

    Raises
    ------
    CheckpointError
        SAM has too few blocks, or patches or channels that the refinement does not suit.
    """

    def __init__(self, config: CfrSamConfig, sam: SamConfig) -> None:
        super().__init__()
        if sam.depth < LEVELS and config.fusion != "last":
            raise CheckpointError(f"cfrsam: a SAM of {sam.depth} blocks, accepted with fused levels: at least {LEVELS}")
        adapted = config.kernels != "none"
        self.mala = MalaAdapter(sam.depth, sam.embed_dim, config.rank, config.kernels) if adapted else None
        self.fusion = Fusion(sam.prompt_dim, config.fusion)
        refined = config.refinement != "none"
        self.refine = Refinement(sam.prompt_dim, sam.patch, config) if refined else None
        self.base = config.base
        self.blocks = level_blocks(sam.depth)

    @property
    def fine(self) -> int:
        """Px of the final masks' grid for one of the low-res grid."""
        return 1 if self.refine is None else self.refine.fine


@dataclass(frozen=True)
class Images:
    """Encoded images.

    Attributes
    ----------
    encoded : whose embedding is the fused one.
    maps : for the refinement, if there is one.
    """

    encoded: Encoded
    maps: ImageMaps | None


def encode_images(sam: nn.Module, added: Added, pixels: Tensor, *, encoder: Any = encode, **options: Any) -> Images:
    """Encode normalised images (b, 3, H, W); differentiable.

    Parameters
    ----------
    encoder : `gigaseg.sam.encoder.encode` or its compiled form, which gets the `options`.
    """
    vit = cast(Any, sam).image_encoder
    levels = added.fusion.kind != "last"
    encoded = encoder(vit, pixels, hidden=added.blocks[:-1] if levels else False, adapter=added.mala, **options)
    fused = encoded.embedding
    if levels:
        fused = added.fusion([*(neck(vit, x) for x in encoded.hidden[1:]), encoded.embedding])
    maps = None if added.refine is None else added.refine.images(pixels, fused)
    return Images(Encoded(fused), maps)


def refined(added: Added, decoded: Decoded, maps: ImageMaps, image: Tensor) -> tuple[Decoded, Tensor | None]:
    """Masks at the input's resolution, and logits (n, y, x) of their boundaries; differentiable.

    Parameters
    ----------
    decoded : one mask a prompt, with features, in windows of the low-res grid.
    image : (n,) the image of each.
    """
    if added.refine is None or decoded.features is None:
        raise ValueError("nothing refines, or the decoder's features are not there")
    found = added.refine(decoded.features, maps, image, decoded.origin)
    masks = found.masks[:, None]
    if added.base == "coarse":
        masks = masks + coarse(decoded.logits, added.fine)
    fine = replace(decoded, logits=masks, origin=decoded.origin * added.fine, features=None, tokens=None)
    return fine, found.boundaries


def coarse(logits: Tensor, fine: int) -> Tensor:
    """Low-res logits (n, m, y, x) at the input's resolution, bilinear."""
    return F.interpolate(logits, scale_factor=float(fine), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Refiner:
    """Refines masks in pieces that memory holds; for `gigaseg.sam.backend.Backend.masks`.

    Attributes
    ----------
    added, maps : as `refined` takes them.
    local : px; a mask is refined in a square of this side around its coarse one, or twice, four times, ... the side,
        the smallest in which that fits with `reach` on each side and the refined one keeps off the edge. 0: always in
        the whole window; -1: 64 px at patches of 8, 96 px at 16.
    chunk : prompts at a time; None: by memory. The masks are the same for any, but for rounding.
    """

    added: Added
    maps: ImageMaps
    local: int = -1
    chunk: int | None = None

    def __call__(self, decoded: Decoded, image: Tensor) -> Iterator[tuple[Tensor, Decoded]]:
        """Positions among the prompts, and their refined masks."""
        fine, window = self.added.fine, (decoded.logits.shape[2], decoded.logits.shape[3])
        side = -(-(32 + 16 * fine if self.local < 0 else self.local) // fine)
        left = torch.arange(len(image), device=image.device)
        corner = decoded.origin.new_zeros(len(image), 2)
        while 0 < side < max(window) and len(left):
            shape = (min(side, window[0]), min(side, window[1]))
            start, fits = around(decoded.logits[left, 0], shape, reach(fine) / fine)
            corner[left] = start
            more = [left[~fits]]
            for at in self._pieces(left[fits], shape, decoded):
                found = self._refined(_part(decoded, at, corner[at], shape), image[at])
                cut = reaches_edge(found, self._grid)
                more.append(at[cut])
                yield at[~cut], chosen(found, ~cut)
            left, side = torch.cat(more).sort().values, 2 * side
        for at in self._pieces(left, window, decoded):
            yield at, self._refined(_part(decoded, at, None, window), image[at])

    @property
    def _grid(self) -> tuple[int, int]:
        """Height and width of the final masks' grid of a whole image."""
        height, width = self.maps.fused.shape[2:]
        return height * self.added.fine, width * self.added.fine

    def _pieces(self, at: Tensor, shape: tuple[int, int], decoded: Decoded) -> tuple[Tensor, ...]:
        if not len(at):
            return ()
        if self.chunk is not None:
            return torch.split(at, self.chunk)
        channels = 0 if decoded.features is None else decoded.features.shape[1]
        each = shape[0] * shape[1] * self.added.fine**2 * channels
        return torch.split(at, max(1, _ACTIVATIONS.get(at.device.type, 1 << 24) // each))

    def _refined(self, decoded: Decoded, image: Tensor) -> Decoded:
        return refined(self.added, decoded, self.maps, image)[0]


def reach(fine: int) -> int:
    """Px that the refinement's convolutions look around a pixel, without what deformable ones add."""
    return 4 + 4 * fine


def around(logits: Tensor, shape: tuple[int, int], margin: float) -> tuple[Tensor, Tensor]:
    """Where a window of `shape` (rows, columns) holds what is positive of each mask, in the middle as far as possible.

    Parameters
    ----------
    logits : (n, y, x).
    margin : least distance of the mask to the window's sides, where those do not lie on the map's, px of the map.

    Returns
    -------
    start : (n, 2) int64 x, y of the window's first px.
    fits : (n,) whether it holds mask and margin; an empty mask fits.
    """
    on = logits > 0
    starts, fits = [], torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    for axis, size, side in ((2, logits.shape[2], shape[1]), (1, logits.shape[1], shape[0])):
        line = on.any(3 - axis).to(torch.uint8)
        first = line.argmax(1)
        last = size - 1 - line.flip(1).argmax(1)
        empty = ~line.bool().any(1)
        start = ((first + last + 1 - side) // 2).clamp(0, size - side)
        start = torch.where(empty, (size - side) // 2, start)
        left = (first - start >= margin) | (start == 0)
        right = (start + side - 1 - last >= margin) | (start == size - side)
        fits &= empty | (left & right)
        starts.append(start)
    return torch.stack(starts, 1), fits


def _part(decoded: Decoded, at: Tensor, start: Tensor | None, shape: tuple[int, int]) -> Decoded:
    """Windows of some prompts' maps."""
    if decoded.features is None:
        raise ValueError("the decoder's features are not there")
    if start is None:
        return Decoded(decoded.logits[at], decoded.origin[at], decoded.quality[at], decoded.features[at])
    rows = start[:, 1, None] + torch.arange(shape[0], device=at.device)
    cols = start[:, 0, None] + torch.arange(shape[1], device=at.device)
    index = (at[:, None, None], rows[:, :, None], cols[:, None, :])

    def windows(maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1)[index].permute(0, 3, 1, 2).contiguous()

    return Decoded(windows(decoded.logits), decoded.origin[at] + start, decoded.quality[at], windows(decoded.features))
