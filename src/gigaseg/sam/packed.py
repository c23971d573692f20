"""Masks of a batch in one buffer, and what a segmenter yields from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gigaseg.segmenters.base import TileInstances


@dataclass(frozen=True)
class PackedMasks:
    """n masks, cropped and one after another in a single buffer.

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

    def __getitem__(self, index: Tensor) -> PackedMasks:
        """Some of the masks, in the order of `index` or by a boolean mask; the buffer is shared."""
        return PackedMasks(self.boxes[index], self.bits, self.offsets[index], self.scores[index])

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
        start = area.cumsum(0) - area
        place = torch.arange(int(area.sum()), device=area.device)
        bits = self.bits[place + (self.offsets - start).repeat_interleave(area)]
        return PackedMasks(self.boxes, bits, start, self.scores)

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


def to_instances(
    masks: PackedMasks, image: Tensor, images: int, class_prob: Tensor | None = None
) -> list[TileInstances]:
    """What each of a batch's tiles yields; scores are clipped to [0, 1].

    Parameters
    ----------
    masks : of all tiles; empty ones are left out.
    image : (n,) the tile of each.
    images : number of tiles.
    class_prob : (n, classes); None: one class.
    """
    image = image.cpu()
    prob = torch.ones(len(masks), 1) if class_prob is None else class_prob.cpu()
    host = masks.cpu()
    found = []
    for i in range(images):
        at = torch.nonzero((image == i) & (host.area > 0))[:, 0]
        part = host[at]
        found.append(TileInstances(part.boxes, part.unpack(), part.scores.clamp(0, 1), prob[at]))
    return found
