"""One object of an image as the exemplar that a one-shot segmenter is shown."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.resample import resample


def median_object(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Mask of the object whose area is nearest to the median, the lowest number among equals.

    Of those that the border does not cut, where there are any: what a person would draw.

    Raises
    ------
    ValueError
        There is no object.
    """
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    present = np.flatnonzero(areas)
    if not len(present):
        raise ValueError("the image has no object to show")
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    whole = np.setdiff1d(present, border)
    some = whole if len(whole) else present
    return labels == some[np.argmin(np.abs(areas[some] - np.median(areas[present])))]


def diameter_of(mask: npt.NDArray[np.bool_]) -> float:
    """Diameter of the circle of equal area, px."""
    return float(np.sqrt(4 * mask.sum() / np.pi))


def scaled(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], scale: float):
    """An image and a mask, resized as `gigaseg.segmenters.whole` resizes the image."""
    height, width = image.shape[:2]
    shape = Shape2d(max(1, round(height * scale)), max(1, round(width * scale)))
    rows, cols = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, (height, width)))
    small = mask[np.ix_(rows, cols)]
    if not small.any():  # an object of less than a pixel
        y, x = (int(np.median(at)) for at in np.nonzero(mask))
        small[min(int(y * scale), shape.height - 1), min(int(x * scale), shape.width - 1)] = True
    pixels = image if shape == (height, width) else resample(image, Bounds(0, 0, width, height), shape)
    return pixels, small
