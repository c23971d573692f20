"""CFR-SAM's boundary-guided mask refinement (BGMR; paper section 3.6): masks at the input's resolution.

Everything that depends on the image alone is computed once an image (`ImageMaps`). A convolution over a concatenation
is the sum of the convolutions over its parts, so the image's share of three of them is among that: nothing changes but
rounding. The rest is done for each prompt, on its decoding window or a part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.errors import CheckpointError
from gigaseg.sam.local import window_cells
from gigaseg.segmenters.cfrsam.config import CfrSamConfig
from gigaseg.segmenters.cfrsam.deform import Deformable


@dataclass(frozen=True)
class ImageMaps:
    """What all prompts of an image share; b images with an input of H x W px and a low-res grid h x w.

    Attributes
    ----------
    fused : (b, c, h, w) the image's share of the convolution that joins the decoder's features and the embedding.
    detail : (b, c, H, W) D, the image at full resolution, its edges enhanced; None for an MLP.
    squeezed, offsets : (b, c / 2, H, W) and (b, 27, H, W) D's share of the guidance's two convolutions; or None.
    """

    fused: Tensor
    detail: Tensor | None
    squeezed: Tensor | None
    offsets: Tensor | None


@dataclass(frozen=True)
class Refined:
    """Refined masks of n prompts, float32 logits (n, y, x) at the input's resolution.

    Attributes
    ----------
    masks : of objects.
    boundaries : of their boundaries; None without that branch.
    """

    masks: Tensor
    boundaries: Tensor | None


class Enhancement(nn.Module):
    """Multi-context boundary enhancement (MCBE; eq. 9 and 10) of an image's features: (b, c, H, W) to the same.

    Averages over 3 x 3 px go on beyond the border with its own values; the published code takes zeros there, which
    draws a frame around every image.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.scales = nn.ModuleList(_pointwise(channels if i == 0 else half, half) for i in range(4))
        self.edges = nn.ModuleList(_pointwise(half, half) for _ in range(3))
        self.join = nn.Sequential(*_pointwise(4 * half, channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """The sum of `x` and what is made of it."""
        maps = [self.scales[0](x).sigmoid()]
        for scale in list(self.scales)[1:]:
            maps.append(scale(average(maps[-1])).sigmoid())
        edges = [m + edge(m - average(m)).sigmoid() for m, edge in zip(maps[1:], self.edges)]
        joined: Tensor = self.join(torch.cat([maps[0], *edges], 1))
        return x + joined


class Attention(nn.Module):
    """Spatial attention: x + x times a convolution 7 x 7 of the sigmoid of its mean and maximum over the channels.

    The published code has the sigmoid before the convolution and none after it, unlike CBAM.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) to the same."""
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1).sigmoid()
        return x + x * cast(Tensor, self.conv(seen))


class Refinement(nn.Module):
    """The whole module.

    Parameters
    ----------
    embedding : channels of SAM's embedding; c is an eighth of them, as of the decoder's upscaled one.
    patch : side of SAM's patches, px, a power of two from 4 on; masks are refined by patch / 4.
    config : which parts there are.

    Attributes
    ----------
    fine : px of the input for one of the low-res grid.
    """

    def __init__(self, embedding: int, patch: int, config: CfrSamConfig) -> None:
        super().__init__()
        if patch < 4 or patch & (patch - 1) or embedding % 16:
            raise CheckpointError(
                f"cfrsam: a SAM with patches of {patch} px and {embedding} channels, accepted with a refinement: "
                "patches of 4, 8, 16, 32, ... px and a multiple of 16 channels"
            )
        c = embedding // 8
        self.fine = patch // 4
        self.kind, self.guided = config.refinement, config.guidance
        self.from_embedding = nn.ModuleList([_conv(embedding, 2 * c), _conv(2 * c, c)])
        self.fuse = _conv(2 * c, c)
        self.ups = nn.ModuleList(_conv(c, c) for _ in range(self.fine.bit_length() - 1))
        if self.kind == "mlp":
            self.mlp = nn.Sequential(
                nn.Conv2d(c, 8 * c, 1), nn.ReLU(), nn.Conv2d(8 * c, 8 * c, 1), nn.ReLU(), nn.Conv2d(8 * c, 1, 1)
            )
            return
        half = c // 2
        self.image = _conv(3, c)
        self.enhance = Enhancement(c) if config.enhancement else nn.Identity()
        if self.guided:
            self.squeeze = _pointwise(c + half, half)
            self.deform = Deformable(c + half, half)
            self.attend = nn.ModuleList([Attention(), Attention()])
            self.join = nn.Sequential(*_pointwise(c, c), nn.ReLU())
        else:
            self.join = _conv(2 * c, c)
        self.boundary = nn.Sequential(
            *_pointwise(c, half), nn.ReLU(), nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, 1, 1)
        )
        self.narrow = nn.Conv2d(c, half, 1)
        self.follow = Deformable(half, half)
        self.widen = nn.Sequential(nn.Conv2d(half, c, 1), nn.BatchNorm2d(c))
        self.mask = nn.Sequential(*_conv(c, c), *_conv(c, half), nn.Conv2d(half, 1, 1))
        if config.unused:
            self.unused = nn.Sequential(*_conv(c, half), nn.Conv2d(half, 1, 1))

    def images(self, pixels: Tensor, embedding: Tensor) -> ImageMaps:
        """What prompts share, of normalised input (b, 3, H, W) and the embedding (b, C, h / 4, w / 4)."""
        x = embedding
        for layer in self.from_embedding:
            x = layer(_up(x))
        fused = F.conv2d(x, _share(self.fuse, 1), padding=1)
        if self.kind == "mlp":
            return ImageMaps(fused, None, None, None)
        detail = self.enhance(self.image(pixels))
        if not self.guided:
            return ImageMaps(fused, detail, None, None)
        c = detail.shape[1]
        squeezed = F.conv2d(detail, _weight(self.squeeze)[:, :c])
        offsets = F.conv2d(detail, self.deform.offsets.weight[:, :c], self.deform.offsets.bias, padding=1)
        return ImageMaps(fused, detail, squeezed, offsets)

    def forward(self, features: Tensor, maps: ImageMaps, image: Tensor, origin: Tensor) -> Refined:
        """Refine the masks of n prompts.

        Parameters
        ----------
        features : (n, c, y, x) the decoder's upscaled embedding, in windows of the low-res grid.
        maps : of the images.
        image : (n,) the image of each.
        origin : (n, 2) x, y of each window's first px in the low-res grid.
        """
        shape = (features.shape[2], features.shape[3])
        x = F.conv2d(features, _share(self.fuse, 0), padding=1) + cut(maps.fused, image, origin, shape)
        x = F.relu(self.fuse[1](x))
        for layer in self.ups:
            x = layer(_up(x))
        if self.kind == "mlp":
            return Refined(self.mlp(x)[:, 0].float(), None)
        joined = self._joined(x, maps, image, origin * self.fine)
        boundary = self.boundary(joined)
        moved = self.widen(self.follow(self.narrow(joined.sigmoid() * x)))  # eq. 14
        return Refined(self.mask(x + moved)[:, 0].float(), boundary[:, 0].float())

    def _joined(self, x: Tensor, maps: ImageMaps, image: Tensor, origin: Tensor) -> Tensor:
        """Boundary-guided fusion (BGFF; eq. 11 to 13) of the masks' features with the image's; `origin` in px."""
        if maps.detail is None:
            raise ValueError("no detail of the images, expected what `images` makes")
        shape = (x.shape[2], x.shape[3])
        detail = cut(maps.detail, image, origin, shape)
        if maps.squeezed is None or maps.offsets is None:
            return cast(Tensor, self.join(torch.cat([detail, x], 1)))
        c, half = detail.shape[1], x.shape[1] // 2
        first, second = x[:, :half], x[:, half:]
        a = F.conv2d(first, _weight(self.squeeze)[:, c:]) + cut(maps.squeezed, image, origin, shape)
        a = F.relu(self.squeeze[1](a))
        where = F.conv2d(second, self.deform.offsets.weight[:, c:], padding=1) + cut(maps.offsets, image, origin, shape)
        b = self.deform(torch.cat([detail, second], 1), where)
        return cast(Tensor, self.join(torch.cat([attend(part) for attend, part in zip(self.attend, (a, b))], 1)))


def average(x: Tensor) -> Tensor:
    """Mean of 3 x 3 px, the border's values going on beyond it."""
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def cut(maps: Tensor, image: Tensor, origin: Tensor, shape: tuple[int, int]) -> Tensor:
    """Windows of maps (b, k, H, W): (n, k, *shape), each from its image and `origin` (n, 2) x, y."""
    b, k, height, width = maps.shape
    if shape == (height, width):
        return maps if b == 1 and len(image) == 1 else maps.index_select(0, image)
    place = window_cells(origin, shape, (height, width)) + (image * (height * width))[:, None]
    flat = maps.permute(0, 2, 3, 1).reshape(-1, k)
    # its gradient is quick, unlike that of an index
    return flat.index_select(0, place.flatten()).view(len(image), *shape, k).permute(0, 3, 1, 2).contiguous()


def _weight(layers: nn.Sequential) -> Tensor:
    """Of the convolution that comes first."""
    return cast(nn.Conv2d, layers[0]).weight


def _share(layers: nn.Sequential, half: int) -> Tensor:
    """Its weights for the first or the second half of its channels."""
    return _weight(layers).chunk(2, 1)[half]


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _conv(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


def _pointwise(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))
