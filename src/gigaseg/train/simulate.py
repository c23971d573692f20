"""Simulated prompts: what a user or a prompter might give for an object, and how they would correct a mask.

The scheme is SAM's (Kirillov et al. 2023, arXiv 2304.02643, appendix A): first a point or a noisy box, then points from
where the mask is wrong, with the last mask's logits as a prompt. Added are what the methods built on it use: exact
boxes and centre points.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gigaseg.sam.prompting import PromptSets, box_sets, point_sets
from gigaseg.train.batches import Batch
from gigaseg.train.config import PromptConfig

PIXEL_CENTRE = 0.5
"""What a prompt's coordinates leave out: SAM's points name the pixel they lie at, and the model adds half a pixel."""


def first_prompts(batch: Batch, rng: np.random.Generator, config: PromptConfig) -> list[tuple[Tensor, PromptSets]]:
    """One prompt an object.

    Returns
    -------
    list of (rows (m,) of the batch's objects, their sets): those with a box and no point, and those with one point;
    none of them empty.
    """
    n, device = len(batch.ids), batch.ids.device
    draw = torch.from_numpy(rng.random(n)).to(device)
    exact = draw < config.exact_box
    boxed = draw < config.exact_box + config.box
    centred = draw < config.exact_box + config.box + config.centre
    boxes = torch.where(exact[:, None], batch.boxes, jitter_boxes(batch.boxes, rng, config.jitter, batch.labels.shape))
    points = torch.where(centred[:, None], batch.centres, batch.inside) - PIXEL_CENTRE
    found = []
    for rows, kind in ((boxed.nonzero()[:, 0], "box"), ((~boxed).nonzero()[:, 0], "point")):
        if len(rows):
            image = batch.image[rows]
            sets = box_sets(image, boxes[rows]) if kind == "box" else point_sets(image, points[rows])
            found.append((rows, sets))
    return found


def jitter_boxes(boxes: Tensor, rng: np.random.Generator, jitter: float, shape: tuple[int, ...]) -> Tensor:
    """Boxes with gaussian noise on each side: sd `jitter` × the side, at most 20 px, cut at the image `shape`[-2:].

    No side moves by more than 0.375 of the box, so that a quarter of it always remains.
    """
    side = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.from_numpy(rng.standard_normal(tuple(boxes.shape))).to(boxes) * (side * jitter)
    most = torch.minimum(side * 0.375, boxes.new_tensor(20.0))
    found = boxes + torch.maximum(torch.minimum(noise, most), -most)
    limit = boxes.new_tensor([shape[-1], shape[-2]]).repeat(2)
    return torch.minimum(found.clamp(min=0), limit)


def correction(logits: Tensor, target: Tensor, first: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A point drawn uniformly from where a mask is wrong.

    Parameters
    ----------
    logits, target : (n, y, x) of a window at one resolution; target bool.
    first : (n, 2) x, y to fall back on where the mask is right everywhere (label 1).

    Returns
    -------
    points : (n, 2) float32, x, y of the centre of the wrong pixel, in px of the window.
    labels : (n,) int8, 1 where the object was missed, 0 where background was taken for it.
    """
    wrong = (logits > 0) != target
    n, _, width = wrong.shape
    count = wrong.flatten(1).sum(1)
    # the rank-th wrong pixel: where the running count first exceeds it
    rank = (torch.from_numpy(rng.random(n)).to(logits.device) * count).long()
    running = wrong.flatten(1).to(torch.int32).cumsum(1, dtype=torch.int32)
    place = torch.searchsorted(running, (rank + 1).to(torch.int32)[:, None]).squeeze(1).clamp(max=running.shape[1] - 1)
    points = torch.stack([place % width, place // width], 1) + 0.5
    missed = target.flatten(1).gather(1, place[:, None]).squeeze(1)
    none = count == 0
    return torch.where(none[:, None], first, points), torch.where(none, 1, missed.to(torch.int8)).to(torch.int8)
