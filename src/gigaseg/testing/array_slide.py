"""A slide that lies in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.base import BRIGHTFIELD, Level, Rendering, SlideInfo


class ArraySlide:
    """A `gigaseg.slides.base.Slide` over an array, read by exact area averaging.

    Parameters
    ----------
    array : (height, width) or (height, width, channel) in any native dtype; a memory map stays on disk.
    kind : "brightfield", "fluorescence" or "raster".
    pixel_size, unit : size of a pixel, one number or (x, y), in "um", "m" or "px".
    background : native value outside the slide, one for all channels or one each; None: 255 for brightfield
        uint8, else 0.
    rendering : None: uint8 values as they are (one channel, or the first three); other dtypes from the
        array's minimum and maximum.
    nodata, crs, transform, name : as in `SlideInfo`.
    """

    info: SlideInfo

    def __init__(
        self,
        array: npt.NDArray[Any],
        *,
        kind: str = BRIGHTFIELD,
        pixel_size: float | tuple[float, float] = 0.5,
        unit: str = "um",
        background: float | Sequence[float] | None = None,
        rendering: Rendering | None = None,
        nodata: float | None = None,
        crs: str | None = None,
        transform: tuple[float, float, float, float, float, float] | None = None,
        name: str = "array",
    ) -> None:
        self._array = array if array.ndim == 3 else array[..., np.newaxis]
        height, width, channels = self._array.shape
        if background is None:
            background = 255 if kind == BRIGHTFIELD and array.dtype == np.uint8 else 0
        outside = [background] * channels if isinstance(background, (int, float)) else background
        self.info = SlideInfo(
            slide=name,
            path=f"{name}.npy",
            kind=kind,
            reader="array",
            vendor="array",
            width=width,
            height=height,
            levels=(Level(width, height, 1.0, 1.0),),
            channels=("red", "green", "blue")[:channels] if channels == 3 else tuple(map(str, range(channels))),
            dtype=str(array.dtype),
            background=tuple(float(value) for value in outside),
            rendering=rendering or _rendering(self._array),
            pixel_size=pixel_size if isinstance(pixel_size, tuple) else (pixel_size, pixel_size),
            pixel_size_source="sheet",
            unit=unit,
            crs=crs,
            transform=transform,
            nodata=nodata,
            bounds=None,
            objective_power=None,
            fingerprint="array",
        )

    def read(self, bounds: Bounds, shape: Shape2d, channels: Sequence[int] | None = None) -> npt.NDArray[Any]:
        """Read `bounds` (level-0 px) as (height, width, channel): see `gigaseg.slides.base.Slide.read`.

        Each pixel is the mean over the area it covers, background included where that lies outside; integer
        dtypes are rounded. Where pixels coincide with those of the array they are copied.
        """
        used = list(range(self._array.shape[2])) if channels is None else list(channels)
        background = np.asarray(self.info.background)[used]
        xmin, ymin, xmax, ymax = bounds
        height, width = shape
        if (xmax - xmin, ymax - ymin) == (width, height) and xmin == int(xmin) and ymin == int(ymin):
            result = np.empty((height, width, len(used)), self._array.dtype)
            result[:] = background
            inside = bounds.intersection(Bounds(0, 0, self.info.width, self.info.height))
            x0, y0, x1, y1 = (int(value) for value in inside)
            if x0 < x1 and y0 < y1:
                left, top = int(xmin), int(ymin)
                result[y0 - top : y1 - top, x0 - left : x1 - left] = self._array[y0:y1, x0:x1][..., used]
            return result
        y_edges = np.clip(np.linspace(ymin, ymax, height + 1), 0, self.info.height)
        x_edges = np.clip(np.linspace(xmin, xmax, width + 1), 0, self.info.width)
        y0, x0 = int(y_edges[0]), int(x_edges[0])
        part = self._array[y0 : int(np.ceil(y_edges[-1])), x0 : int(np.ceil(x_edges[-1]))][..., used] - background
        sums = _sums_between(_sums_between(part, y_edges - y0, 0), x_edges - x0, 1)
        values = sums / ((xmax - xmin) / width * (ymax - ymin) / height) + background
        if np.issubdtype(self._array.dtype, np.integer):
            values = np.rint(values)
        return np.asarray(values, self._array.dtype)

    def close(self) -> None:
        """Do nothing: there is no file."""


def _sums_between(values: npt.NDArray[Any], edges: npt.NDArray[Any], axis: int) -> npt.NDArray[np.float64]:
    """Integrals of the pixels (constant over their area) along `axis` between consecutive `edges` in px."""
    rows = np.moveaxis(values, axis, 0)
    total = np.concatenate([np.zeros((1, *rows.shape[1:])), np.cumsum(rows, axis=0, dtype=np.float64)])
    whole = np.minimum(edges.astype(int), len(rows))
    share = (edges - whole).reshape(-1, *(1,) * (rows.ndim - 1))
    at_edges = total[whole] * (1 - share) + total[np.minimum(whole + 1, len(rows))] * share
    return np.moveaxis(np.diff(at_edges, axis=0), 0, axis)


def _rendering(array: npt.NDArray[Any]) -> Rendering:
    channels = (0, 1, 2) if array.shape[2] >= 3 else (0,)
    if array.dtype == np.uint8:
        return Rendering(channels)
    limits = tuple((float(array[..., c].min()), float(array[..., c].max())) for c in channels)
    return Rendering(channels, limits)
