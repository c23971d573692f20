"""SAC's forward pass in parts: the U-Net's map, points as prompts, one mask of each whole image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.sam.adapters import Lora
from gigaseg.sam.config import SamConfig
from gigaseg.sam.decoder import decode
from gigaseg.sam.detail import with_detail
from gigaseg.sam.encoder import Encoded
from gigaseg.sam.prompting import PromptSets
from gigaseg.segmenters.sac.config import SacConfig
from gigaseg.segmenters.sac.points import Points
from gigaseg.segmenters.sac.unet import UNet

LORA, UNET = "lora.", "unet."
"""Of the names of what SAC adds to a SAM model; all others are SAM's, by their official names."""


def build_lora(config: SacConfig, sam: SamConfig) -> Lora | None:
    """The low-rank adaptation of SAM's encoder, exactly without effect at the start; None for rank 0."""
    return Lora(sam.depth, sam.embed_dim, config.rank, config.alpha) if config.rank else None


def build_unet(config: SacConfig) -> UNet:
    """The U-Net, initialised."""
    return UNet(config.width, norm=config.norm, detail=config.detail)


def prompt_maps(unet: nn.Module, images: Tensor, reduction: int) -> tuple[Tensor, Tensor | None]:
    """What the U-Net sees in a batch of images.

    Parameters
    ----------
    images : (b, 3, H, W) normalised (`gigaseg.sam.encoder.normalise`), any sides.
    reduction : they are averaged down by this factor first.

    Returns
    -------
    Logits of the foreground (b, ceil(H / reduction), ceil(W / reduction)), and detail (b, c, the same) or None.
    """
    net = cast(Any, unet)
    height, width = (-(-side // reduction) for side in images.shape[-2:])
    down, right = (-side % (net.multiple * reduction) for side in images.shape[-2:])
    small = F.pad(images, (0, right, 0, down))  # with the mean colour
    if reduction > 1:
        small = F.avg_pool2d(small, reduction)
    logits, detail = net(small)
    return logits[:, 0, :height, :width], None if detail is None else detail[:, :, :height, :width]


def prompt_sets(points: Sequence[Points], reduction: int, device: torch.device) -> PromptSets:
    """One prompt set an image of its points, which all images have equally many of.

    Parameters
    ----------
    points : of each image, px of the U-Net's map.
    """
    # as SAM takes points: half a pixel less
    xy = torch.stack([torch.from_numpy(p.xy) for p in points]) * reduction - 0.5
    labels = torch.stack([torch.from_numpy(p.labels) for p in points])
    return PromptSets(torch.arange(len(points)), xy, labels).to(device)


def mask_logits(model: nn.Module, encoded: Encoded, sets: PromptSets, detail: Tensor | None) -> Tensor:
    """Logits of each image's one mask; differentiable.

    Parameters
    ----------
    model : `segment_anything.modeling.Sam`.
    sets : one an image.
    detail : of `prompt_maps`, or None.

    Returns
    -------
    (b, 4 h, 4 w) float32 on the low-res grid of the embedding h x w.
    """
    decoded = decode(model, encoded, sets)
    if detail is not None:
        height, width = decoded.logits.shape[-2:]
        detail = F.adaptive_avg_pool2d(detail, (height, width))
    return with_detail(decoded, detail, sets.image).logits[:, 0]


def upsampled(logits: Tensor, shape: tuple[int, int]) -> Tensor:
    """Maps (b, h, w) at another size, bilinear as SAM resizes its masks."""
    if logits.shape[-2:] == shape:
        return logits
    return F.interpolate(logits[:, None].float(), shape, mode="bilinear", align_corners=False)[:, 0]
