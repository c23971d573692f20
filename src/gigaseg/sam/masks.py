"""From low-res logits to cropped, packed masks of a tile, without a full-size mask on the way."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.sam.decoder import Decoded
from gigaseg.sam.packed import PackedMasks, pack, to_instances

__all__ = [
    "PackedMasks",
    "best",
    "chosen",
    "crop_masks",
    "every",
    "pack",
    "picked",
    "resize_matrix",
    "stability",
    "to_instances",
]

_MASKS = 128
"""Masks whose stability is measured at a time: 128 MB for a tile of 1024 px that they cover whole."""

_PIXELS = 1 << 24
"""Pixels of all crops resized at a time: 64 MB in float32."""


def every(decoded: Decoded) -> Decoded:
    """The m masks of each of n prompts as n m prompts of one mask, by prompt and then mask; without features."""
    n, m = decoded.quality.shape
    return Decoded(
        decoded.logits.reshape(n * m, 1, *decoded.logits.shape[2:]),
        decoded.origin.repeat_interleave(m, 0),
        decoded.quality.reshape(n * m, 1),
    )


def best(decoded: Decoded) -> Decoded:
    """Of each prompt's masks the one of the highest predicted IoU, the first among equals."""
    return picked(decoded, decoded.quality.argmax(1))


def picked(decoded: Decoded, mask: Tensor) -> Decoded:
    """Of each prompt's masks the one at position `mask` (n,)."""
    row = torch.arange(len(decoded.quality), device=decoded.quality.device)
    names = ("logits", "quality", "tokens")
    of_mask = {name: value[row, mask][:, None] for name in names if (value := getattr(decoded, name)) is not None}
    return replace(decoded, **of_mask)


def chosen(decoded: Decoded, index: Tensor) -> Decoded:
    """Some of the prompts, by positions or a boolean mask."""
    given = {f.name: value for f in fields(decoded) if (value := getattr(decoded, f.name)) is not None}
    return Decoded(**{name: value[index] for name, value in given.items()})


def stability(
    decoded: Decoded,
    input_shape: tuple[int, int],
    tile_shape: tuple[int, int],
    low_shape: tuple[int, int] | None = None,
    threshold: float = 0.0,
    offset: float = 1.0,
) -> Tensor:
    """Stability score of masks, (n,): IoU of the masks at `threshold` + and - `offset`; 0 where both are empty.

    In tile px, as segment-anything's automatic mask generator has it: on low-res logits small objects have too few
    pixels for it. Arguments as of `crop_masks`.
    """
    pixels = [
        [
            crop_masks(chosen(decoded, some), input_shape, tile_shape, low_shape, threshold + sign * offset).pixels()
            for some in torch.split(torch.arange(len(decoded.quality), device=decoded.quality.device), _MASKS)
        ]
        for sign in (1, -1)
    ]
    high, low = (torch.cat(parts) if parts else decoded.quality[:, 0].long() for parts in pixels)
    return high / low.clamp(min=1)


@lru_cache(maxsize=32)
def resize_matrix(low: int, size: int, tile: int) -> Tensor:
    """SAM's resize of masks along one axis as a matrix (tile, low) float32.

    Bilinear from the low-res grid to the model's input and from there to the tile, pixel centres at halves, as
    `torch.nn.functional.interpolate` without aligned corners.
    """
    matrix = F.interpolate(torch.eye(low, dtype=torch.float64)[None], size, mode="linear")
    if tile != size:
        matrix = F.interpolate(matrix, tile, mode="linear")
    return matrix[0].T.float().contiguous()


