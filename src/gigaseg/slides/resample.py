"""Anti-aliased resampling of a rectangle with fractional borders."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gigaseg.geometry import Bounds, Shape2d

_SHRINKING = 1.5
"""From this ratio (along both axes) on the Hamming filter is used, below it the triangle (bilinear) filter.

The Hamming kernel keeps more contrast than the triangle but reproduces a ramp only approximately when it
covers few pixels (0.17 px off at ratio 1); the triangle is exact at ratio 1 and is plain bilinear
interpolation when enlarging.
"""


def margin(ratio: float) -> int:
    """Pixels around the box that the filter sees when it shrinks by `ratio` (source per result pixel)."""
    return math.ceil(max(ratio, 1.0)) + 1


def resample(array: npt.NDArray[Any], box: Bounds, shape: Shape2d, nodata: float | None = None) -> npt.NDArray[Any]:
    """Resample the rectangle `box` of `array` to `shape`.

    The filter is scaled with the ratio (convolution), so that shrinking does not alias, and uses the pixels
    around the box as far as the array has them. Pixel (i, j) of the result is centred at box.ymin + (i + 0.5)
    * box.height / shape.height, and alike along x, in a frame where pixel corners of `array` lie at integers.

    Parameters
    ----------
    array : (y, x, channel), any real dtype. Dtypes other than uint8 are computed in float32, so integers
        above 2^24 lose their last digits.
    box : px of `array`, inside it; may be fractional.
    shape : (height, width) of the result.
    nodata : pixels whose channels all have this value carry no data: they have no weight, and a result pixel
        less than half of whose weight is data is nodata.

    Returns
    -------
    (height, width, channel) array of the same dtype.
    """
    ratio = min(box.width / shape.width, box.height / shape.height)
    filter = Image.Resampling.HAMMING if ratio >= _SHRINKING else Image.Resampling.BILINEAR
    if nodata is not None:
        valid = np.any(array != array.dtype.type(nodata), axis=-1)
        if not valid.all():
            return _resample_valid(array, valid, box, shape, nodata, filter)
    if array.dtype == np.uint8:
        return _resample_uint8(array, box, shape, filter)
    planes = [_resize(array[..., c].astype(np.float32), box, shape, filter) for c in range(array.shape[-1])]
    return _to_dtype(np.stack(planes, axis=-1), array.dtype)


def _resample_uint8(array: npt.NDArray[Any], box: Bounds, shape: Shape2d, filter: Image.Resampling) -> npt.NDArray[Any]:
    if array.shape[-1] == 3:
        return _resize(array, box, shape, filter)
    planes = [_resize(array[..., c], box, shape, filter) for c in range(array.shape[-1])]
    return np.stack(planes, axis=-1)


def _resample_valid(
    array: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    box: Bounds,
    shape: Shape2d,
    nodata: float,
    filter: Image.Resampling,
) -> npt.NDArray[Any]:
    weight = _resize(valid.astype(np.float32), box, shape, filter)
    result = np.full((*shape, array.shape[-1]), nodata, dtype=array.dtype)
    inside = weight >= 0.5
    for c in range(array.shape[-1]):
        values = np.where(valid, array[..., c], 0).astype(np.float32)
        mean = _resize(values, box, shape, filter)[inside] / weight[inside]
        result[inside, c] = _to_dtype(mean, array.dtype)
    return result


def _resize(plane: npt.NDArray[Any], box: Bounds, shape: Shape2d, filter: Image.Resampling) -> npt.NDArray[Any]:
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize((shape.width, shape.height), filter, box=(box.xmin, box.ymin, box.xmax, box.ymax)))


def _to_dtype(values: npt.NDArray[np.float32], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(dtype)
    return values.astype(dtype)
