"""Detail for the masks of an image: features at the resolution of the low-res masks.

An embedding has one vector a patch, and the upscaling of the mask decoder sees nothing else, so outlines are smoother
than the image is. Features of a network that sees finer are added to the upscaled embedding, before the product with a
mask's vector: SAM 2 does so with the levels of its encoder (Ravi et al. 2024, arXiv 2408.00714, section 4).
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from gigaseg.sam.decoder import Decoded
from gigaseg.sam.local import window_cells


def with_detail(decoded: Decoded, detail: Tensor | None, image: Tensor) -> Decoded:
    """`decoded` with the product of each mask's token and its image's detail added to the logits; differentiable.

    Parameters
    ----------
    detail : (b, C / 8, y, x) features on the low-res grid of b whole images; None: nothing is added.
    image : (n,) int64, the image of each prompt.
    """
    if detail is None or not len(image):
        return decoded
    if decoded.tokens is None:
        raise ValueError("decoded has no tokens, expected those of `gigaseg.sam.decoder.decode`")
    n, _, rows, cols = decoded.logits.shape
    channels, height, width = detail.shape[1:]
    place = window_cells(decoded.origin, (rows, cols), (height, width)) + (image * (height * width))[:, None]
    flat = detail.permute(0, 2, 3, 1).reshape(-1, channels)
    seen = flat.index_select(0, place.flatten()).view(n, rows * cols, channels)
    added = (decoded.tokens.to(seen.dtype) @ seen.mT).view_as(decoded.logits)
    return replace(decoded, logits=decoded.logits + added)
