"""A segmenter that takes an expert's points, installed for a test alone."""

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from gigaseg.segmenters.base import TileInstances
from gigaseg.segmenters.card import _entry_points, read_card

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


@contextmanager
def installed(folder):
    """The segmenter `discs` is known meanwhile, here and to processes that are started."""
    package = folder / "hinted_segmenters"
    info = folder / "hinted_segmenters-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "discs.py").write_text("from hinted import Discs\n")
    (package / "discs.json").write_text(json.dumps(CARD))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hinted-segmenters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gigaseg.segmenters]\ndiscs = hinted_segmenters.discs:Discs\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", f"{folder}:{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}")
        _forget()
        yield
    _forget()


def _forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "hinted_segmenters"]:
        del sys.modules[name]
    for cached in (_entry_points, read_card):
        cached.cache_clear()
