"""The density regressor: a U-Net from whose map the number of objects follows by summing it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.segmenters.persense.config import DensityConfig
from gigaseg.segmenters.sac.unet import UNet

DENSITY = "density."
"""Of the names of the regressor's tensors in a checkpoint; all others are SAM's."""

# Of ImageNet's colours, 0..255: what SAM subtracts and divides by, and so does every SAM that this net stands beside.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)

_LEAK = 0.1
"""Slope below zero in training, so that a missed peak has a gradient. Above zero there is nothing but objects then: a
function that only nears zero (softplus) leaves a background whose sum is many objects."""


class DensityNet(nn.Module):
    """A map in which each object is a gaussian of unit mass.

    Attributes
    ----------
    reduction : px of a cell's side.
    multiple : sides of images are multiples of this, px.
    reach : px beyond which the picture does not touch a cell's value, in evaluation mode and with batch norm.
    unit : objects a cell at the peak of a lone object; the net's own values are multiples of it.
    """

    def __init__(self, config: DensityConfig) -> None:
        super().__init__()
        self.reduction = r = config.reduction
        self.unet = UNet(config.width, config.levels, config.norm, channels=3 * r * r)
        self.multiple = self.unet.multiple * r
        # pairs of convolutions on the way down and up, at the bottom, and its cells' own width: 7 m - 5 of m cells
        self.reach = 7 * self.multiple
        self.unit = r * r / (math.tau * config.sigma**2)

    def forward(self, images: Tensor) -> Tensor:
        """Density in units of `unit`.

        Parameters
        ----------
        images : (b, 3, h, w) uint8 or float, 0..255, RGB; h and w multiples of `multiple`.

        Returns
        -------
        (b, h / reduction, w / reduction) float32 >= 0; in training, what is below zero is a tenth of it.
        """
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (_MEAN, _STD))
        cells = F.pixel_unshuffle((images - mean) / std, self.reduction)
        found = self.unet(cells)[0][:, 0]
        return F.leaky_relu(found, _LEAK) if self.training else F.relu(found)
