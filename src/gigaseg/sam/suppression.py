"""Non-maximum suppression by boxes and by masks."""

from __future__ import annotations

import torch
from torch import Tensor

from gigaseg.sam.packed import PackedMasks
from gigaseg.sam.torchvision_ops import ensure_torchvision

_PAIRS = 1 << 22
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
    """As `box_nms`, by the IoU of the masks themselves.

    Pixels are compared on the device of the masks, and only where areas and boxes leave an IoU above the threshold
    possible; who drops whom is decided on the host, one after another.
    """
    one, two, shared = _meeting(masks, image.to(masks.boxes.device), threshold)
    area = masks.pixels()
    union = area[one] + area[two] - shared
    rivals: dict[int, list[int]] = {}
    too_alike = shared.double() / union.clamp(min=1) > threshold
    for i, j in torch.stack([one, two], 1)[too_alike].tolist():
        rivals.setdefault(i, []).append(j)
        rivals.setdefault(j, []).append(i)
    alive = (area > 0).tolist()
    kept = []
    for i in torch.argsort(masks.scores, descending=True, stable=True).tolist():
        if alive[i]:
            kept.append(i)
            for j in rivals.get(i, ()):
                alive[j] = False
    return torch.tensor(sorted(kept), dtype=torch.int64, device=masks.boxes.device)


def _meeting(masks: PackedMasks, image: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs i < j of masks of an image that may have an IoU above the threshold, and the pixels that they share."""
    boxes, area = masks.boxes.long(), masks.pixels()
    pairs = [boxes.new_zeros(0, 2)]
    step = max(1, _PAIRS // max(1, len(masks)))
    for start in range(0, len(masks), step):
        mine = boxes[start : start + step, None]
        low, high = torch.maximum(mine[..., :2], boxes[:, :2]), torch.minimum(mine[..., 2:], boxes[:, 2:])
        both = area[start : start + step, None] + area
        most = torch.minimum((high - low).clamp(min=0).prod(-1), torch.minimum(area[start : start + step, None], area))
        near = (most > 0) & (most > threshold * (both - most)) & (image[start : start + step, None] == image)
        pairs.append(torch.nonzero(near.triu(start + 1)) + boxes.new_tensor([start, 0]))
    one, two = torch.cat(pairs).unbind(1)
    low = torch.maximum(boxes[one, :2], boxes[two, :2])
    width, height = (torch.minimum(boxes[one, 2:], boxes[two, 2:]) - low).unbind(1)
    size = width * height
    pair = torch.arange(len(one), device=one.device).repeat_interleave(size)
    place = torch.arange(len(pair), device=one.device) - (size.cumsum(0) - size)[pair]
    across = width[pair]
    y, x = place // across + low[pair, 1], place % across + low[pair, 0]
    on = torch.ones_like(pair, dtype=torch.bool)
    for which in (one[pair], two[pair]):
        box = boxes[which]
        on &= masks.bits[masks.offsets[which] + (y - box[:, 1]) * (box[:, 2] - box[:, 0]) + x - box[:, 0]]
    return one, two, torch.bincount(pair[on], minlength=len(one))
