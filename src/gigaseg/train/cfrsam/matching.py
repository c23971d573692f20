"""Which anchor answers for which object."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

DISTANCE = 0.1
"""Cost of a px in units of probability: alpha of the paper's eq. 1."""


@torch.no_grad()
def match_points(
    points: Tensor, logits: Tensor, truth: Tensor, classes: Tensor, distance: float = DISTANCE
) -> tuple[Tensor, Tensor]:
    """The assignment of least total cost, `distance` · |p - g| - p(class of g), in one image; in double precision.

    Parameters
    ----------
    points, logits : (A, 2) x, y in px and (A, classes + 1), of the anchors.
    truth, classes : (n, 2) x, y in px and (n,) int64, of the objects.

    Returns
    -------
    (k,) int64 anchors and (k,) int64 objects of the pairs, by ascending anchor; k = min(A, n).
    """
    far = np.linalg.norm(points.cpu().double().numpy()[:, None] - truth.cpu().double().numpy()[None], axis=-1)
    likely = logits.double().softmax(-1)[:, classes.to(logits.device)].cpu().numpy()
    anchors, objects = linear_sum_assignment(distance * far - likely)
    return torch.from_numpy(anchors).to(points.device), torch.from_numpy(objects).to(points.device)
