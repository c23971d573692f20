"""What the training of PerSense's density regressor can be told beside the loop. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from gigaseg.keys import key
from gigaseg.segmenters.persense.config import NORMS
from gigaseg.train.config import ColourConfig


@dataclass(frozen=True)
class PersenseTraining:
    """How the density regressor is trained; SAM stays as it is."""

    width: int = key(16, "channels of the U-Net's first level; each deeper one has twice as many", low=1, high=4096)
    levels: int = key(4, "times that the U-Net halves the picture", low=1, high=8)
    norm: str = key("group", "of the U-Net: group; or batch, with which tiles of large pictures show no seams",
                    choices=NORMS)  # fmt: skip
    reduction: int = key(2, "px of the side of the U-Net's cells, each of which it sees whole", low=1, high=16)
    diameter: float = key(20.0, "px that an object is to have when the net sees it", low=1, high=1024)
    sigma: float = key(2.5, "of the gaussian of unit mass that stands for an object, px", low=0.5, high=128)
    thinned: float = key(0.1, "share of crops from which most objects are removed, often all", low=0, high=1)
    start: str | None = key(None, "checkpoint of this method over the same SAM to go on from, by name or file")
    classes: tuple[str, ...] = key(("nucleus",), "the class of all objects, one")
    crop: int = key(224, "side of a training crop, px", low=32, high=4096)
    smallest: float = key(12.0, "least median object diameter of a crop, px", low=1)
    largest: float = key(32.0, "largest median object diameter of a crop, px", low=1)
    validated: int = key(0, "images validated while training, at most, evenly spread; 0: all", low=0)
    colour: ColourConfig = key(ColourConfig, "see ColourConfig")