@dataclass(frozen=True)
class _Axis:
    """Resize along one axis, and which low-res pixels each tile pixel draws on.

    matrix : (tile, low + 1), the last column zero. first, last : (tile,) ascending.
    """

    matrix: Tensor
    first: Tensor
    last: Tensor

    @classmethod
    def of(cls, low: int, size: int, tile: int, device: torch.device) -> _Axis:
        matrix = resize_matrix(low, size, tile)
        used = (matrix != 0).to(torch.uint8)
        first = used.argmax(1)
        last = low - 1 - used.flip(1).argmax(1)
        return cls(F.pad(matrix, (0, 1)).to(device), first.to(device), last.to(device))

    def reach(self, start: Tensor, stop: Tensor, origin: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Tile pixels that draw on low-res pixels [start, stop), (m,) each: first, and last + 1.

        Not beyond the window of `length` low-res pixels from `origin`: nothing is known there.
        """
        tile, low = self.matrix.shape[0], self.matrix.shape[1] - 1
        begin = torch.searchsorted(self.last, start, right=False)
        end = torch.searchsorted(self.first, stop - 1, right=True)
        begin = torch.maximum(begin, (origin * tile + low - 1) // low)
        return begin, torch.maximum(begin, torch.minimum(end, (origin + length) * tile // low))


def crop_masks(
    decoded: Decoded,
    input_shape: tuple[int, int],
    tile_shape: tuple[int, int],
    low_shape: tuple[int, int] | None = None,
    threshold: float = 0.0,
) -> PackedMasks:
    """Masks in tile px, each resized only where it can be positive.

    Equal to resizing all logits to the input, then to the tile (bilinear, as SAM does), and thresholding. With windows
    the window stands for the image: pixels outside it are background.

    Parameters
    ----------
    decoded : of one mask a prompt (`best`, `every`); on the device where the work is done.
    input_shape, tile_shape : (height, width) of the model's input and of the tile, px.
    low_shape : (height, width) of the low-res grid; None: that of `decoded`, which then has no windows.

    Returns
    -------
    PackedMasks
        n masks in the order of `decoded`; the scores are the predicted IoU.
    """
    logits = decoded.logits[:, 0]
    device = logits.device
    n, rows, cols = logits.shape
    low = low_shape or (rows, cols)
    x_axis, y_axis = (_Axis.of(low[i], input_shape[i], tile_shape[i], device) for i in (1, 0))
    boxes = torch.zeros(n, 4, dtype=torch.int32, device=device)
    offsets = torch.zeros(n, dtype=torch.int64, device=device)
    scores = decoded.quality[:, 0].float()
    positive = logits > threshold
    on = torch.nonzero(positive.flatten(1).any(1))[:, 0]
    x0, x1 = _extent(positive[on].any(1))
    y0, y1 = _extent(positive[on].any(2))
    ox, oy = decoded.origin[on].unbind(1)
    left, right = x_axis.reach(x0 + ox, x1 + ox, ox, cols)
    top, bottom = y_axis.reach(y0 + oy, y1 + oy, oy, rows)
    width, height = right - left, bottom - top
    order = torch.argsort(torch.maximum(width, height), stable=True)
    bits = [torch.zeros(0, dtype=torch.bool, device=device)]
    used = 0
    for some in _batches(order, width, height):
        index = on[some]
        y = _taps(y_axis, top[some], int(height[some].max()), oy[some], rows)
        x = _taps(x_axis, left[some], int(width[some].max()), ox[some], cols)
        crop = logits[index[:, None, None], y.source[:, :, None], x.source[:, None, :]]
        fine = y.weight @ crop @ x.weight.mT > threshold
        fine &= (torch.arange(fine.shape[1], device=device) < height[some, None])[..., None]
        fine &= (torch.arange(fine.shape[2], device=device) < width[some, None])[:, None]
        (bx0, bx1), (by0, by1) = _extent(fine.any(1)), _extent(fine.any(2))
        inside = _between(by0, by1, fine.shape[1])[:, :, None] & _between(bx0, bx1, fine.shape[2])[:, None, :]
        bits.append(fine[inside])
        area = (bx1 - bx0) * (by1 - by0)
        box = torch.stack([bx0 + left[some], by0 + top[some], bx1 + left[some], by1 + top[some]], 1)
        boxes[index] = torch.where(area[:, None] > 0, box, 0).int()
        offsets[index] = used + area.cumsum(0) - area
        used += len(bits[-1])
    return PackedMasks(boxes, torch.cat(bits), offsets, scores)


@dataclass(frozen=True)
class _Taps:
    """Resize of crops along one axis.

    weight : (m, tile px, low-res px). source : (m, low-res px) positions in the logits.
    """

    weight: Tensor
    source: Tensor


def _taps(axis: _Axis, start: Tensor, size: int, origin: Tensor, length: int) -> _Taps:
    tile, low = axis.matrix.shape[0], axis.matrix.shape[1] - 1
    target = (start[:, None] + torch.arange(size, device=start.device)).clamp(max=tile - 1)
    first = axis.first[start.clamp(max=tile - 1)]
    span = int((axis.last[target[:, -1]] - first).max()) + 1
    source = first[:, None] + torch.arange(span, device=start.device)
    weight = axis.matrix[target[:, :, None], source.clamp(max=low)[:, None, :]]
    return _Taps(weight, (source - origin[:, None]).clamp(0, length - 1))


def _batches(order: Tensor, width: Tensor, height: Tensor) -> list[Tensor]:
    """Split positions, sorted by side, where the side doubles or a batch has too many pixels."""
    side = torch.maximum(width, height)[order].tolist()
    batches, start = [], 0
    for i in range(1, len(side) + 1):
        if i == len(side) or side[i] > 2 * max(16, side[start]) or (i + 1 - start) * side[i] ** 2 > _PIXELS:
            batches.append(order[start:i])
            start = i
    return batches


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """First and last + 1 true position of each row of (m, k); equal where there is none."""
    flags = line.to(torch.uint8)
    first = flags.argmax(1)
    last = line.shape[1] - flags.flip(1).argmax(1)
    return first, torch.where(line.any(1), last, first)


def _between(start: Tensor, stop: Tensor, size: int) -> Tensor:
    place = torch.arange(size, device=start.device)
    return (place >= start[:, None]) & (place < stop[:, None])
