"""What tokens of the image encoder hold: the two metrics of DenseSAM's analysis (Zhou et al. 2025, section 3).

The local metric of a token is the variance of its channels; the global one, of two tokens, their cosine similarity,
over channels too (the published code normalises over the rows of the image, against its text).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.errors import ConfigError, unknown
from gigaseg.sam.backend import Backend
from gigaseg.sam.config import SamConfig

PATCH, NECK = "patch", "neck"
"""Names of the patch embedding (with its position) and of the embedding; a block's name is its position, from 0."""


def local_map(features: Tensor) -> Tensor:
    """Variance over the channels, (..., D) to (...)."""
    return features.var(-1, correction=0)


def global_map(features: Tensor, token: Tensor | npt.NDArray[np.int64] | Sequence[int]) -> Tensor:
    """Cosine similarity of every token to one, or to several.

    Parameters
    ----------
    features : (h, w, D).
    token : (..., 2), row and column.

    Returns
    -------
    (..., h, w), -1..1.
    """
    row, column = torch.as_tensor(token, device=features.device).unbind(-1)
    units = F.normalize(features, dim=-1)
    return torch.einsum("...d,hwd->...hw", units[row, column], units).clamp(-1, 1)


def choose_layers(config: SamConfig, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """Layers in the order of the encoder; by default the patch embedding, the global-attention blocks and the neck.

    Raises
    ------
    ConfigError
        The model has no such layer.
    """
    names = (PATCH, *(str(index) for index in range(config.depth)), NECK)
    if wanted is None:
        wanted = (PATCH, *(str(index) for index in config.global_blocks), NECK)
    for name in wanted:
        if name not in names:
            raise ConfigError(f"--layers: {unknown('layer', name, names)}")
    return tuple(name for name in names if name in wanted)


def layer_features(backend: Backend, image: npt.NDArray[np.uint8], layers: Sequence[str]) -> dict[str, Tensor]:
    """Features (h, w, D) of an image by the name of the layer.

    Parameters
    ----------
    image : (height, width, 3) RGB, of sides that `Backend.input_shape` takes.
    layers : as `choose_layers` orders them.
    """
    blocks = [int(name) for name in layers if name not in (PATCH, NECK)]
    encoded = backend.encode(torch.from_numpy(image).permute(2, 0, 1)[None], hidden=blocks)
    patch, *outputs = (tokens[0].float() for tokens in encoded.hidden)
    found = {PATCH: patch, **dict(zip(map(str, blocks), outputs)), NECK: encoded.embedding[0].float().permute(1, 2, 0)}
    return {name: found[name] for name in layers}
