"""Stage 1 of CFR-SAM: a net that says where objects are, as one point each, and of which class.

Anchors on a grid are moved twice: by what the net sees at the anchor, then by what it sees where that led. Most of them
say background in the end. As in DPA-P2PNet (Shui et al. 2023), which the paper takes over; coordinates are exact here,
and as published with `PointsConfig.legacy`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.prompts.suppression import point_nms
from gigaseg.segmenters.base import Proposals
from gigaseg.segmenters.cfrsam.backbone import STRIDES, build_backbone
from gigaseg.segmenters.cfrsam.config import PointsConfig
from gigaseg.segmenters.cfrsam.pyramid import MaskHead, Pyramid, anchor_grid, mlp, sample_at

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of the images that the net takes: R, G, B on the scale 0..255, as ImageNet has them."""


@dataclass(frozen=True)
class PointMaps:
    """What the net says of b images.

    Attributes
    ----------
    anchors : (A, 2) float32 x, y in px: row by row, some beyond the image where it is no multiple of the spacing.
    points : (b, A, 2) float32 x, y in px, where each anchor was moved to; nothing keeps them in the image.
    logits : (b, A, classes + 1) float32, the background last.
    mask : (b, H, W) float32 logits of being of any object.
    """

    anchors: Tensor
    points: Tensor
    logits: Tensor
    mask: Tensor


class PointNet(nn.Module):
    """The net; `config` has its sizes."""

    def __init__(self, config: PointsConfig) -> None:
        super().__init__()
        self.config = config
        width, kinds = config.channels, len(config.classes) + 1
        self.backbone = build_backbone(config)
        self.pyramid = Pyramid(self.backbone.widths, width, config.levels)
        self.mask_pyramid = Pyramid(self.backbone.widths, width, 1)
        self.deform = mlp(width, 2, config.dropout)
        self.reduce = nn.Conv2d(config.levels * width, width, 3, padding=1)
        self.regress = mlp(width, 2, config.dropout)
        self.classify = mlp(width, kinds, config.dropout)
        self.mask_head = MaskHead(width, config.legacy)

    def forward(self, images: Tensor) -> PointMaps:
        """From images (b, 3, H, W) of any size, normalised (`normalised`).

        Zeros go on at the right and at the bottom up to a multiple of the spacing, and of the coarsest stride.
        """
        spacing, step = self.config.spacing, STRIDES[-1]
        height, width = images.shape[-2:]
        rows, cols = math.ceil(height / spacing), math.ceil(width / spacing)
        size = (math.ceil(rows * spacing / step) * step, math.ceil(cols * spacing / step) * step)
        maps = self.backbone(F.pad(images, (0, size[1] - width, 0, size[0] - height)))
        levels, fine = self.pyramid(maps), self.mask_pyramid(maps)[0]
        mask = self.mask_head(fine, size)[:, :height, :width]
        anchors = anchor_grid(rows, cols, spacing, images.device)
        # px would be rounded in half precision
        with torch.autocast(images.device.type, enabled=False):
            points, logits = self._moved([level.float() for level in levels], anchors, (rows, cols), size)
        return PointMaps(anchors, points, logits, mask)

    def _moved(
        self, levels: list[Tensor], anchors: Tensor, grid: tuple[int, int], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Points and logits of all anchors, from the pyramid's levels."""
        legacy, start = self.config.legacy, anchors.expand(len(levels[0]), -1, -1)
        seen = sample_at(levels[0], start, size, legacy)
        points = start + self.deform(seen.transpose(1, 2))
        seen = torch.cat([sample_at(level, points, size, legacy) for level in levels], 1)
        descriptors = self.reduce(seen.view(*seen.shape[:2], *grid)).flatten(2).transpose(1, 2)
        return points + self.regress(descriptors), self.classify(descriptors)


def build_points(config: PointsConfig) -> PointNet:
    """A net with fresh weights; under ``torch.device("meta")`` its shapes alone."""
    return PointNet(config)


def normalised(images: Tensor) -> Tensor:
    """Images (b, 3, H, W), uint8 or float on the scale 0..255, as the net takes them: (x - mean) / std in float32."""
    images = images.float()
    return (images - images.new_tensor(PIXEL_MEAN).view(3, 1, 1)) / images.new_tensor(PIXEL_STD).view(3, 1, 1)


@torch.no_grad()
def propose_points(
    net: PointNet, images: Tensor, *, threshold: float = 0.0, radius: float = 12.0, use_mask: bool = False
) -> list[Proposals]:
    """Points of images, one an object.

    Parameters
    ----------
    net : in evaluation mode.
    images : (b, 3, H, W) uint8, or float on the scale 0..255, on the net's device.
    threshold, radius, use_mask : as `points_of` takes them.
    """
    return points_of(net(normalised(images)), threshold=threshold, radius=radius, use_mask=use_mask)


@torch.no_grad()
def points_of(
    maps: PointMaps, *, threshold: float = 0.0, radius: float = 12.0, use_mask: bool = False
) -> list[Proposals]:
    """Points that the maps of each image state, in px of the image, by ascending anchor.

    Those of a higher threshold are the ones of a lower one with a score above it.

    Parameters
    ----------
    threshold : points whose probability of being no background is greater stay, 0 to below 1. 0: those for which no
        class is likelier than theirs, the background being one, as in the paper.
    radius : px within which the likeliest point suppresses others of any class.
    use_mask : leave points out where the mask says background.

    Returns
    -------
    The score is the probability of being no background; points beyond the image are moved onto its border pixels.
    """
    height, width = maps.mask.shape[-2:]
    low = maps.points.new_tensor([0.5, 0.5])
    xy = torch.minimum(torch.maximum(maps.points, low), maps.points.new_tensor([width - 0.5, height - 0.5]))
    kinds = maps.logits.softmax(-1)
    score = kinds[..., :-1].sum(-1).clamp(max=1)
    background = maps.logits.shape[-1] - 1
    kept = score > threshold if threshold > 0 else maps.logits.argmax(-1) != background
    if use_mask:
        cells = xy.long()
        place = cells[..., 1] * width + cells[..., 0]
        kept &= maps.mask.flatten(1).gather(1, place) > 0
    classes = maps.logits[..., :-1].softmax(-1)
    found = []
    for i in range(len(xy)):
        mine = kept[i]
        some = xy[i][mine].cpu().numpy().astype(np.float64)
        scores = score[i][mine].cpu().numpy().astype(np.float32)
        rows = point_nms(some, scores, radius)
        found.append(Proposals(some[rows], scores[rows], classes[i][mine].cpu().numpy().astype(np.float32)[rows]))
    return found
