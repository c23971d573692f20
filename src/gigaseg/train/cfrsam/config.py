"""What the training of CFR-SAM's second stage can be told beside the loop. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from gigaseg.keys import key
from gigaseg.segmenters.cfrsam.config import BASES, FUSIONS, KERNELS, REFINEMENTS
from gigaseg.train.config import ColourConfig


@dataclass(frozen=True)
class CfrSamTraining:
    """What is added to SAM, and how it and SAM's mask decoder are trained."""

    points: str | None = key(
        None, "checkpoint of `train cfrsam-points`: its points prompt, and it goes into the checkpoint, which cannot "
        "segment without one",
    )  # fmt: skip
    start: str | None = key(None, "checkpoint of this method over the same SAM to go on from, by name or file")
    rank: int = key(64, "channels of an adapter", low=1, high=4096)
    kernels: str = key("dynamic", "of the adapters: dynamic, one a pixel; static; none: no adapters", choices=KERNELS)
    fusion: str = key(
        "sum", "of the encoder's levels: sum, as published; gated: ours, SAM's own embedding at first; last: none; "
        "average, add, concat: what the paper compares with", choices=FUSIONS,
    )  # fmt: skip
    refinement: str = key("full", "of masks: full, as published; mlp; none", choices=REFINEMENTS)
    enhancement: bool = key(True, "the refinement enhances the image's edges (MCBE)")
    guidance: bool = key(True, "the refinement fuses image and mask guided by boundaries (BGFF)")
    base: str = key(
        "none", "refined logits are whole, as published, or added to the coarse mask's (coarse, ours: SAM's at first)",
        choices=BASES,
    )  # fmt: skip
    sam_scale: float = key(1.0, "learning rate of SAM's mask decoder, times that of what is added", low=0)
    told: float = key(
        1.0, "share of prompts that are the learner's points where it has one on the object", low=0, high=1
    )
    random: float = key(0.5, "share of the other prompts that are random pixels of the object; the rest: its middle",
                        low=0, high=1)  # fmt: skip
    objects: int = key(25, "objects of a crop that are prompted, at most", low=1, high=1024)
    focal: float = key(20.0, "weight of the focal loss of masks, coarse and refined", low=0)
    dice: float = key(1.0, "weight of their Dice loss, one ratio for all prompts of a batch", low=0)
    each: bool = key(False, "ours: focal and Dice loss of each object, so that small ones count; --focal 4 then")
    quality: float = key(1.0, "weight of the squared error of the predicted IoU", low=0)
    boundary: float = key(0.01, "weight of the cross entropy of boundaries", low=0)
    crop: int = key(256, "side of a training crop, px", low=32, high=4096)
    smallest: float = key(12.0, "least median object diameter of a crop, px", low=1)
    largest: float = key(36.0, "largest median object diameter of a crop, px", low=1)
    window: int = key(-1, "side of the decoding window, embedding cells; 0: none; -1: as SAM was trained", low=-1)
    classes: tuple[str, ...] = key((), "of the objects; none: those of the point learner, else one, nucleus")
    drops: tuple[float, ...] = key(
        (), "shares of the run at which the learning rate falls to a tenth; none: half a cosine", low=0, high=1
    )
    native: bool = key(False, "crops and images that validate are seen at their own scale, not by their objects' size")
    radius: float = key(12.0, "px within which the likelier of the learner's points suppresses the other", low=0)
    use_mask: bool = key(False, "leave points out where the learner's mask says background")
    validated: int = key(0, "images validated while training, at most, evenly spread; 0: all", low=0)
    colour: ColourConfig = key(ColourConfig, "see ColourConfig")
