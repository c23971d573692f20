"""A detector without weights: boxes of the exemplar's size where SAM's features look most like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.persense.base import Boxes, Exemplar, Scene

WINDOW = 0.6
"""Side of the window in which a peak is the greatest, in sides of an exemplar."""


@dataclass(frozen=True)
class _Scale:
    """Sides of a box, px; similarities that score 0 and 1."""

    width: float
    height: float
    low: float
    high: float


class SimilarityDetector:
    """Finds what looks like the exemplars that it has learnt; the text is not used."""

    name = "similarity"
    needs_weights = False
    deterministic = True

    def __init__(self) -> None:
        self._scale: _Scale | None = None

    def learn(self, exemplars: Sequence[Exemplar]) -> None:
        """Take the mean box of exemplars of one scene; its median similarity scores 0, its greatest 1."""
        sides = np.mean([exemplar.box[2:] - exemplar.box[:2] for exemplar in exemplars], axis=0)
        known = exemplars[0].scene.similarity
        if known is None:
            raise SegmenterError("detector 'similarity' needs the similarity of the exemplar's picture")
        self._scale = _Scale(float(sides[0]), float(sides[1]), float(np.median(known)), float(known.max()))

    def detect(self, scene: Scene, text: str) -> Boxes:
        """A box around each peak of the scene's similarity, also around weak ones."""
        scale, known = self._scale, scene.similarity
        if scale is None or known is None:
            raise SegmenterError("detector 'similarity' has learnt no exemplar")
        xy = peaks(known, WINDOW * np.sqrt(scale.width * scale.height))
        found = known[xy[:, 1].astype(int), xy[:, 0].astype(int)]
        scores = np.clip((found - scale.low) / max(scale.high - scale.low, 1e-6), 0, 1)
        order = np.argsort(-scores, kind="stable")
        half = np.array([scale.width, scale.height]) / 2
        boxes = np.hstack([xy - half, xy + half])[order]
        height, width = scene.shape
        return Boxes(
            np.clip(boxes, 0, (width, height, width, height)).astype(np.float32), scores[order].astype(np.float32)
        )


def peaks(values: npt.NDArray[np.float32], window: float, least: float = -np.inf) -> npt.NDArray[np.float64]:
    """Places of the local maxima of a map: (n, 2) x, y, pixel corners at integers, row by row.

    Parameters
    ----------
    values : (h, w).
    window : side of the square in which a peak is the greatest, px; a plateau counts once, in its middle.
    least : what a peak must exceed.
    """
    side = max(3, 2 * int(window / 2) + 1)
    highest = cv2.dilate(values, np.ones((side, side), np.uint8))
    top = ((values == highest) & (values > least)).astype(np.uint8)
    count, _, _, centres = cv2.connectedComponentsWithStats(top, connectivity=8)
    return np.asarray(centres[1:count], np.float64).reshape(-1, 2) + 0.5
