"""Where objects of a name lie: by Grounding DINO, which reads it, or by CenterSAM's detector, which knows its own.

The detector that needs neither a name nor weights is in `gigaseg.segmenters.persense.similarity`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.centersam.checkpoint import DEFAULT_CHECKPOINT, open_centersam
from gigaseg.segmenters.centersam.peaks import Peaks, decode
from gigaseg.segmenters.persense.base import Boxes, Exemplar, Picture, Scene
from gigaseg.segmenters.persense.hub import pretrained
from gigaseg.segmenters.whole import SCALES

GROUNDING_DINO_MODEL = "IDEA-Research/grounding-dino-tiny"
"""The paper's size; 0.7 GB, Apache-2.0."""

GROUNDING_DINO_THRESHOLD = 0.15
"""Score that a box must exceed, as in the paper."""

_TOP = 10_000
"""Most boxes of a tile of CenterSAM's detector, more than any has."""


class GroundingDino:
    """Grounding DINO (Liu et al. 2023): boxes of what a text names.

    A picture is resized by the model's own processor, as published to a short side of 800 px and a long one of 1333 px
    at most. Boxes are not suppressed by one another, as in the paper.

    Attributes
    ----------
    name, needs_weights, deterministic : as `BackEnd`.

    Parameters
    ----------
    model : a folder or a name on the hub, of a model of type "grounding-dino".
    device : as `gigaseg.devices.choose_device` takes it.
    threshold : score in 0..1 that a box must exceed.

    Raises
    ------
    SegmenterError
        As `gigaseg.segmenters.persense.hub.pretrained`.
    """

    needs_weights = True
    deterministic = True

    def __init__(
        self,
        model: str = GROUNDING_DINO_MODEL,
        device: str = "cpu",
        threshold: float = GROUNDING_DINO_THRESHOLD,
    ) -> None:
        self.name = f"grounding-dino {model}"
        self.threshold = threshold
        self._processor, self._model, self._device = pretrained(
            "grounding-dino", model, "AutoModelForZeroShotObjectDetection", "grounding-dino", device
        )

    def learn(self, exemplars: Sequence[Exemplar]) -> None:
        """Nothing: it reads."""

    def detect(self, scene: Scene, text: str) -> Boxes:
        """Boxes of what `text` names, clipped to the picture.

        Raises
        ------
        SegmenterError
            The text is blank.
        """
        from PIL import Image

        inputs = self._processor(images=Image.fromarray(scene.rgb), text=caption(text), return_tensors="pt")
        with torch.inference_mode():
            outputs = self._model(**inputs.to(self._device))
        return grounded(outputs.logits[0], outputs.pred_boxes[0], scene.shape, self.threshold)


def caption(text: str) -> str:
    """A text as Grounding DINO takes it.

    >>> caption(" All Cells")
    'all cells.'

    Raises
    ------
    SegmenterError
        The text is blank.
    """
    said = text.lower().strip()
    if not said:
        raise SegmenterError("back end 'grounding-dino' was asked for nothing, expected a noun, such as 'nucleus'")
    return said if said.endswith(".") else f"{said}."


def grounded(logits: Tensor, boxes: Tensor, shape: tuple[int, int], threshold: float) -> Boxes:
    """What Grounding DINO's outputs say; the score of a query is that of its best token.

    Parameters
    ----------
    logits : (queries, tokens) float, -inf where there is no token.
    boxes : (queries, 4) float centre x, centre y, width, height in parts of the picture.
    shape : height and width of the picture, px.
    threshold : score in 0..1 that a box must exceed.

    Returns
    -------
    Boxes
        Of equal scores the earlier query first.
    """
    scores = logits.float().sigmoid().amax(1)
    kept = torch.nonzero(scores > threshold)[:, 0]
    kept = kept[torch.argsort(scores[kept], descending=True, stable=True)]
    centre, size = boxes[kept, :2].float(), boxes[kept, 2:].float()
    sides = boxes.new_tensor([shape[1], shape[0]], dtype=torch.float32)
    xyxy = torch.cat([(centre - size / 2) * sides, (centre + size / 2) * sides], 1).cpu().numpy()
    return Boxes(_clipped(xyxy, shape), scores[kept].cpu().numpy())


