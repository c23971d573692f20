"""From a detector's maps to boxes: a peak is a cell that no neighbour exceeds (Zhou et al. 2019, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.segmenters.centersam.detector import STRIDE, Maps


@dataclass(frozen=True)
class Peaks:
    """n objects of a batch, by image and descending score.

    Attributes
    ----------
    image : (n,) int64, ascending.
    boxes : (n, 4) float32 xmin, ymin, xmax, ymax in input px, half-open; they may leave the image, and those of a
        detector that has learnt little may be empty.
    scores : (n,) float32 in 0..1, the heat.
    classes : (n,) int64.
    shares : (n, classes) float32, the heat of every class in the peak's cell, of a sum of 1.
    """

    image: Tensor
    boxes: Tensor
    scores: Tensor
    classes: Tensor
    shares: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: Tensor) -> Peaks:
        """Some of the peaks, by a boolean mask or ascending positions."""
        return Peaks(self.image[index], self.boxes[index], self.scores[index], self.classes[index], self.shares[index])


def decode(maps: Maps, top: int = 1000, threshold: float = 0.0) -> Peaks:
    """Find the peaks of each image.

    A peak is a cell whose heat no other of the 3 x 3 around it exceeds, class by class; equal neighbours are both.

    Parameters
    ----------
    maps : of b images.
    top : most peaks of an image, over all its cells and classes; it may exceed their number.
    threshold : peaks with a greater heat are kept, 0..1.

    Returns
    -------
    Peaks
        Of equal scores the one of the lower class, then row, then column first.
    """
    heat = maps.heat.float()
    b, _, h, w = heat.shape
    # on the logits: two high ones can have the same sigmoid in float32
    peak = heat == F.max_pool2d(heat, 3, stride=1, padding=1)
    score = heat.sigmoid()
    image, place = torch.nonzero((peak & (score > threshold)).flatten(1), as_tuple=True)
    order = torch.argsort(score.flatten(1)[image, place], descending=True, stable=True)
    order = order[torch.argsort(image[order], stable=True)]
    image, place = image[order], place[order]
    number = torch.bincount(image, minlength=b)
    rank = torch.arange(len(image), device=image.device) - (number.cumsum(0) - number)[image]
    image, place = image[rank < top], place[rank < top]
    of_class, cell = place // (h * w), place % (h * w)
    y, x = cell // w, cell % w
    centre = torch.stack([x, y], 1) + maps.offset.float()[image, :, y, x]
    half = maps.size.float()[image, :, y, x] / 2
    here = score[image, :, y, x]
    return Peaks(
        image,
        STRIDE * torch.cat([centre - half, centre + half], 1),
        here.gather(1, of_class[:, None])[:, 0],
        of_class,
        here / here.sum(1, keepdim=True).clamp(min=1e-30),
    )
