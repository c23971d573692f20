"""What the training of CenterSAM can be told beside the loop. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from gigaseg.keys import key
from gigaseg.train.config import ColourConfig


@dataclass(frozen=True)
class CenterSamTraining:
    """How a detector is trained, and SAM with it where wanted."""

    detector: str = key(
        "light",
        "light: ours, on SAM's embedding; resnet18, hourglass: the paper's, on the image alone",
        choices=("light", "resnet18", "hourglass"),
    )
    width: int = key(64, "channels of a light detector", low=2, high=4096)
    detail: int = key(
        32, "channels of its branch that draws the edges which all masks share; 0: none", low=0, high=4096
    )
    foreground: float = key(1.0, "weight of the cross entropy of that branch and the foreground", low=0)
    dims: tuple[int, ...] = key(
        (256, 256, 384, 384, 384, 512), "channels of an hourglass's levels, outermost first", low=1
    )
    counts: tuple[int, ...] = key((2, 2, 2, 2, 2, 4), "residuals of its levels", low=1)
    stacks: int = key(2, "hourglasses one after another", low=1, high=16)
    classes: tuple[str, ...] = key(
        ("nucleus",), "class of all objects, or the classes of which each training object must have one"
    )
    crop: int = key(256, "side of a training crop, px", low=32, high=4096)
    smallest: float = key(10.0, "least median object diameter of a crop, px", low=1)
    largest: float = key(36.0, "largest median object diameter of a crop, px", low=1)
    letterbox: bool = key(
        False, "crops as the paper's: each image scaled to fill --crop, on black, varied by the sampler of CenterNet"
    )
    sam_size: int = key(
        0, "px of the squares on which SAM sees letterboxed images when validating, the detector at --crop; 0: as that",
        low=0, high=8192,
    )  # fmt: skip
    clahe: bool = key(False, "equalise the crops' contrast first, as the segmenter's option of that name does")
    visible: float = key(0.3, "objects that a crop shows less of than this share are no targets", low=0, high=1)
    margin: float = key(0.0, "grid cells that boxes keep off the right and bottom border; CenterNet: 1", low=0, high=1)
    box_losses: str = key(
        "code", "code: L1 over both coordinates' number; paper: L1 of sizes, smooth L1 of offsets, over the objects'",
        choices=("code", "paper"),
    )  # fmt: skip
    size: float = key(0.1, "weight of the loss of box sizes", low=0)
    offset: float = key(1.0, "weight of the loss of centre offsets", low=0)
    start: str | None = key(None, "checkpoint of this method over the same SAM to go on from, by name or file")
    finetune: str = key(
        "none",
        "what of SAM is trained as well: none, its mask decoder, or all: its encoder too",
        choices=("none", "decoder", "all"),
    )
    finetune_scale: float = key(0.1, "its learning rate, share of the detector's", low=0)
    masks: float = key(1.0, "weight of the losses of masks from true boxes, with --finetune or --detail", low=0)
    fine: bool = key(False, "those losses at the input's resolution, not at the low-res masks'")
    objects: int = key(16, "objects of a crop whose masks are trained, at most", low=1, high=1024)
    window: int = key(
        -1,
        "side of the decoding window, embedding cells, when validating or fine-tuning; 0: none; -1: as SAM was trained",
        low=-1,
    )
    full: float = key(0.05, "share of steps whose masks are decoded from the whole crop instead", low=0, high=1)
    drops: tuple[float, ...] = key(
        (), "shares of the run at which the learning rate falls to a tenth; none: half a cosine", low=0, high=1
    )
    validated: int = key(0, "images validated while training, at most, evenly spread; 0: all", low=0)
    native: bool = key(True, "validate at the images' own resolution as well")
    colours: str = key(
        "gigaseg", "gigaseg: colours vary as the options of that heading say; centernet: as in its published code",
        choices=("gigaseg", "centernet"),
    )  # fmt: skip
    colour: ColourConfig = key(ColourConfig, "see ColourConfig")
