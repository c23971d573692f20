"""Detail for the masks of an image: a plane of foreground logits at the resolution of the low-res masks.

An embedding has one vector a patch, and the upscaling of the mask decoder sees nothing else, so outlines are smoother
than the image is. A network with finer features can say of each pixel whether it is of any object; the prompt's own
logits say whose it is. A pixel is in a mask when both hold, as independent events.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gigaseg.sam.decoder import Decoded
from gigaseg.sam.local import window_cells


def with_detail(decoded: Decoded, detail: Tensor | None, image: Tensor) -> Decoded:
    """`decoded` with the masks' probabilities times those of the detail; differentiable in both.

    Parameters
    ----------
    detail : (b, y, x) logits on the low-res grid of b whole images; None: nothing changes.
    image : (n,) int64, the image of each prompt.
    """
    if detail is None or not len(image):
        return decoded
    n, _, rows, cols = decoded.logits.shape
    height, width = detail.shape[1:]
    place = window_cells(decoded.origin, (rows, cols), (height, width)) + (image * (height * width))[:, None]
    seen = detail.flatten().index_select(0, place.flatten()).view(n, 1, rows, cols)
    return replace(decoded, logits=both(decoded.logits, seen))


def both(one: Tensor, two: Tensor) -> Tensor:
    """Logit of the product of two probabilities given as logits: -log(e^-a + e^-b + e^-(a+b))."""
    return -torch.logaddexp(torch.logaddexp(-one, -two), -one - two)
