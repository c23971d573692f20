"""A segmenter that takes an expert's points, installed for a test alone."""

import numpy as np
import torch

from gigaseg.segmenters.base import TileInstances
from plugins import plugin

RADIUS = 6
"""px, of the disc that a positive point draws."""


HOLE = 3
"""px, of the disc that a negative point removes."""

CARD = {
    "name": "discs", "summary": "", "tile": 128, "overlap": 32, "pixel_size": None, "unit": "px",
    "object_diameter": None, "classes": ["cell"], "needs_gpu": True, "needs_prompts": False,
    "needs_annotations": False, "outlines": "pixels", "checkpoint": None, "revision": 1, "options": {},
    "takes_points": True,
}  # fmt: skip


class Discs:
    """One mask of the tile: dark pixels and a disc around each positive point, without those near negative ones."""

    def __init__(self, card, context):
        self.card = card
        assert context.classes == (), "hints have no say in the classes"

    def segment(self, batch):
        assert len(batch.prompts) in (0, len(batch.tiles))
        prompts = batch.prompts or [None] * len(batch.tiles)
        return [self._one(image, hints) for image, hints in zip(batch.images, prompts)]

    def _one(self, image, hints):
        mask = (image.float().mean(dim=0) < 60).cpu().numpy()
        y, x = np.indices(mask.shape) + 0.5
        if hints is not None:
            assert hints.points.dtype == np.float32
            assert hints.labels.dtype == np.int8
            assert hints.boxes is None
            assert hints.masks is None
            n = len(hints.id)
            assert hints.points.shape == (n, 1, 2) or n == 0
            for wanted, radius in ((1, RADIUS), (0, HOLE)):
                for px, py in hints.points[hints.labels == wanted]:
                    mask[np.hypot(x - px, y - py) < radius] = wanted == 1
        rows, cols = np.nonzero(mask)
        if not len(rows):
            nothing = torch.zeros(0, 4, dtype=torch.int32)
            return TileInstances(nothing, [], torch.zeros(0), torch.zeros(0, 1))
        x0, y0, x1, y1 = cols.min(), rows.min(), cols.max() + 1, rows.max() + 1
        box = torch.tensor([[x0, y0, x1, y1]], dtype=torch.int32)
        return TileInstances(box, [torch.from_numpy(mask[y0:y1, x0:x1])], torch.ones(1), torch.ones(1, 1))


def installed(folder):
    """The segmenter `discs` is known meanwhile, here and to processes that are started."""
    return plugin(folder, "hinted", Discs)
