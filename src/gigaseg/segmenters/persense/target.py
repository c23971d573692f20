"""What SAM's features say of the object that was shown, and where a picture looks like it.

Follows PerSAM (arXiv 2305.03048), on which PerSense builds.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.segmenters.persense.base import Mask

WHITE = 123.675 / 255
"""Least mean of a cell's four middle pixels: the published code asks whether the normalised red of the mask's picture
is above 0, so two of four white pixels do."""


@dataclass(frozen=True, eq=False)
class Target:
    """The features of an object.

    Attributes
    ----------
    embedding : (C,) float32, mean over its cells of SAM's features as they are.
    direction : (C,) the same of length 1.
    """

    embedding: Tensor
    direction: Tensor

    @classmethod
    def of(cls, features: Tensor, mask: Mask) -> Target:
        """Target of an object.

        Parameters
        ----------
        features : (C, gh, gw) of the picture.
        mask : its object.

        Raises
        ------
        ValueError
            The mask is empty.
        """
        weights = torch.from_numpy(cell_weights(mask, (features.shape[1], features.shape[2]))).to(features)
        embedding = (features * weights).sum((1, 2)) / weights.sum()
        return cls(embedding, embedding / embedding.norm())


def cell_weights(mask: Mask, grid: tuple[int, int], side: int = 16) -> npt.NDArray[np.float32]:
    """Weights of the cells that an object's features are the mean of, (gh, gw).

    A cell is selected, with weight 1, when at least two of its four middle pixels lie in the mask, which is resized to
    `side` px a cell: what resizing the mask to the grid without anti-aliasing amounts to. An object so small that no
    cell is selected has as weights the shares of the cells that it covers, where the published code divides by zero.

    Raises
    ------
    ValueError
        The mask is empty.
    """
    if not mask.any():
        raise ValueError("the mask of the object is empty")
    rows, cols = grid
    white = _resized(mask.astype(np.float32), (rows * side, cols * side))
    half = side // 2
    middle = white.reshape(rows, side, cols, side)[:, half - 1 : half + 1][:, :, :, half - 1 : half + 1]
    selected: npt.NDArray[np.float32] = (middle.mean((1, 3)) > WHITE).astype(np.float32)
    if selected.any():
        return selected
    covered = cv2.resize(mask.astype(np.float32), (cols, rows), interpolation=cv2.INTER_AREA)
    weights: npt.NDArray[np.float32] = np.asarray(covered, np.float32).reshape(rows, cols)
    return weights


def cosine(features: Tensor, direction: Tensor) -> Tensor:
    """Cosine between each cell and a direction of length 1: (gh, gw) in [-1, 1]."""
    return torch.einsum("chw,c->hw", F.normalize(features, dim=0), direction)


def similarity(cells: Tensor, input_shape: tuple[int, int], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The cosines of cells (gh, gw) at the size of the picture, resized as PerSAM does.

    Parameters
    ----------
    input_shape, shape : (height, width) of SAM's input and of the picture, px.

    Returns
    -------
    (h, w) float32.
    """
    rows, cols = cells.shape
    maps = cells[None, None].float()
    for size in ((4 * rows, 4 * cols), input_shape, shape):
        if maps.shape[2:] != size:
            maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
    return np.asarray(maps[0, 0].cpu(), np.float32)


def _resized(plane: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Bilinear, anti-aliased where it shrinks, as Pillow's."""
    from PIL import Image

    if plane.shape == shape:
        return np.asarray(plane)
    return np.array(Image.fromarray(plane).resize((shape[1], shape[0]), Image.Resampling.BILINEAR), np.float32)
