"""Exemplars of another picture, shown beside this one: a model that counts by examples looks for them in its image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gigaseg.segmenters.persense.base import Exemplar, Picture, Scene

CONTEXT = 0.5
"""What is shown around an exemplar on each side, in parts of its box's longer side."""

GAP = 8
"""Px between the picture and the pieces on the strip, so that objects at the border stay apart."""


def beside(scene: Scene, exemplars: Sequence[Exemplar], multiple: int = 1) -> tuple[Picture, npt.NDArray[np.float64]]:
    """The picture, and to its right a strip with the exemplars that lie in other pictures.

    They are cut out with their context and stand one below the other, in as many columns as it takes. What they do not
    cover has the picture's mean colour.

    Parameters
    ----------
    exemplars : of which those whose scene is not `scene` are put on the strip; without such there is none.
    multiple : px, of which the sides of the result are multiples; what is added lies at the right and the bottom.

    Returns
    -------
    rgb : (H, W, 3) uint8; the picture is its upper left part.
    boxes : (n, 4) float64 of the exemplars in it.
    """
    height, width = scene.shape
    boxes = np.array([exemplar.box for exemplar in exemplars], np.float64).reshape(-1, 4)
    pieces: list[tuple[int, int, Picture]] = []
    x, y, right, bottom = width + GAP, 0, width, height
    for k, exemplar in enumerate(exemplars):
        if exemplar.scene is scene:
            continue
        piece, corner = _cut(exemplar)
        if y and y + len(piece) > height:
            x, y = right + GAP, 0
        pieces.append((x, y, piece))
        boxes[k] += np.array([x, y] * 2) - np.array(corner * 2)
        right, bottom = max(right, x + piece.shape[1]), max(bottom, y + len(piece))
        y += len(piece) + GAP
    shape = [-(-side // multiple) * multiple for side in (bottom, right)]
    if shape == [height, width]:
        return scene.rgb, boxes
    rgb = np.empty((*shape, 3), np.uint8)
    rgb[:] = scene.rgb.reshape(-1, 3).mean(0).round()
    rgb[:height, :width] = scene.rgb
    for x, y, piece in pieces:
        rgb[y : y + len(piece), x : x + piece.shape[1]] = piece
    return rgb, boxes


def _cut(exemplar: Exemplar) -> tuple[Picture, tuple[int, int]]:
    """The exemplar with its context, as far as its picture goes, and x and y of that piece's corner there."""
    rgb, box = exemplar.scene.rgb, exemplar.box
    around = CONTEXT * float((box[2:] - box[:2]).max())
    sides = np.array([rgb.shape[1], rgb.shape[0]])
    x0, y0 = np.clip(np.floor(box[:2] - around), 0, sides - 1).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(box[2:] + around), [x0 + 1, y0 + 1], sides).astype(int).tolist()
    return rgb[y0:y1, x0:x1], (x0, y0)
