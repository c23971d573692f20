"""What the detector should answer: heat maps with a peak an object, sizes and offsets of boxes (CenterNet).

Grid px are input px / `STRIDE`, without half-pixel offsets; an object's cell is its centre, truncated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gigaseg.segmenters.centersam.detector import STRIDE
from gigaseg.train.batches import Batch


@dataclass(frozen=True)
class Targets:
    """Targets of a batch; n objects, flat.

    Attributes
    ----------
    heat : (b, classes, h, w) float32 in [0, 1], exactly 1 at each object's cell.
    image : (n,) int64, the crop of each object.
    index : (n,) int64, its cell, y · w + x.
    size : (n, 2) float32 width, height of its box, grid px.
    offset : (n, 2) float32 x, y of its centre less its cell, in [0, 1).
    """

    heat: Tensor
    image: Tensor
    index: Tensor
    size: Tensor
    offset: Tensor


def gaussian_radius(height: Tensor, width: Tensor, overlap: float = 0.7) -> Tensor:
    """Radius of an object's peak, real-valued: how far both corners may move so that the IoU stays about `overlap`.

    The least of (b + √(b² - 4ac)) / 2 over three cases, as CornerNet and CenterNet compute it (Law and Deng 2018, arXiv
    1808.01244). Solving the cases' equations would divide by 2a, with the other root of two; the published figures come
    from this form (CenterNet's issue 273), so it is kept. The third case is always the least.

    Parameters
    ----------
    height, width : of boxes, in any unit; the radius has the same.
    """
    area, half = height * width, height + width
    cases = (
        (1.0, half, area * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * half, area * (1 - overlap)),
        (4 * overlap, -2 * overlap * half, area * (overlap - 1)),
    )
    return torch.stack([(b + (b * b - 4 * a * c).sqrt()) / 2 for a, b, c in cases]).amin(0)


def draw_peaks(heat: Tensor, plane: Tensor, x: Tensor, y: Tensor, radius: Tensor) -> None:
    """Draw gaussian peaks into planes, in place; where they overlap, the larger value counts.

    Each fills a square of side 2r + 1 about its cell, with sd (2r + 1) / 6; what lies beyond the plane is cut off.

    Parameters
    ----------
    heat : (planes, h, w) float32.
    plane, x, y, radius : (n,) int64, the plane, the cell and the radius of each.
    """
    h, w = heat.shape[1:]
    flat = heat.view(-1)
    for r in sorted(set(radius.tolist())):
        rows = (radius == r).nonzero()[:, 0]
        reach = torch.arange(-r, r + 1, device=heat.device)
        bell = torch.exp(-(reach.float() ** 2) / (2 * ((2 * r + 1) / 6) ** 2))
        ys = (y[rows, None] + reach)[:, :, None].expand(-1, -1, len(reach))
        xs = (x[rows, None] + reach)[:, None].expand(-1, len(reach), -1)
        values = (bell[:, None] * bell).expand_as(xs)
        inside = (ys >= 0) & (ys < h) & (xs >= 0) & (xs < w)
        place = (plane[rows, None, None] * h + ys) * w + xs
        flat.scatter_reduce_(0, place[inside], values[inside], "amax")


def detector_targets(batch: Batch, classes: int = 1, class_index: Tensor | None = None, margin: float = 1.0) -> Targets:
    """Targets of a batch's boxes.

    Parameters
    ----------
    batch : its boxes, in input px, are those of the visible parts; objects without any area on the grid are left out.
    classes : channels of the heat map.
    class_index : (n,) int64, the channel of each object; None: the first.
    margin : grid px that boxes are cut off before the right and bottom border: 1 in CenterNet, which loses up to
        `STRIDE` px of the objects there; 0 keeps them whole.
    """
    b, height, width = batch.labels.shape
    h, w = height // STRIDE, width // STRIDE
    most = batch.boxes.new_tensor([w, h, w, h]) - margin
    boxes = torch.minimum((batch.boxes / STRIDE).clamp(min=0), most)
    size = boxes[:, 2:] - boxes[:, :2]
    kept = (size > 0).all(1)
    boxes, size, image = boxes[kept], size[kept], batch.image[kept]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    cell = centre.long()
    channel = torch.zeros_like(image) if class_index is None else class_index[kept]
    radius = gaussian_radius(size[:, 1].ceil(), size[:, 0].ceil()).long().clamp(min=0)
    heat = torch.zeros(b * classes, h, w, device=batch.boxes.device)
    draw_peaks(heat, image * classes + channel, cell[:, 0], cell[:, 1], radius)
    return Targets(heat.view(b, classes, h, w), image, cell[:, 1] * w + cell[:, 0], size, centre - cell)
