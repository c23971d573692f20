"""The auto-prompt U-Net of SAC: where in an image nuclei are, as one map from which points are picked.

Ronneberger et al. 2015 with batch norm and transposed convolutions. The paper of SAC (arXiv 2401.13220) says "4-layer";
widths and the single output follow from the parameter count of its Table 6: 7,763,041 of width 32.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """Four levels down to 16 times the width, and back up.

    Parameters
    ----------
    width : channels of the first level; each deeper one has twice as many.
    levels : times that the image is halved.
    norm : "batch", or "group" (up to 8 groups), which does not mind small batches.
    detail : planes of detail for SAM's masks (`gigaseg.sam.detail`), our addition; 0: none, as published.
    channels : of the images.

    Attributes
    ----------
    multiple : sides of images are multiples of this, px.
    """

    def __init__(
        self, width: int = 32, levels: int = 4, norm: str = "batch", detail: int = 0, channels: int = 3
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels + 1)]
        self.multiple = 2**levels
        self.down = nn.ModuleList(
            _double(before, after, norm) for before, after in zip([channels, *widths[:-2]], widths[:-1], strict=True)
        )
        self.bottom = _double(widths[-2], widths[-1], norm)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.joined = nn.ModuleList(_double(2 * w, w, norm) for w in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, 1, 1)
        self.detail = nn.Conv2d(width, detail, 1) if detail else None
        if self.detail is not None:  # fresh, masks are as without it
            nn.init.zeros_(self.detail.weight)
            nn.init.zeros_(cast(Tensor, self.detail.bias))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits of the foreground, and the planes of detail.

        Parameters
        ----------
        images : (b, channels, h, w) normalised as SAM's, h and w multiples of `multiple`.

        Returns
        -------
        (b, 1, h, w) float32, and (b, detail, h, w) float32 or None.

        Raises
        ------
        ValueError
            Sides are no such multiples.
        """
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(f"images are {height} x {width} px, accepted: multiples of {self.multiple} px")
        # convolutions of few channels are quicker with the channels last
        x = images.contiguous(memory_format=torch.channels_last)
        skips = []
        for level in self.down:
            x = level(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, joined, skip in zip(self.up, self.joined, reversed(skips)):
            x = joined(torch.cat([up(x), skip], dim=1))
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            return self.head(x), None if self.detail is None else self.detail(x)


def _double(before: int, after: int, norm: str) -> nn.Sequential:
    """Twice a 3 x 3 convolution without bias, norm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (before, after):
        normed = nn.BatchNorm2d(after) if norm == "batch" else nn.GroupNorm(math.gcd(8, after), after)
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), normed, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
