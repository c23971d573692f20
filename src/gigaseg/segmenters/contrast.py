"""How far objects stand out from what surrounds them: on empty glass a detector sees shapes in the noise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.sam.packed import PackedMasks, to_instances
from gigaseg.segmenters.base import TileInstances

REACH = 0.25
"""Share of a box's sides by which it is grown for the surroundings."""


def contrast(masks: PackedMasks, images: Tensor, image: Tensor) -> Tensor:
    """Difference between the mean grey level of each mask and that of the rest of its grown box, without sign.

    Parameters
    ----------
    masks : n masks, none of them empty, on the device of `images`.
    images : (b, 3, H, W) uint8 or float, 0..255.
    image : (n,) the image of each mask.

    Returns
    -------
    (n,) float64, grey levels 0..255; infinite for a mask that fills its grown box, whose surroundings are not seen.
    """
    grey = images.double().mean(1)
    n, (height, width) = len(masks), grey.shape[1:]
    boxes, area = masks.boxes.long(), masks.area
    row = torch.arange(n, device=area.device).repeat_interleave(area)
    place = torch.arange(len(row), device=area.device) - (area.cumsum(0) - area)[row]
    on = masks.bits[masks.offsets[row] + place]
    row, place = row[on], place[on]
    across = (boxes[:, 2] - boxes[:, 0])[row]
    values = grey[image[row], place // across + boxes[row, 1], place % across + boxes[row, 0]]
    inside = grey.new_zeros(n).index_add_(0, row, values)
    pixels = torch.bincount(row, minlength=n)
    reach = ((boxes[:, 2:] - boxes[:, :2]) * REACH).ceil().long()
    x0, y0 = (boxes[:, :2] - reach).clamp(min=0).unbind(1)
    x1, y1 = torch.minimum(boxes[:, 2:] + reach, boxes.new_tensor([width, height])).unbind(1)
    sums = F.pad(grey.cumsum(1).cumsum(2), (1, 0, 1, 0))
    whole = sums[image, y1, x1] - sums[image, y0, x1] - sums[image, y1, x0] + sums[image, y0, x0]
    rest = (x1 - x0) * (y1 - y0) - pixels
    difference = inside / pixels.clamp(min=1) - (whole - inside) / rest.clamp(min=1)
    return torch.where(rest > 0, difference.abs(), torch.inf)


def standing_out(found: TileInstances, image: Tensor, least: float) -> TileInstances:
    """The instances of one class, of one tile, whose `contrast` is at least `least` grey levels; 0: all of them.

    Parameters
    ----------
    image : (3, h, w) the tile, uint8 or float, 0..255.
    """
    if least <= 0 or not len(found.scores):
        return found
    packed = PackedMasks.of(found.boxes, found.masks or [], found.scores)
    first = torch.zeros_like(packed.offsets)
    clear = contrast(packed, image[None].to(first.device), first) >= least
    return to_instances(packed[clear], first[clear], 1)[0]
