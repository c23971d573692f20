"""What DenseSAM's boundary head learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_ALONG: tuple[tuple[Any, Any], ...] = (
    ((..., slice(1, None), slice(None)), (..., slice(None, -1), slice(None))),
    ((..., slice(1, None)), (..., slice(None, -1))),
)
"""Each pixel and its neighbour: down, and to the right."""


def boundary_target(labels: Tensor, extra: int = 0) -> Tensor:
    """Boundaries of the instances: two pixels wide, one inside and one outside.

    The released code takes for each instance what a dilation by the cross of 3 x 3 adds or an erosion by it removes,
    and the union over the instances. That is where a pixel and one of its four neighbours have different labels, so no
    instance needs a turn of its own. The image's border is a cut, no boundary.

    Parameters
    ----------
    labels : (…, y, x) whole numbers, 0 is background.
    extra : further dilations by the cross; 2 for CPM17 in the released code, none for MoNuSeg and CoNIC.

    Returns
    -------
    (…, y, x) bool.
    """
    found = torch.zeros_like(labels, dtype=torch.bool)
    for one, other in _ALONG:
        differ = labels[one] != labels[other]
        found[one] |= differ
        found[other] |= differ
    for _ in range(extra):
        before = found.clone()
        for one, other in _ALONG:
            found[one] |= before[other]
            found[other] |= before[one]
    return found


def token_labels(foreground: Tensor, grid: tuple[int, int]) -> Tensor:
    """Foreground (b, y, x) at the tokens, by the pixel in their middle, for the contrastive loss: (b, h, w) bool.

    The released code takes the pixel in a token's upper left corner.
    """
    return F.interpolate(foreground[:, None].float(), grid, mode="nearest-exact")[:, 0] > 0.5
