"""What the training of CFR-SAM's point learner can be told beside the loop. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from gigaseg.keys import key
from gigaseg.segmenters.cfrsam.config import BACKBONES
from gigaseg.train.config import ColourConfig


@dataclass(frozen=True)
class CfrPointsTraining:
    """How a point learner is trained.

    The paper's for PanNuke: ``--backbone convnext_small --channels 256 --levels 3 --spacing 8``, and of the loop
    ``--rate 2e-4 --last-rate 1 --clip 0.1 --ema 0.99 --decay 1e-4 --batch 16 --beta2 0.999 --warmup 0``. For
    MoNuSeg: ``--levels 4 --spacing 16 --background 0.2 --rate 5e-5 --batch 4``.
    """

    backbone: str = key("light", "light: ours, for CPUs; convnext_small: the paper's, by timm", choices=BACKBONES)
    widths: tuple[int, ...] = key((32, 64, 128, 192), "channels of a light backbone at strides 4, 8, 16, 32", low=8)
    channels: int = key(64, "channels of the pyramids and heads; paper: 256", low=4, high=4096)
    levels: int = key(3, "finest levels of the pyramid that descriptors are sampled from", low=1, high=4)
    spacing: int = key(8, "of the anchors, px", low=2, high=256)
    dropout: float = key(0.1, "in the heads", low=0, high=0.99)
    legacy: bool = key(False, "sampling and mask as in the published code, a few px off")
    classes: tuple[str, ...] = key(
        ("nucleus",), "class of all objects, or the classes of which each training object must have one"
    )
    crop: int = key(256, "side of a training crop, px", low=32, high=4096)
    smallest: float = key(10.0, "least median object diameter of a crop, px", low=1)
    largest: float = key(36.0, "largest median object diameter of a crop, px", low=1)
    distance: float = key(0.1, "matching: cost of a px of distance, in units of probability", low=0)
    background: float = key(0.4, "weight of the background in the cross entropy; the classes have 1", low=0)
    classification: float = key(1.0, "weight of the cross entropy", low=0)
    regression: float = key(5e-3, "weight of the squared distances, px", low=0)
    mask: float = key(1.0, "weight of the mask's focal loss", low=0)
    pretrained: str | None = key(None, "file of timm's weights that a convnext_small begins with (default: none)")
    start: str | None = key(None, "checkpoint of this method to go on from, by name or file")
    native: bool = key(False, "crops and images that validate are seen at their own scale, not by their objects' size")
    radius: float = key(12.0, "validation: px within which a point and an object's are one, at 26 px an object", low=0)
    suppression: float = key(12.0, "validation: px within which the likelier point suppresses the other", low=0)
    use_mask: bool = key(False, "validation: leave points out where the mask says background")
    validated: int = key(0, "images validated while training, at most, evenly spread; 0: all", low=0)
    colour: ColourConfig = key(ColourConfig, "see ColourConfig")
