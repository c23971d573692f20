"""What the density regressor should answer: a gaussian of unit mass an object, about its centroid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigaseg.train.crops import Crop


def with_centres(crop: Crop, points: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64]) -> Crop:
    """The crop with those objects listed whose points lie in it, and the points as their centres.

    Parameters
    ----------
    points : (n + 1, 2) x, y, px of the image, of its objects by their ids.
    matrix : (2, 3) the map that the crop was cut by, crop px to image px.
    """
    mine = points[crop.ids.numpy()] - matrix[:, 2]
    centres = np.linalg.solve(matrix[:, :2], mine.T).T
    inside = ((centres >= 0) & (centres < crop.labels.shape[0])).all(1)
    return replace(crop, centres=torch.from_numpy(centres.astype(np.float32)))[torch.from_numpy(inside)]


def density_targets(centres: Tensor, image: Tensor, shape: tuple[int, int, int], sigma: float) -> Tensor:
    """Objects a pixel.

    Parameters
    ----------
    centres : (n, 2) x, y, px, inside the pictures.
    image : (n,) int64, the picture of each.
    shape : number of pictures, height and width.
    sigma : of the gaussians, px; what would lie beyond a border is spread over the rest of its gaussian.

    Returns
    -------
    (b, h, w) float32; each picture's sum is the number of its objects.
    """
    planes = []
    bells = []
    for side, at in ((shape[1], centres[:, 1]), (shape[2], centres[:, 0])):
        away = torch.arange(side, device=centres.device) + 0.5 - at[:, None]
        bells.append(torch.softmax(-(away**2) / (2 * sigma**2), dim=1))  # a gaussian that sums to 1
    for number in range(shape[0]):
        rows = image == number
        planes.append(bells[0][rows].T @ bells[1][rows])
    return torch.stack(planes)
