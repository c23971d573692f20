"""Non-maximum suppression by boxes and by masks."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from gigaseg.sam.packed import PackedMasks
from gigaseg.sam.torchvision_ops import ensure_torchvision


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


def mask_overlaps(masks: PackedMasks, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs of masks of an image that share pixels.

    Returns
    -------
    first, second : (p,) int64 positions, first < second.
    shared : (p,) int64 pixels in both.
    area : (n,) int64 pixels of each mask.
    """
    host = masks.cpu()
    n = len(host)
    row, pixel = _pixels(host)
    width = int(host.boxes[:, 2].max()) + 1 if n else 1
    height = int(host.boxes[:, 3].max()) + 1 if n else 1
    image_of = image.cpu().numpy().astype(np.int64)
    column = (image_of[row] * height + pixel[:, 1]) * width + pixel[:, 0]
    _, column = np.unique(column, return_inverse=True)
    matrix = scipy.sparse.csr_array(
        (np.ones(len(row), np.int32), (row, column)), shape=(n, int(column.max()) + 1 if len(column) else 1)
    )
    pairs = scipy.sparse.triu(matrix @ matrix.T, k=1).tocoo()
    first, second, shared = (
        torch.from_numpy(a.astype(np.int64)) for a in (pairs.coords[0], pairs.coords[1], pairs.data)
    )
    return first, second, shared, torch.from_numpy(np.bincount(row, minlength=n).astype(np.int64))


def mask_nms(masks: PackedMasks, image: Tensor, threshold: float) -> Tensor:
    """As `box_nms`, by the IoU of the masks themselves; on the host."""
    first, second, shared, area = mask_overlaps(masks, image)
    iou = shared / (area[first] + area[second] - shared)
    close = (iou > threshold).numpy()
    rivals: list[list[int]] = [[] for _ in range(len(masks))]
    for a, b in zip(first.numpy()[close].tolist(), second.numpy()[close].tolist()):
        rivals[a].append(b)
        rivals[b].append(a)
    alive = area.numpy() > 0
    kept = np.zeros(len(masks), bool)
    for i in torch.argsort(masks.scores.cpu(), descending=True, stable=True).tolist():
        if alive[i]:
            kept[i] = True
            alive[rivals[i]] = False
    return torch.from_numpy(np.flatnonzero(kept)).to(masks.boxes.device)


def _pixels(host: PackedMasks) -> tuple[np.ndarray, np.ndarray]:
    """Of every pixel of every mask: the mask (p,), and x, y (p, 2)."""
    area = host.area.numpy()
    row = np.repeat(np.arange(len(host)), area)
    place = np.arange(len(row)) - np.repeat(np.cumsum(area) - area, area)
    on = host.bits.numpy()[host.offsets.numpy()[row] + place]
    row, place = row[on], place[on]
    boxes = host.boxes.numpy().astype(np.int64)
    y, x = np.divmod(place, (boxes[:, 2] - boxes[:, 0])[row])
    return row, np.stack([x + boxes[row, 0], y + boxes[row, 1]], 1)
