"""Non-maximum suppression by boxes and by masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigaseg.sam.packed import PackedMasks
from gigaseg.sam.torchvision_ops import ensure_torchvision

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


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
    """As `box_nms`, by the IoU of the masks themselves; on the host.

    Pixels are compared only where the areas and the boxes' common part leave an IoU above the threshold possible.
    """
    host, image_of = masks.cpu(), image.cpu().numpy()
    boxes, crops = host.boxes.numpy().astype(np.int64), [mask.numpy() for mask in host.unpack()]
    area = np.array([np.count_nonzero(crop) for crop in crops], np.int64)
    alive, kept = area > 0, np.zeros(len(crops), bool)
    for i in torch.argsort(host.scores, descending=True, stable=True).tolist():
        if not alive[i]:
            continue
        kept[i], alive[i] = True, False
        low, high = np.maximum(boxes[:, :2], boxes[i, :2]), np.minimum(boxes[:, 2:], boxes[i, 2:])
        most = np.minimum((high - low).clip(0).prod(1), np.minimum(area, area[i]))
        near = alive & (image_of == image_of[i]) & (most > 0) & (most > threshold * (area + area[i] - most))
        for j in np.flatnonzero(near).tolist():
            parts = [_part(crops[k], boxes[k], low[j], high[j]) for k in (i, j)]
            shared = np.count_nonzero(parts[0] & parts[1])
            alive[j] = shared / (area[i] + area[j] - shared) <= threshold
    return torch.from_numpy(np.flatnonzero(kept)).to(masks.boxes.device)


def _part(crop: BoolArray, box: IntArray, low: IntArray, high: IntArray) -> BoolArray:
    """The pixels of a crop at `box` between `low` and `high` (2,) x, y."""
    (x0, y0), (x1, y1) = low - box[:2], high - box[:2]
    return crop[y0:y1, x0:x1]
