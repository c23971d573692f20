"""The rows of `accuracy.py`: which segmenter, with which weights and options, and what its paper reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from accuracy_data import DSB2018, MONUSEG_HELD_OUT, Picture, Seen
from exemplars import diameter_of, median_object, scaled

from gigaseg.sam.checkpoints import read_state
from gigaseg.sam.downloads import base_reference, checkpoint_path
from gigaseg.segmenters.base import Context, Segmenter
from gigaseg.segmenters.card import Card, read_card
from gigaseg.segmenters.persense.checkpoint import open_persense
from gigaseg.segmenters.persense.segmenter import PerSense
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.segmenters.whole import SCALES, STEP, estimate_diameter, nominal_tiling, segment_image
from gigaseg.testing import ArraySlide


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes
    ----------
    name : of the row.
    segmenter : registry name.
    weights : option of the command line that names another checkpoint than `checkpoint`; None: there are none.
    checkpoint : name of the default one.
    tuned_on : images on which a weight-free method was tuned.
    options : of the segmenter, beside its card's defaults.
    tile, overlap : in memory and in the workflow, px at the scale that the segmenter sees.
    steps : tiles of small images shrink; False where the options count per tile.
    diameter, pixel_size : nominal ones, where the segmenter's card names others; px and µm.
    shown : each image shows one of its own objects, the one of median area, which also tells the scale.
    paper : set -> figure -> value as printed.
    paper_model : what the paper's figures were reached with.
    """

    name: str
    segmenter: str
    weights: str | None = None
    checkpoint: str | None = None
    tuned_on: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    tile: int = 512
    overlap: int = 64
    steps: bool = True
    diameter: float | None = None
    pixel_size: float | None = None
    shown: bool = False
    paper: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    paper_model: str = ""

    @property
    def card(self) -> Card:
        """The segmenter's; raises SegmenterError when there is no such segmenter."""
        return read_card(self.segmenter)

    @property
    def nominal(self) -> tuple[float, float]:
        """Diameter of an object, px, and size of a pixel, µm, that the segmenter is to see."""
        card = self.card
        return self.diameter or float(card.object_diameter or 0), self.pixel_size or float(card.pixel_size or 0)

    def words(self) -> str:
        """Tile and options, for the page."""
        diameter, pixel_size = self.nominal
        words = [f"{k} {v}" for k, v in self.options.items()]
        size = f"tile {'' if not self.steps else 'up to '}{self.tile}, overlap {self.overlap}"
        return "; ".join([f"{diameter:g} px an object, or {pixel_size:g} µm/px", size, ", ".join(words) or "defaults"])


METHODS = {
    method.name: method
    for method in (
        Method("watershed", "watershed", tuned_on="dsb2018 train", tile=256),
        Method(
            "everything + small",
            "everything",
            weights="sam",
            checkpoint="small-v1",
            # a point every 16 px, so that each nucleus of 20 px gets one; what is larger than a few nuclei is none
            options={
                "points_per_side": 32,
                "pred_iou_thresh": 0.5,
                "stability_score_thresh": 0.3,
                "nms": "mask",
                "box_nms_thresh": 0.3,
                "max_area": 0.01,
                "window": 10,
            },
            steps=False,
            diameter=20.0,
            pixel_size=0.4,
        ),
        Method(
            "centersam + small",
            "centersam",
            weights="centersam",
            checkpoint="centersam-v2",
            # of its tables; its DSC on nuclei is taken for the pixels' Dice (docs/accuracy.md)
            paper={
                DSB2018: {"pixel_dice": 0.9220, "pixel_iou": 0.8660},
                MONUSEG_HELD_OUT: {"pixel_dice": 0.8195, "aji": 0.6875},
            },
            paper_model="ViT-H, trained on each set, its own test images",
        ),
        Method(
            "centersam + small, monuseg",
            "centersam",
            weights="centersam_monuseg",
            # not shipped: monuseg's licence does not allow it; docs/centersam.md has the command that trains it
            checkpoint="training/centersam-monuseg/best.safetensors",
        ),
        Method(
            "sac + small",
            "sac",
            weights="sac",
            checkpoint="sac-v1",
            # SAC without an expert's points, one pair: Tables 1 and 2; its F1 is taken for the pooled one
            paper={
                DSB2018: {"pixel_dice": 0.9304, "pixel_iou": 0.8732, "pixel_dice_pooled": 0.9348},
                MONUSEG_HELD_OUT: {"pixel_dice": 0.8403, "pixel_iou": 0.7261, "pixel_dice_pooled": 0.8411},
            },
            paper_model="ViT-H, trained on each set, its own test images",
        ),
        Method("sac + small, no points", "sac", weights="sac", checkpoint="sac-v1", options={"pairs": 0}),
        Method(
            "sac + small, monuseg",
            "sac",
            weights="sac_monuseg",
            # not shipped: monuseg's licence does not allow it; docs/sac.md has the command that trains it
            checkpoint="training/sac-monuseg/best.safetensors",
        ),
        Method(
            "densesam + small",
            "densesam",
            weights="densesam",
            checkpoint="densesam-v1",
            # of its Table 1, on tiles of 256 px that are never put together again
            paper={MONUSEG_HELD_OUT: {"aji": 0.6650, "pq": 0.6144}},
            paper_model="ViT-H, trained on MoNuSeg, its own test images",
        ),
        Method(
            "densesam + small, monuseg",
            "densesam",
            weights="densesam_monuseg",
            # not shipped: monuseg's licence does not allow it; docs/densesam.md has the command that trains it
            checkpoint="training/densesam-monuseg/best.safetensors",
        ),
        Method(
            "cfrsam + small",
            "cfrsam",
            weights="cfrsam",
            checkpoint="cfrsam-v1",
            # of its Table 5, on images of 1000 px
            paper={MONUSEG_HELD_OUT: {"aji": 0.668, "pq": 0.662}},
            paper_model="ViT-H, trained on MoNuSeg, its own test images",
            overlap=96,
        ),
        Method(
            "cfrsam + small, monuseg",
            "cfrsam",
            weights="cfrsam_monuseg",
            # not shipped: monuseg's licence does not allow it; docs/cfrsam.md has the commands that train it
            checkpoint="training/cfrsam-monuseg/best.safetensors",
            overlap=96,
        ),
        Method(
            "persense + small, one object shown",
            "persense",
            weights="persense",
            checkpoint="persense-v1",
            options={"density": "regressor"},
            pixel_size=0.3,
            overlap=96,
            shown=True,
        ),
    )
}


