"""What the point learner sees an image through: four maps of features, at strides 4, 8, 16 and 32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.centersam.blocks import Residual, conv_bn
from gigaseg.segmenters.cfrsam.config import PointsConfig

STRIDES = (4, 8, 16, 32)
"""Px of the image that a cell of each map covers."""

_DEEP = 2
"""Residual blocks of the two coarse stages of `LightBackbone`; the fine ones, where all the time goes, have one."""


class LightBackbone(nn.Module):
    """Our own, for CPUs: residual blocks of plain 3 x 3 convolutions, which train faster there than depth-wise ones.

    Attributes
    ----------
    widths : channels of the four maps.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths
        half = max(widths[0] // 2, 4)
        self.stem = nn.Sequential(
            conv_bn(3, half, 3, 2), nn.ReLU(), conv_bn(half, widths[0], 3, 2), nn.ReLU(), Residual(widths[0], widths[0])
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                Residual(widths[k], widths[k + 1], 2),
                *(Residual(widths[k + 1], widths[k + 1]) for _ in range(_DEEP - 1 if k else 0)),
            )
            for k in range(3)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(b, 3, H, W), sides multiples of 32, to four maps (b, width, H / stride, W / stride)."""
        maps = [self.stem(images.contiguous(memory_format=torch.channels_last))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


class ConvNextBackbone(nn.Module):
    """The paper's: ConvNeXt-S (Liu et al. 2022) of timm, its head left out. Maps are not normalised any more.

    Attributes
    ----------
    widths : channels of the four maps.
    """

    widths = (96, 192, 384, 768)

    def __init__(self) -> None:
        super().__init__()
        self.body = _timm().create_model("convnext_small", features_only=True, pretrained=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """As `LightBackbone.forward`."""
        return list(self.body(images))

    def own_names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a file of timm's weights (stem.0.weight, …) by their names in here, without the head."""
        found = {}
        for name, tensor in state.items():
            stage, _, rest = name.partition(".")
            number, _, rest = rest.partition(".")
            if stage in ("stem", "stages"):
                found[f"body.{stage}_{number}.{rest}"] = tensor
        return found


def build_backbone(config: PointsConfig) -> LightBackbone | ConvNextBackbone:
    """The backbone of a configuration, fresh; SegmenterError when it needs timm, which is not there."""
    return LightBackbone(config.widths) if config.backbone == "light" else ConvNextBackbone()


def _timm() -> Any:
    from gigaseg.sam.torchvision_ops import ensure_torchvision

    try:
        ensure_torchvision()
        import timm
    except ImportError as error:
        raise SegmenterError(
            "backbone 'convnext_small' needs timm, which is not installed; run: pip install 'gigaseg[cfrsam]'"
        ) from error
    return timm
