"""PerSense as published: a support picture shows an object, a query picture is searched, each measured by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gigaseg.sam.backend import Backend
from gigaseg.segmenters.card import card_from
from gigaseg.segmenters.persense.base import Exemplar, Mask, Picture, Scene
from gigaseg.segmenters.persense.checkpoint import open_persense
from gigaseg.segmenters.persense.exemplars import refine_points
from gigaseg.segmenters.persense.finder import Finder, Levels
from gigaseg.segmenters.persense.guidance import Guidance
from gigaseg.segmenters.persense.kit import Kit, prompted_masks
from gigaseg.segmenters.persense.target import Target

LEAST_SIDE = 512
"""Long side, px, at which a model that was trained on less sees a picture; others see it at their own size."""


class OneShot:
    """Foreground of a query like the object of a support picture.

    With the options ``rule=paper`` or ``rule=code`` each step is as published, but that a picture that is not square is
    mirrored to one, and what is mirrored counts in the number of objects and in the levels of the density; else what
    `gigaseg.segmenters.persense` proposes applies: candidates alike in size, and masks of fitting area alone.

    Parameters
    ----------
    kit : back ends and rules.

    Attributes
    ----------
    back_ends : names of what is used, by role.
    last_points : points of the last query.
    """

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        side = max(kit.backend.config.image_size, LEAST_SIDE)
        self._eye: Backend = replace(kit.backend, input_size=side)
        self.back_ends = kit.back_ends
        self.last_points = 0
        self._support: tuple[Picture, Mask, Target, Exemplar, str] | None = None

    @classmethod
    def open(
        cls, checkpoint: str | None = None, device: str = "auto", options: Mapping[str, Any] | None = None
    ) -> OneShot:
        """With the weights and options that segmenter `persense` takes, texts or values.

        Raises
        ------
        CheckpointError, DeviceError, SegmenterError
            The weights, the device or an option is not accepted.
        """
        card = card_from(Path(__file__).with_name("persense.json"))
        complete = card.complete(options or {})
        loaded = open_persense(
            checkpoint or card.checkpoint, device, None, complete["precision"], compile=complete["compile"]
        )
        return cls(Kit.of(loaded, complete))

    def foreground(self, support_rgb: Picture, support_mask: Mask, query_rgb: Picture) -> Mask:
        """Pixels of the query (h, w, 3) that are of the kind which the mask covers in the support picture."""
        target, shown, label = self._shown(support_rgb, support_mask)
        finder = self._kit.finder(self._eye, label)
        height, width = query_rgb.shape[:2]
        scene = finder.compared(finder.scene(_square(query_rgb)), target)
        scene = replace(scene, similarity=_within(scene, height, width))
        size = (width, height)
        first = self._first(finder, scene, target, shown, label, size)
        xy = self._points(finder, scene, [first], size)
        exemplars = [first]
        if self._kit.rules.exemplars:
            exemplars = finder.feedback(scene, xy, exemplars, target)
            xy = self._points(finder, scene, exemplars, size)
            if not len(xy) and self._kit.rules.rule == "code":
                xy = self._points(self._unselected(label), scene, exemplars, size)
        self.last_points = len(xy)
        return self._union(scene, xy, exemplars)[:height, :width]

    def _shown(self, rgb: Picture, mask: Mask) -> tuple[Target, Exemplar, str]:
        """Target, exemplar and label of a support; kept for the next query."""
        known = self._support
        if known is None or known[0] is not rgb or known[1] is not mask:
            label = self._kit.labels.label(rgb, mask)
            finder = self._kit.finder(self._eye, label)
            height, width = mask.shape
            square = _square(rgb)
            placed = np.zeros(square.shape[:2], bool)
            placed[:height, :width] = mask
            target, (shown,) = finder.shown(square, [placed])
            inside = _within(shown.scene, height, width)
            shown = replace(shown, scene=replace(shown.scene, similarity=inside))
            known = self._support = (rgb, mask, target, shown, label)
        return known[2], known[3], known[4]

    def _first(
        self, finder: Finder, scene: Scene, target: Target, shown: Exemplar, label: str, size: tuple[int, int]
    ) -> Exemplar:
        """The exemplar of the first pass: what SAM sees at the likeliest place (eq. 2), asked three times."""
        known, rule = scene.similarity, self._kit.rules.rule
        if known is None or scene.features is None:
            raise ValueError("the scene has no similarity")
        detector = self._kit.detector
        x0, y0, x1, y1 = 0, 0, known.shape[1], known.shape[0]
        if detector is not None:
            detector.learn([shown])
            boxes = detector.detect(scene, label).xyxy
            boxes = boxes[((boxes[:, :2] + boxes[:, 2:]) / 2 < size).all(1)]
            if len(boxes):
                box = boxes[0]
                x0, y0 = (max(0, math.floor(value)) for value in box[:2])
                x1, y1 = max(x0 + 1, math.ceil(box[2])), max(y0 + 1, math.ceil(box[3]))
        inside = known[y0:y1, x0:x1]
        row, col = np.unravel_index(int(inside.argmax()), inside.shape)
        # the published code computes this place and then takes the middle of the box
        xy = ((x0 + x1) // 2, (y0 + y1) // 2) if rule == "code" else (x0 + int(col), y0 + int(row))
        guidance = Guidance.of(scene.features, target) if self._kit.rules.guidance else None
        refined = refine_points(
            self._eye,
            scene.features,
            np.array([xy], np.float64) + 0.5,
            scene.shape,
            window=self._kit.window,
            guidance=guidance,
            third=True,
            final_box=rule == "paper",
        )
        if refined.areas[0] <= 0:
            half = (shown.box[2:] - shown.box[:2]) / 2
            return Exemplar(scene, np.hstack([xy - half, xy + half]), 0.0, shown.area)
        return Exemplar(scene, refined.boxes[0], float(refined.scores[0]), float(refined.areas[0]))

    def _points(
        self, finder: Finder, scene: Scene, exemplars: list[Exemplar], size: tuple[int, int]
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Points in the picture, whose width and height are `size`; not in what fills its square."""
        if self._kit.detector is not None:
            self._kit.detector.learn(exemplars)
        xy = finder.points(scene, exemplars, Levels()).xy
        return xy[(xy < size).all(1)]

    def _unselected(self, label: str) -> Finder:
        kit = replace(self._kit, rules=replace(self._kit.rules, select=False))
        return kit.finder(self._eye, label)

    @torch.inference_mode()
    def _union(self, scene: Scene, xy: np.ndarray[Any, Any], exemplars: list[Exemplar]) -> Mask:
        """All that SAM's masks at the points cover."""
        options, canvas = self._kit.options, np.zeros(scene.shape, bool)
        if not len(xy) or scene.features is None:
            return canvas
        areas = None
        if options["rule"] == "clamped":
            middle = float(np.median([exemplar.area for exemplar in exemplars]))
            areas = (options["min_area"] * middle, options["max_area"] * middle)
        masks = prompted_masks(
            self._eye,
            scene.features,
            xy,
            scene.shape,
            multimask=options["multimask"] or areas is None,
            window=self._kit.window,
            areas=areas,
        ).cpu()
        pixels = masks.pixels().tolist()
        for box, mask, area in zip(masks.boxes.tolist(), masks.unpack(), pixels):
            if areas is None or areas[0] <= area <= areas[1]:
                x0, y0, x1, y1 = box
                canvas[y0:y1, x0:x1] |= mask.numpy()
        return canvas


def _square(rgb: Picture) -> Picture:
    """A picture in the corner of a square that it fills, mirrored beyond its borders.

    The published code fills with SAM's mean colour, whose edge is no part of the picture and whose features would count
    in what the picture is compared with.
    """
    side = max(rgb.shape[:2])
    return np.pad(rgb, ((0, side - rgb.shape[0]), (0, side - rgb.shape[1]), (0, 0)), mode="symmetric")


def _within(scene: Scene, height: int, width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The similarity of a square, least where it is not picture."""
    if scene.similarity is None:
        raise ValueError("the scene has no similarity")
    found = np.full_like(scene.similarity, scene.similarity[:height, :width].min())
    found[:height, :width] = scene.similarity[:height, :width]
    return found