def seen_by(checkpoint: Path | None) -> Seen:
    """What a checkpoint, those it was started from, and its base were trained on."""
    cards: list[dict[str, Any]] = []
    while checkpoint is not None:
        card = read_state(checkpoint)[1]
        cards += [card, *card.get("before", [])[::-1], *card.get("points_trained", [])[::-1]]
        base = card.get("base")
        checkpoint = checkpoint_path(base_reference(checkpoint, base["name"])) if base else None
    return Seen(tuple((str(card["data"]), str(card["split"])) for card in cards if {"data", "split"} <= card.keys()))


class Runner:
    """A method at work.

    Parameters
    ----------
    checkpoint : file of the weights, None for a weight-free segmenter.
    device : as torch names it.
    """

    def __init__(self, method: Method, checkpoint: Path | None, device: str) -> None:
        self.device = device
        self._method, self._checkpoint = method, checkpoint
        self._built: dict[str, Segmenter] = {}
        self.build("brightfield")  # so that what is missing or unfit shows at once

    def build(self, kind: str) -> Segmenter:
        """The segmenter for slides of a kind."""
        if kind not in self._built:
            card = self._method.card
            context = Context(
                info=ArraySlide(np.zeros((1, 1, 3), np.uint8), kind=kind).info,
                tiling=nominal_tiling(card, self._method.overlap),
                device=self.device,
                checkpoint=self._checkpoint,
                options=card.complete(self._method.options),
            )
            # one that is shown an object learns it from each image
            self._built[kind] = (
                PerSense.of(open_persense(self._checkpoint, self.device), context.options)
                if self._method.shown
                else load_segmenter(card.name, context)
            )
        return self._built[kind]

    def __call__(self, picture: Picture, image: np.ndarray) -> np.ndarray:
        """Label image (y, x) of an image (y, x, 3) uint8; of the truth one object at most is looked at."""
        method, segmenter = self._method, self.build(picture.kind)
        diameter, pixel_size = method.nominal
        settings = {
            "tile": method.tile,
            "overlap": method.overlap,
            "step": STEP if method.steps else None,
            "device": self.device,
        }
        if method.shown:
            exemplar = median_object(picture.truth())
            scale = min(max(diameter / diameter_of(exemplar), SCALES[0]), SCALES[1])
            pixels, mask = scaled(image, exemplar, scale)
            cast(PerSense, segmenter).learn(pixels, [mask])
        elif picture.pixel_size is not None:
            scale = picture.pixel_size / pixel_size
        else:
            found = estimate_diameter(segmenter, image, nominal=diameter, **settings)
            scale = 1.0 if math.isnan(found) else min(max(diameter / found, SCALES[0]), SCALES[1])
        return segment_image(segmenter, image, scale=scale, **settings)
