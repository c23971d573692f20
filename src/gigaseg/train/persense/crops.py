"""Crops of few objects or none: data sets have hardly any, slides many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from gigaseg.train.crops import Crop

MOST = 3
"""Objects that a thinned crop keeps, at most."""

_HALO = 3
"""Px about a removed object that go with it, since there it still glows."""


def thinned(crop: Crop, rng: np.random.Generator) -> Crop:
    """The crop without most of its objects, often without any, where background takes their place.

    What fills them is between flat and as noisy as the crop's own background; in a third of the crops it fills all but
    the objects that are kept.
    """
    kept = crop[torch.from_numpy(np.sort(rng.permutation(len(crop.ids))[: rng.integers(-MOST, MOST + 1).clip(0)]))]
    stays = torch.isin(crop.labels, kept.ids)
    objects = F.max_pool2d((crop.labels > 0).float()[None], 2 * _HALO + 1, 1, _HALO)[0] > 0
    outside = crop.image[:, ~objects]
    if not outside.shape[1]:
        outside = crop.image.flatten(1)
    middle = outside.median(1).values[:, None]
    gone = torch.ones_like(objects) if rng.random() < 1 / 3 else objects
    gone &= ~stays
    drawn = torch.from_numpy(rng.integers(outside.shape[1], size=int(gone.sum())))
    image = crop.image.clone()
    image[:, gone] = middle + rng.random() * (outside[:, drawn] - middle)
    return replace(kept, image=image, labels=torch.where(stays, crop.labels, 0))
