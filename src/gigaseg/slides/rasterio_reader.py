"""Georeferenced rasters through rasterio (GDAL): any number of bands, any real dtype."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from gigaseg.errors import SlideError
from gigaseg.slides.ground import ground_pixel_size
from gigaseg.slides.source import RGB_NAMES, Facts, Source, levels_from_sizes

_NAN_VALUE = -1e30
"""Stands for NaN as the value of pixels without data, since JSON has no NaN."""


def open_source(path: str, auto: bool) -> Source:
    """Open with rasterio; with `auto` only georeferenced files."""
    with rasterio.Env():  # GDAL's messages go to the log, not to stderr
        return _open_source(path, auto)


def _open_source(path: str, auto: bool) -> Source:
    dataset = _open(path)
    try:
        georeferenced = dataset.crs is not None or not dataset.transform.is_identity or bool(dataset.gcps[0])
        if auto and not georeferenced:
            raise SlideError("not georeferenced")
        _check_bands(dataset)
        overviews = [_open(path, OVERVIEW_LEVEL=index) for index in range(len(dataset.overviews(1)))]
        return RasterSource([dataset, *overviews], georeferenced)
    except BaseException:
        dataset.close()
        raise


def _open(path: str, **options: Any) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # open_source decides what that means
        return rasterio.open(path, **options)


def _check_bands(dataset: rasterio.DatasetReader) -> None:
    if dataset.count == 0:
        raise SlideError("it has no bands (a container of several rasters? name one of them)")
    if dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS") == "1":
        raise SlideError("it has 1 bit a sample, accepted: 8, 16, 32 or 64 bits (gdal_translate -ot Byte)")
    if ColorInterp.palette in dataset.colorinterp:
        raise SlideError("photometric is PALETTE, accepted: grey, RGB or bands of numbers (gdal_translate -expand rgb)")
    if len(set(dataset.dtypes)) > 1 or np.dtype(dataset.dtypes[0]).kind not in "iuf":
        raise SlideError(f"bands are {', '.join(sorted(set(dataset.dtypes)))}, accepted: one integer or real dtype")


class RasterSource(Source):
    """A raster open in rasterio, one dataset a level; the alpha band is a mask, no channel.

    Pixels without data (nodata value, NaN, mask or alpha 0) have `facts.nodata` in every channel.
    """

    def __init__(self, datasets: list[rasterio.DatasetReader], georeferenced: bool) -> None:
        self._datasets = datasets
        dataset = datasets[0]
        flags = {flag for band in dataset.mask_flag_enums for flag in band}
        self._masked = MaskFlags.per_dataset in flags or MaskFlags.alpha in flags
        self._bands = [i for i, color in zip(dataset.indexes, dataset.colorinterp) if color != ColorInterp.alpha]
        if not self._bands:
            raise SlideError("its only band is an alpha mask")
        dtype = np.dtype(dataset.dtypes[0])
        colors = [dataset.colorinterp[i - 1] for i in self._bands]
        rgb = None
        if all(color in colors for color in (ColorInterp.red, ColorInterp.green, ColorInterp.blue)):
            rgb = (
                colors.index(ColorInterp.red),
                colors.index(ColorInterp.green),
                colors.index(ColorInterp.blue),
            )
        nodata = _usable_nodata(dataset.nodata, dtype)
        if nodata is None and dtype.kind == "f":
            nodata = _NAN_VALUE
        elif nodata is None and self._masked:
            nodata = 0.0
        located = dataset.crs is not None and not dataset.transform.is_identity
        transform = tuple(dataset.transform)[:6]
        crs = dataset.crs.to_wkt(version="WKT2_2019") if dataset.crs is not None else None
        note = "it has a transform but no CRS, so the unit of its coordinates is unknown"
        if dataset.transform.is_identity:
            note = (
                "it has ground control points but no transform (gdalwarp makes one)"
                if dataset.gcps[0]
                else "no transform"
            )
        self.facts = Facts(
            vendor=dataset.driver,
            levels=levels_from_sizes([(level.width, level.height) for level in datasets]),
            channels=_channel_names(dataset, self._bands, rgb),
            dtype=dtype.name,
            rgb=rgb,
            pixel_size=ground_pixel_size(crs, transform, dataset.width, dataset.height) if located and crs else None,
            unit="m",
            pixel_size_note=note,
            georeferenced=georeferenced,
            crs=crs,
            transform=None if dataset.transform.is_identity else transform,
            nodata=nodata,
        )
        self.background = (0.0 if nodata is None else nodata,) * len(self._bands)

    def read_level(
        self, level: int, x: int, y: int, width: int, height: int, channels: Sequence[int]
    ) -> npt.NDArray[Any]:
        """See `Source`."""
        with rasterio.Env():
            return self._read(self._datasets[level], x, y, width, height, channels)

    def _read(
        self,
        dataset: rasterio.DatasetReader,
        x: int,
        y: int,
        width: int,
        height: int,
        channels: Sequence[int],
    ) -> npt.NDArray[Any]:
        window = Window(x, y, width, height)
        planes = dataset.read([self._bands[channel] for channel in channels], window=window)
        array = np.ascontiguousarray(np.moveaxis(planes, 0, -1))
        nodata = self.facts.nodata
        if nodata is None:
            return array
        if array.dtype.kind == "f":
            array[np.isnan(array)] = nodata
        if self._masked:
            array[dataset.dataset_mask(window=window) == 0] = nodata
        return array

    def close(self) -> None:
        """Release the file."""
        for dataset in self._datasets:
            dataset.close()


def _usable_nodata(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """The nodata value as pixels can have it: NaN as a number, values outside the dtype as none."""
    if nodata is None:
        return None
    if math.isnan(nodata) or math.isinf(nodata):
        return _NAN_VALUE if dtype.kind == "f" else None
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return float(nodata) if limits.min <= nodata <= limits.max and nodata == int(nodata) else None
    return float(dtype.type(nodata))


def _channel_names(
    dataset: rasterio.DatasetReader, bands: Sequence[int], rgb: tuple[int, int, int] | None
) -> tuple[str, ...]:
    names = [dataset.descriptions[band - 1] or f"band {band}" for band in bands]
    for channel, name in zip(rgb or (), RGB_NAMES):
        names[channel] = dataset.descriptions[bands[channel] - 1] or name
    return tuple(names)
