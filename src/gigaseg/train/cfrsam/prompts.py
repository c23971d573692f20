"""Points that prompt for training: the learner's, random pixels of the objects, or their middles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gigaseg.segmenters.base import Proposals
from gigaseg.train.batches import Batch


def told_points(batch: Batch, found: Sequence[Proposals]) -> Tensor:
    """The likeliest point on each object, (n, 2) x, y in crop px; NaN for an object that no point lies on.

    The published code looks objects up by a bilinear sample of their numbers, which tells wrong ones at borders.

    Parameters
    ----------
    found : of each crop of the batch, in its px.
    """
    ids, images = batch.ids.cpu().numpy(), batch.image.cpu().numpy()
    points = np.full((len(ids), 2), np.nan, np.float32)
    side = batch.labels.shape[-1]
    for i, some in enumerate(found):
        order = np.argsort(-some.score, kind="stable")
        xy = some.xy[order]
        cell = np.floor(xy).astype(np.int64).clip(0, side - 1)
        on = batch.labels[i].cpu().numpy()[cell[:, 1], cell[:, 0]]
        number, first = np.unique(on, return_index=True)
        mine = np.flatnonzero(images == i)
        place = np.searchsorted(number, ids[mine]).clip(0, max(0, len(number) - 1))
        hit = number[place] == ids[mine] if len(number) else np.zeros(len(mine), bool)
        points[mine[hit]] = xy[first[place[hit]]]
    return torch.from_numpy(points).to(batch.inside)


def prompt_points(
    batch: Batch, told: Tensor | None, share: float, random: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """One point for each object that gets one.

    Parameters
    ----------
    told : of `told_points`; None: there is no learner.
    share : of objects that get the learner's point; without one there they are left out, as in the published code.
    random : share of the others that get a random pixel; the rest get their middle.

    Returns
    -------
    rows : (k,) positions of the objects.
    points : (k, 2) x, y in crop px.
    """
    n = len(batch.ids)
    drawn = torch.from_numpy(rng.random((n, 2))).to(batch.inside)
    points = torch.where(drawn[:, :1] < random, batch.inside, batch.centres)
    if told is not None:
        points = torch.where(drawn[:, 1:] < share, told, points)
    rows = torch.nonzero(points.isfinite().all(1))[:, 0]
    return rows, points[rows]
