"""Non-maximum suppression by boxes and by masks."""

from __future__ import annotations

import torch
from torch import Tensor

from gigaseg.sam.packed import PackedMasks, runs, spans
from gigaseg.sam.torchvision_ops import ensure_torchvision

_PAIRS = 1 << 20
"""Pairs of boxes compared at a time."""


def box_nms(masks: PackedMasks, image: Tensor, threshold: float) -> Tensor:
    """Greedy suppression within each image by the IoU of the masks' boxes.

    Boxes reach from the first to the last pixel of a mask, without that one's width, as segment-anything has them: it
    matters for small objects.

    Parameters
    ----------
    masks : n masks; empty ones are dropped.
    image : (n,) image of each.
    threshold : of two masks of an image whose boxes have a greater IoU the one of lower score is dropped, the later one
        among equals.

    Returns
    -------
    (k,) int64 positions of those kept, ascending.
    """
    ensure_torchvision()
    from torchvision.ops import nms

    boxes = masks.boxes.float()
    boxes[:, 2:] -= (boxes[:, 2:] > boxes[:, :2]).float()
    apart = (boxes.max() + 1 if len(boxes) else 0) * image.to(boxes)  # images never meet
    kept = nms(boxes + apart[:, None], masks.scores, threshold)
    kept = kept[masks.area[kept] > 0]
    return kept.sort().values  # type: ignore[no-any-return]


def mask_nms(masks: PackedMasks, image: Tensor, threshold: float) -> Tensor:
    """As `box_nms`, by the IoU of the masks themselves, on their device.

    In rounds: all masks that no undecided one of higher score may drop are kept at once, and drop what is too like
    them. Pixels are compared only where areas and boxes leave an IoU above the threshold possible.
    """
    area, device = masks.pixels(), masks.boxes.device
    rank = torch.empty_like(masks.offsets)
    rank[torch.argsort(masks.scores, descending=True, stable=True)] = torch.arange(len(masks), device=device)
    pairs = _near(masks, area, image.to(device), threshold)
    swap = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    better, worse = torch.where(swap[:, None], pairs.flip(1), pairs).unbind(1)
    open_, kept = area > 0, torch.zeros_like(area, dtype=torch.bool)
    while bool(open_.any()):
        live = open_[better] & open_[worse]
        better, worse = better[live], worse[live]
        free = open_.clone()
        free[worse] = False
        kept |= free
        open_ &= ~free
        now = free[better]
        one, two = better[now], worse[now]
        both = _shared(masks, one, two)
        open_[two[both.double() / (area[one] + area[two] - both) > threshold]] = False
    return torch.nonzero(kept)[:, 0]


def _near(masks: PackedMasks, area: Tensor, image: Tensor, threshold: float) -> Tensor:
    """Pairs (m, 2), first < second, of masks of an image that may have an IoU above the threshold."""
    boxes = masks.boxes.long()
    pairs = [boxes.new_zeros(0, 2)]
    for one in sorted(set(image.tolist())):
        at = torch.nonzero(image == one)[:, 0]
        box, size = boxes[at], area[at]
        step = max(1, _PAIRS // len(at))
        for start in range(0, len(at), step):
            some = slice(start, start + step)
            low = torch.maximum(box[some, None, :2], box[:, :2])
            high = torch.minimum(box[some, None, 2:], box[:, 2:])
            most = torch.minimum((high - low).clamp(min=0).prod(-1), torch.minimum(size[some, None], size))
            near = (most > 0) & (most > threshold * (size[some, None] + size - most))
            pairs.append(at[torch.nonzero(near.triu(start + 1)) + boxes.new_tensor([start, 0])])
    return torch.cat(pairs)


def _shared(masks: PackedMasks, one: Tensor, two: Tensor) -> Tensor:
    """Pixels that the masks of each pair have in common, (m,) int64."""
    boxes = masks.boxes.long()
    low = torch.maximum(boxes[one, :2], boxes[two, :2])
    width, height = (torch.minimum(boxes[one, 2:], boxes[two, 2:]) - low).unbind(1)
    counts = [width.new_zeros(0)]
    for some in runs(width * height):
        of = torch.arange(some.start, some.stop, device=width.device).repeat_interleave(height[some])
        row = spans(torch.zeros_like(height[some]), height[some])
        seen = []
        for mine in (one[of], two[of]):
            x, y = (low[of] - boxes[mine, :2]).unbind(1)
            stride = boxes[mine, 2] - boxes[mine, 0]
            seen.append(masks.bits[spans(masks.offsets[mine] + (y + row) * stride + x, width[of])])
        pair = (of - some.start).repeat_interleave(width[of])
        counts.append(torch.bincount(pair[seen[0] & seen[1]], minlength=some.stop - some.start))
    return torch.cat(counts)
