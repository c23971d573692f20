"""A whole image of any size in a square input, as CenterNet's published protocols have it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Letterbox:
    """The map that brings the longer side of an image to the side of a square and its middle to the square's middle.

    Pixel corners are at integers in both frames. Boxes of the detector's grid are taken back by the letterbox whose
    `side` is the grid's, not the input's.

    Attributes
    ----------
    width, height : of the image, px.
    side : of the square, px (or cells).
    """

    width: int
    height: int
    side: int

    @property
    def scale(self) -> float:
        """Square px of an image px."""
        return self.side / max(self.width, self.height)

    def forward(self, points: Tensor) -> Tensor:
        """Image px to square px, (..., 2) x, y."""
        return points * self.scale + self._shift(points)

    def inverse(self, points: Tensor) -> Tensor:
        """Square px to image px, (..., 2) x, y; neither clipped nor rounded."""
        return (points - self._shift(points)) / self.scale

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) xmin, ymin, xmax, ymax of the square in image px."""
        return self.inverse(boxes.reshape(*boxes.shape[:-1], 2, 2)).reshape(boxes.shape)

    def apply(self, images: Tensor) -> Tensor:
        """Images (b, 3, height, width) float on the square, (b, 3, side, side): bilinear, zero outside the image.

        Without anti-aliasing, as published; to be done before normalisation.
        """
        images = images.float()
        place = torch.arange(self.side, dtype=torch.float32, device=images.device) + 0.5
        y, x = torch.meshgrid(place, place, indexing="ij")
        size = torch.tensor([self.width, self.height], dtype=torch.float32, device=images.device)
        grid = 2 * self.inverse(torch.stack([x, y], -1)) / size - 1
        grid = grid.expand(len(images), -1, -1, -1)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def _shift(self, points: Tensor) -> Tensor:
        return (self.side - self.scale * points.new_tensor([self.width, self.height])) / 2
