"""Contrast-limited adaptive histogram equalisation of tiles (Zuiderveld 1994), as the paper prepares its images."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

_CLIP = 2.0
"""Height at which a histogram is cut, in mean heights of its bins; what is cut goes to all bins alike."""

_TILES = 8
"""Histograms along each side of an image."""


def clahe(images: Tensor) -> Tensor:
    """Equalise each image: grey ones as they are, of colour ones the lightness L of CIE Lab.

    On the host, one image at a time, by OpenCV with a clip limit of 2 and 8 x 8 tiles.

    Parameters
    ----------
    images : (b, 3, height, width) uint8 RGB.

    Returns
    -------
    The same shape, type and device.
    """
    equalise = cv2.createCLAHE(clipLimit=_CLIP, tileGridSize=(_TILES, _TILES))
    found = []
    for image in images.cpu().permute(0, 2, 3, 1).numpy():
        image = np.ascontiguousarray(image)
        if (image == image[..., :1]).all():
            found.append(np.repeat(equalise.apply(image[..., 0])[..., None], 3, axis=2))
            continue
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        lab[..., 0] = equalise.apply(lab[..., 0])
        found.append(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))
    if not found:
        return images
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous().to(images.device)
