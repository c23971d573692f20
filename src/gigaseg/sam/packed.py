"""Masks of a batch in one buffer on their device, and what a segmenter yields from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import overload

import torch
from torch import Tensor

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.base import Masks, TileInstances

_PIXELS = 1 << 20
"""Pixels of masks that are worked on at a time."""


@dataclass(frozen=True)
class PackedMasks:
    """n masks, cropped and one after another in a single buffer; a sequence of them.

    Attributes
    ----------
    boxes : (n, 4) int32 xmin, ymin, xmax, ymax in tile px, half-open, tight; zeros for an empty mask.
    bits : (pixels,) bool, the crops row by row.
    offsets : (n,) int64, where each crop begins in `bits`; crops may come in any order, and some may be unused.
    scores : (n,) float32, predicted IoU as the model gives it (it can leave [0, 1]).
    """

    boxes: Tensor
    bits: Tensor
    offsets: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: Tensor) -> PackedMasks: ...

    def __getitem__(self, index: int | Tensor) -> Tensor | PackedMasks:
        """One mask; or some, in the order of `index` or by a boolean mask, which share the buffer."""
        if isinstance(index, int):
            return self.unpack()[index]
        return PackedMasks(self.boxes[index], self.bits, self.offsets[index], self.scores[index])

    def __iter__(self) -> Iterator[Tensor]:
        """Each mask, as `unpack` gives them."""
        return iter(self.unpack())

    @classmethod
    def of(cls, boxes: Tensor, masks: Masks, scores: Tensor) -> PackedMasks:
        """Masks (cropped to `boxes`) as a pack; one that is a pack already gets the scores alone.

        Raises
        ------
        SegmenterError
            A mask has another shape than its box.
        """
        scores = scores.to(boxes.device)
        if isinstance(masks, PackedMasks):
            return replace(masks, scores=scores)
        sides = (boxes[:, 2:] - boxes[:, :2]).long()
        for mask, (width, height) in zip(masks, sides.tolist()):
            if tuple(mask.shape) != (height, width):
                found = " x ".join(map(str, mask.shape))
                raise SegmenterError(f"a mask is {found} px, accepted: {height} x {width}, as its box says")
        area = sides[:, 0] * sides[:, 1]
        flat = [mask.flatten().to(boxes.device, torch.bool) for mask in masks]
        bits = torch.cat(flat) if flat else boxes.new_zeros(0, dtype=torch.bool)
        return cls(boxes, bits, area.cumsum(0) - area, scores)

    @property
    def area(self) -> Tensor:
        """Pixels of each crop's box, (n,) int64; 0 for an empty mask."""
        sides = (self.boxes[:, 2:] - self.boxes[:, :2]).long()
        return sides[:, 0] * sides[:, 1]

    def pixels(self) -> Tensor:
        """Number of pixels of each mask, (n,) int64."""
        before = torch.nn.functional.pad(self.bits.cumsum(0), (1, 0))
        return before[self.offsets + self.area] - before[self.offsets]

    def compact(self) -> PackedMasks:
        """The same masks in a buffer that holds nothing else, in their order."""
        area = self.area
        return PackedMasks(self.boxes, self.bits[spans(self.offsets, area)], area.cumsum(0) - area, self.scores)

    def cpu(self) -> PackedMasks:
        """The same masks in the host's memory, brought there by one transfer."""
        if self.bits.device.type == "cpu":
            return self
        parts = (self.offsets, self.boxes, self.scores, self.bits)
        whole = torch.cat([part.contiguous().view(-1).view(torch.uint8) for part in parts]).cpu()
        sizes = [part.numel() * part.element_size() for part in parts]
        offsets, boxes, scores, bits = (
            flat.view(part.dtype).view(part.shape) for flat, part in zip(torch.split(whole, sizes), parts)
        )
        return PackedMasks(boxes, bits, offsets, scores)

    def unpack(self) -> list[Tensor]:
        """Each mask as (height, width) bool, a view into the buffer; (0, 0) for an empty one."""
        sides = (self.boxes[:, 2:] - self.boxes[:, :2]).tolist()
        return [
            self.bits[start : start + width * height].view(height, width)
            for start, (width, height) in zip(self.offsets.tolist(), sides)
        ]


