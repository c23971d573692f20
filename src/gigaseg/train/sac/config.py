"""What the training of SAC can be told beside the loop. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from gigaseg.keys import key
from gigaseg.train.config import ColourConfig


@dataclass(frozen=True)
class SacTraining:
    """How SAM's encoder is adapted, the U-Net and the mask decoder are trained."""

    rank: int = key(-1, "of LoRA on queries and values; 0: none; -1: a quarter of the encoder's width, as published",
                    low=-1, high=16384)  # fmt: skip
    alpha: float | None = key(None, "LoRA's products are scaled by alpha / rank; none: by 1", low=0.001)
    neck: bool = key(False, "train the encoder's neck too, as the paper's SAM-FT, which has --rank 0")
    width: int = key(32, "channels of the U-Net's first level; each of four deeper ones has twice as many", low=1,
                     high=4096)  # fmt: skip
    norm: str = key("batch", "of the U-Net: batch, or group, which does not mind batches of one image",
                    choices=("batch", "group"))  # fmt: skip
    reduction: int = key(2, "the U-Net sees the image smaller by this factor", low=1, high=16)
    detail: int = key(0, "planes of the U-Net's features that join SAM's masks; 0: none, as published; -1: as many as "
                      "fit",
                      low=-1, high=4096)  # fmt: skip
    pairs: int = key(1, "positive and negative points each of an image; 0: none", low=0, high=4096)
    rule: str = key(
        "centroid", "which points: centroid (the paper's O) of the largest regions, or random sure ones (R)",
        choices=("centroid", "random"),
    )  # fmt: skip
    fewer: float = key(0.0, "share of steps with fewer pairs, their number drawn from 0 on", low=0, high=1)
    truth: float = key(0.0, "share of crops whose points come from the truth, not from the U-Net", low=0, high=1)
    trained: str = key(
        "all", "all: jointly; unet alone; sam: all but the U-Net (though its detail), which --start brings; decoder: "
        "SAM's mask decoder alone, over --start",
        choices=("all", "unet", "sam", "decoder"),
    )  # fmt: skip
    unet_scale: float = key(10.0, "learning rate of the U-Net, times that of LoRA and decoder", low=0)
    bce: float = key(1.0, "weight of the U-Net's cross entropy", low=0)
    focal: float = key(20.0, "weight of the mask's focal loss", low=0)
    dice: float = key(1.0, "weight of its Dice loss", low=0)
    start: str | None = key(None, "checkpoint of this method over the same SAM to go on from, by name or file")
    checkpointing: str = key(
        "auto", "compute activations of the encoder's blocks again for the gradient, which saves memory: on, off, or "
        "auto: for encoders of 24 blocks and more", choices=("auto", "on", "off"),
    )  # fmt: skip
    classes: tuple[str, ...] = key(("nucleus",), "the class of all objects, one")
    crop: int = key(256, "side of a training crop, px", low=32, high=4096)
    smallest: float = key(12.0, "least median object diameter of a crop, px", low=1)
    largest: float = key(36.0, "largest median object diameter of a crop, px", low=1)
    letterbox: bool = key(
        False, "each crop is a whole image that fills --crop, on black, turned by right angles and mirrored; "
        "validation and evaluation see images so too",
    )  # fmt: skip
    validated: int = key(0, "images validated while training, at most, evenly spread; 0: all", low=0)
    colour: ColourConfig = key(ColourConfig, "see ColourConfig")