class CenterNetDetector:
    """The detector of a CenterSAM checkpoint: boxes of the objects it was trained on, whatever the text.

    A picture is scaled so that its objects have the diameter that CenterSAM is made for, and seen in tiles that
    overlap, each of which answers for the objects whose centre is nearer to it than to the others.

    Attributes
    ----------
    classes : names of what it finds.
    threshold : score that a box must exceed.
    diameter : typical diameter of the objects, px of the picture; 0: pictures are taken as they are.
    name, needs_weights, deterministic : as `BackEnd`.

    Parameters
    ----------
    checkpoint : name or file, as `gigaseg.sam.checkpoints.checkpoint_path` takes it.
    device : as `gigaseg.devices.choose_device` takes it.
    threshold : in 0..1; 0: the checkpoint's own.

    Raises
    ------
    CheckpointError, DeviceError
        As `gigaseg.segmenters.centersam.checkpoint.open_centersam`.
    """

    needs_weights = True
    deterministic = True

    def __init__(
        self,
        checkpoint: str = DEFAULT_CHECKPOINT,
        device: str = "cpu",
        threshold: float = 0.0,
        diameter: float = 0.0,
    ) -> None:
        loaded = open_centersam(checkpoint, device)
        card = read_card("centersam")
        self.name = f"centersam {checkpoint}"
        self.classes = loaded.detector.config.classes
        self.threshold = threshold or loaded.threshold
        self.diameter = diameter
        self._backend, self._detector = loaded.backend, loaded.detector
        self._nominal, self._tile, self._overlap = float(card.object_diameter or 0), card.tile, card.overlap

    def learn(self, exemplars: Sequence[Exemplar]) -> None:
        """Take the exemplars' mean side as the diameter of the objects."""
        self.diameter = float(np.mean([exemplar.side for exemplar in exemplars]))

    def detect(self, scene: Scene, text: str, diameter: float = 0.0) -> Boxes:
        """Boxes clipped to the picture, those narrower than a pixel left out.

        Parameters
        ----------
        text : not used.
        diameter : of the objects in this picture, such as `Exemplar.side`, px; 0: as at construction.
        """
        wanted = diameter or self.diameter
        scale = min(max(self._nominal / wanted, SCALES[0]), SCALES[1]) if wanted else 1.0
        pixels = _scaled(scene.rgb, scale)
        height, width = pixels.shape[:2]
        step = math.lcm(self._backend.config.patch, self._detector.multiple)
        down, right = (-side % step for side in (height, width))
        pixels = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge")
        boxes, scores = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
        for rows in _spans(height + down, self._tile, self._overlap):
            for cols in _spans(width + right, self._tile, self._overlap):
                peaks = self._peaks(pixels[rows.start : rows.end, cols.start : cols.end])
                found = peaks.boxes.cpu().numpy() + np.array([cols.start, rows.start] * 2, np.float32)
                centre = (found[:, :2] + found[:, 2:]) / 2
                own = ((centre >= [cols.low, rows.low]) & (centre < [cols.high, rows.high])).all(1)
                boxes.append(found[own])
                scores.append(peaks.scores.cpu().numpy()[own])
        return self._boxes(np.concatenate(boxes), np.concatenate(scores), scene.shape, (height, width))

    def _peaks(self, pixels: Picture) -> Peaks:
        """Of one tile."""
        images = torch.tensor(pixels).permute(2, 0, 1)[None].to(self._backend.device)
        seen = self._detector.normalise(images.float())
        with self._backend.running():
            embedding = self._backend.encode(images).embedding if self._detector.uses_embedding else None
            return decode(self._detector(seen, embedding)[-1], _TOP, self.threshold)

    def _boxes(
        self,
        xyxy: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float32],
        shape: tuple[int, int],
        seen: tuple[int, int],
    ) -> Boxes:
        """From px of the scaled picture, of shape `seen`, to those of the picture."""
        ratio = np.array([shape[1] / seen[1], shape[0] / seen[0]] * 2, np.float32)
        xyxy = _clipped(xyxy * ratio, shape)
        good = (xyxy[:, 2:] - xyxy[:, :2] >= 1).all(1)
        xyxy, scores = xyxy[good], scores[good]
        order = np.argsort(-scores, kind="stable")
        return Boxes(xyxy[order], scores[order])


class _Span(NamedTuple):
    """Where a tile lies along one side of a picture, and from where to where it answers for objects, px."""

    start: int
    end: int
    low: float
    high: float


def _spans(length: int, tile: int, overlap: int) -> list[_Span]:
    """The tiles along a side; none reaches beyond it, since objects that the border cuts are found as they are cut."""
    side = min(tile, length)
    count = max(1, math.ceil((length - overlap) / (tile - overlap)))
    starts = [min(i * (tile - overlap), length - side) for i in range(count)]
    limits = [-math.inf, *((start + after + side) / 2 for start, after in pairwise(starts)), math.inf]
    return [_Span(start, start + side, *ends) for start, ends in zip(starts, pairwise(limits))]


def _clipped(xyxy: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    return np.clip(xyxy, 0, np.array([shape[1], shape[0]] * 2, np.float32))


def _scaled(rgb: Picture, scale: float) -> Picture:
    if scale == 1:
        return rgb
    shape = [max(1, round(side * scale)) for side in rgb.shape[:2]]
    pixels = torch.tensor(rgb).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, shape, mode="bilinear", antialias=True)
    return pixels[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