def pack(parts: list[PackedMasks]) -> PackedMasks:
    """Several packs (at least one) as one, in their order."""
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part.bits))
    return PackedMasks(
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.bits for part in parts]),
        torch.cat([part.offsets + start for part, start in zip(parts, starts)]),
        torch.cat([part.scores for part in parts]),
    )


def spans(start: Tensor, length: Tensor) -> Tensor:
    """The numbers from each of (m,) `start` on, as many as `length` says, one after another: (sum of length,) int64."""
    ends = length.cumsum(0)
    shift = (start - (ends - length)).repeat_interleave(length)
    return torch.arange(len(shift), device=start.device) + shift


def runs(size: Tensor) -> list[slice]:
    """Runs of (m,) things of some `size` in pixels, with about `_PIXELS` in all: what is held at a time."""
    piece = (size.cumsum(0) - 1).clamp(min=0) // _PIXELS
    ends = torch.nonzero(piece.diff(append=piece.new_tensor([-1])) != 0)[:, 0].add(1).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends)]


def label_map(masks: PackedMasks, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Masks of a tile made disjoint, where they are: the higher score keeps a shared pixel, the earlier among equals.

    Parameters
    ----------
    shape : (height, width) of the tile, or of its part inside the slide, px; pixels beyond it count for nothing.

    Returns
    -------
    (height, width) int32, 0 background, i + 1 the mask of number i; and (n,) int64, the pixels of each mask inside
    `shape`, shared ones too.
    """
    height, width = shape
    n, device = len(masks), masks.bits.device
    # the greatest rank at a pixel is the mask on top, in whatever order a device writes
    order = masks.scores.flip(0).argsort(stable=True)  # equals: the last one first
    order = n - 1 - order
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(1, n + 1, device=device))
    canvas = torch.zeros(height * width, dtype=torch.int64, device=device)
    pixels = torch.zeros(n, dtype=torch.int64, device=device)
    x0, y0, x1, y1 = masks.boxes.long().unbind(1)
    # row by row of the crops, as far as they lie inside
    rows = (y1.clamp(max=height) - y0).clamp(min=0)
    across = (x1.clamp(max=width) - x0).clamp(min=0)
    for some in runs(rows * across):
        of = torch.arange(some.start, some.stop, device=device).repeat_interleave(rows[some])
        row = spans(torch.zeros_like(rows[some]), rows[some])
        on = masks.bits[spans(masks.offsets[of] + row * (x1 - x0)[of], across[of])]
        place = spans((y0[of] + row) * width + x0[of], across[of])[on]
        owner = of.repeat_interleave(across[of])[on]
        canvas.scatter_reduce_(0, place, rank[owner], "amax")
        pixels += torch.bincount(owner, minlength=n)
    number = torch.cat([order.new_zeros(1), order + 1]).int()
    return number[canvas].view(height, width), pixels


def to_instances(
    masks: PackedMasks, image: Tensor, images: int, class_prob: Tensor | None = None
) -> list[TileInstances]:
    """What each of a batch's tiles yields, where the masks are; scores are clipped to [0, 1].

    Parameters
    ----------
    masks : of all tiles; empty ones are left out.
    image : (n,) the tile of each.
    images : number of tiles.
    class_prob : (n, classes); None: one class.
    """
    device = masks.boxes.device
    prob = torch.ones(len(masks), 1, device=device) if class_prob is None else class_prob.to(device)
    of = torch.where(masks.area > 0, image.to(device), -1).cpu()
    found = []
    for i in range(images):
        at = torch.nonzero(of == i)[:, 0].to(device)
        part = masks[at].compact()  # else each tile would hold the masks of all
        part = replace(part, scores=part.scores.clamp(0, 1))
        found.append(TileInstances(part.boxes, part, part.scores, prob[at]))
    return found
