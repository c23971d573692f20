"""Losses of the point learner: classes of all anchors, places of the matched ones, and the mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.segmenters.cfrsam.points import PointMaps
from gigaseg.train.cfrsam.matching import DISTANCE, match_points
from gigaseg.train.losses import focal


def class_loss(logits: Tensor, targets: Tensor, background: float) -> Tensor:
    """Cross entropy of the anchors, a mean weighted by 1 for the classes and `background` for the background.

    Parameters
    ----------
    logits : (b, A, classes + 1).
    targets : (b, A) int64; the last index is the background.

    Returns
    -------
    Scalar; 0 where all weights are.
    """
    weight = torch.where(targets == logits.shape[-1] - 1, background, 1.0)
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (each * weight.flatten()).sum() / weight.sum().clamp(min=1e-12)


def place_loss(points: Tensor, truth: Tensor, objects: int) -> Tensor:
    """Squared distances of matched pairs (k, 2), px, summed and divided by the number of objects, at least 1."""
    return (points - truth).square().sum() / max(objects, 1)


def mask_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss (gamma 2, no alpha) of (b, H, W) logits against labels > 0, mean over all pixels."""
    return 2 * focal(logits, (labels > 0).float(), alpha=0.5).mean()


def point_losses(
    maps: PointMaps,
    truth: Sequence[Tensor],
    classes: Sequence[Tensor],
    labels: Tensor,
    *,
    background: float = 0.4,
    distance: float = DISTANCE,
    weights: tuple[float, float, float] = (1.0, 5e-3, 1.0),
) -> dict[str, Tensor]:
    """All losses of a batch, of which several processes each take the mean over their own objects.

    Parameters
    ----------
    maps : of b images, in float32.
    truth, classes : of each image (n, 2) x, y in px, and (n,) int64.
    labels : (b, H, W), 0 is background.
    background, distance : weight of the background, and cost of a px when matching.
    weights : of `class_loss`, `place_loss` and `mask_loss`.

    Returns
    -------
    ``loss``, the weighted sum; ``classification``, ``regression`` and ``mask``; ``distance``, the mean distance of
    matched pairs in px.
    """
    targets = torch.full(maps.logits.shape[:2], maps.logits.shape[-1] - 1, device=maps.logits.device)
    placed, true = [], []
    for i, (places, kinds) in enumerate(zip(truth, classes, strict=True)):
        anchors, objects = match_points(maps.points[i], maps.logits[i], places, kinds, distance)
        targets[i, anchors] = kinds[objects]
        placed.append(maps.points[i, anchors])
        true.append(places[objects])
    points, goals = torch.cat(placed), torch.cat(true)
    parts = {
        "classification": class_loss(maps.logits, targets, background),
        "regression": place_loss(points, goals, sum(len(places) for places in truth)),
        "mask": mask_loss(maps.mask, labels),
    }
    loss = torch.stack([weight * part for weight, part in zip(weights, parts.values())]).sum()
    far = (points.detach() - goals).norm(dim=-1).sum() / max(len(goals), 1)
    return {"loss": loss, **{name: part.detach() for name, part in parts.items()}, "distance": far}
