"""A segmenter that proposes its own points, installed for a test alone: bright discs, found per tile."""

import numpy as np
import torch
from scipy import ndimage

from gigaseg.prompts.suppression import point_nms
from gigaseg.segmenters.base import Proposals, TileInstances
from plugins import plugin

RADIUS = 5
"""px, within which two points are one object: less than the distance of two discs, more than a cut disc's shift."""

CARD = {
    "name": "spots", "summary": "", "tile": 128, "overlap": 32, "pixel_size": None, "unit": "px",
    "object_diameter": None, "classes": ["dim", "bright"], "needs_gpu": True, "needs_prompts": True,
    "needs_annotations": False, "outlines": "pixels", "checkpoint": None, "revision": 1,
    "options": {"radius": {"default": RADIUS, "help": "px", "low": 0}},
}  # fmt: skip

DIM, BRIGHT = 130, 220
"""Grey levels of the two classes; the background is black."""


class Spots:
    """Connected bright pixels of a tile: proposed by their centroids, segmented where a point lies on them.

    A piece that the tile's border cuts has its centroid elsewhere than the whole disc, as with any model.
    """

    def __init__(self, card, context):
        self.card, self._radius = card, context.options["radius"]

    def propose(self, batch):
        return [self._points(image) for image in batch.images.cpu().numpy()]

    def merge(self, proposals):
        return point_nms(proposals.xy, proposals.score, self._radius)

    def segment(self, batch):
        assert len(batch.prompts) == len(batch.tiles)
        return [self._masks(image, prompts) for image, prompts in zip(batch.images.cpu().numpy(), batch.prompts)]

    def _points(self, image):
        labels, n = ndimage.label(image[0] > 60)
        index = np.arange(1, n + 1)
        centres = np.array(ndimage.center_of_mass(labels > 0, labels, index)).reshape(n, 2)[:, ::-1] + 0.5
        sure = np.asarray(ndimage.sum(labels > 0, labels, index)) / labels.size
        bright = np.asarray(ndimage.mean(image[0], labels, index)).reshape(n) > (DIM + BRIGHT) / 2
        prob = np.where(bright[:, None], [0.1, 0.9], [0.8, 0.2])
        return Proposals(centres, sure.astype(np.float32), prob.astype(np.float32))

    def _masks(self, image, prompts):
        if not len(prompts.id):  # padding
            return TileInstances(torch.zeros(0, 4, dtype=torch.int32), [], torch.zeros(0), torch.zeros(0, 2))
        labels, _ = ndimage.label(image[0] > 60)
        assert prompts.points.shape == (len(prompts.id), 1, 2)
        assert (prompts.labels == 1).all()
        x, y = prompts.points[:, 0].astype(int).T
        hit = labels[y, x]
        found = ndimage.find_objects(labels)
        on = np.flatnonzero(hit)
        boxes = [(s[1].start, s[0].start, s[1].stop, s[0].stop) for s in (found[i - 1] for i in hit[on])]
        masks = [torch.from_numpy(labels[found[i - 1]] == i) for i in hit[on]]
        return TileInstances(
            torch.tensor(boxes, dtype=torch.int32).view(-1, 4),
            masks,
            torch.full((len(on),), 0.5),
            torch.from_numpy(prompts.class_prob[on]),
            prompt=prompts.id[on],
            left_out={"empty": len(hit) - len(on)},
        )


def spots_slide(size, n, seed, radii=(4, 8), gap=3):
    """A black image (y, x, 3) with n bright discs of two brightnesses that do not touch, and their x, y, radius, class.

    Places are random: a new one is drawn until it keeps `gap` px from the others.
    """
    rng = np.random.default_rng(seed)
    discs = np.empty((0, 4))
    while len(discs) < n:
        radius = rng.uniform(*radii)
        x, y = rng.uniform(radius + 1, size[1] - radius - 1), rng.uniform(radius + 1, size[0] - radius - 1)
        if (np.hypot(discs[:, 0] - x, discs[:, 1] - y) > discs[:, 2] + radius + gap).all():
            discs = np.vstack([discs, (x, y, radius, rng.integers(2))])
    image = np.zeros((*size, 3), np.uint8)
    for x, y, radius, kind in discs:
        y0, y1, x0, x1 = int(y - radius), int(y + radius) + 2, int(x - radius), int(x + radius) + 2
        part = image[y0:y1, x0:x1]
        rows, cols = np.indices(part.shape[:2]) + 0.5
        part[np.hypot(rows + y0 - y, cols + x0 - x) <= radius] = (DIM, BRIGHT)[int(kind)]
    return image, discs


def installed(folder):
    """The segmenter `spots` is known meanwhile, here and to processes that are started."""
    return plugin(folder, "proposing", Spots)
