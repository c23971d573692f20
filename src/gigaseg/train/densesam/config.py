"""What the training of DenseSAM can be told beside the loop. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from gigaseg.keys import key
from gigaseg.train.config import ColourConfig


@dataclass(frozen=True)
class DenseSamTraining:
    """What is added to SAM, and how it is trained."""

    heads: int = key(2, "2: objects and boundaries; 1: objects alone, the semantic variant", low=1, high=2)
    local_branch: bool = key(True, "inject the local branch's term")
    global_branch: bool = key(True, "inject the global branch's term, which the contrastive loss shapes")
    inner_idx: tuple[int, ...] = key(
        (1,), "features of the encoder that are injected: 0 the patch embedding, 1.. the global-attention blocks",
    )  # fmt: skip
    site: str = key(
        "before", "where the term joins the image tokens: before each block of the decoder, as in the published code, "
        "after each, or at the end, as in the paper's equation 9", choices=("before", "after", "end"),
    )  # fmt: skip
    image_token_update: bool = key(False, "image tokens take in what they attend to, as in SAM; the published code "
                                   "leaves that out")  # fmt: skip
    iou_token: str = key("sam", "the token beside the mask token: SAM's, or random, as in the published code",
                         choices=("sam", "random"))  # fmt: skip
    trained: str = key(
        "added", "added: what DenseSAM adds to SAM, as published; decoder: SAM's mask decoder too (the paper's "
        "baseline, where nothing is injected); all: SAM's encoder too, for one that is too small to serve as it is",
        choices=("added", "decoder", "all"),
    )  # fmt: skip
    sam_scale: float = key(0.3, "learning rate of SAM's own weights, times that of what is added", low=0)
    start: str | None = key(None, "checkpoint of this method over the same SAM to go on from, by name or file")
    bce: float = key(0.5, "weight of the cross entropy", low=0)
    dice: float = key(0.5, "weight of the Dice loss", low=0)
    contrastive: float = key(0.1, "weight of the contrastive loss of the global branch", low=0)
    points: int = key(12544, "points of a map at which losses are taken, mostly unsure ones; 0: all pixels", low=0)
    thicker: int = key(0, "dilations of the boundary target, which is 2 px wide; docs/densesam_protocols.md has the "
                       "published widths", low=0, high=16)  # fmt: skip
    classes: tuple[str, ...] = key(("nucleus",), "the class of all objects, one")
    crop: int = key(256, "side of a training crop, px", low=32, high=4096)
    smallest: float = key(12.0, "least median object diameter of a crop, px", low=1)
    largest: float = key(36.0, "largest median object diameter of a crop, px", low=1)
    views: str = key(
        "free", "free: random place, scale, angle and colours; fixed: tiles of a grid at the middle scale, turned by "
        "right angles and mirrored, colours as they are; whole: the same of whole images that fill --crop, on black, "
        "and validation sees images so too", choices=("free", "fixed", "whole"),
    )  # fmt: skip
    turned: bool = key(True, "with fixed or whole views: turn and mirror; no: as they are, as for MoNuSeg as published")
    cache: str | None = key(None, "folder for the frozen encoder's features of fixed or whole views, which are then "
                            "computed once")  # fmt: skip
    native: bool = key(False, "validation and evaluation see images as they are, not scaled to the segmenter's nominal "
                       "object diameter: for rasters of a known pixel size")  # fmt: skip
    validated: int = key(0, "images validated while training, at most, evenly spread; 0: all", low=0)
    colour: ColourConfig = key(ColourConfig, "see ColourConfig")
