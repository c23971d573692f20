"""TIFF through tifffile: OME-TIFF, 16-bit, many channels, BigTIFF, with or without tiles and pyramid."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from gigaseg.errors import SlideError
from gigaseg.slides.ome import OmeImage, parse_ome
from gigaseg.slides.pixelsize import plausible_scan
from gigaseg.slides.source import RGB_NAMES, Facts, Source, check_whole, dtype_limits, levels_from_sizes
from gigaseg.slides.tiff_pages import Segments, check_chain, check_samples

_log = logging.getLogger(__name__)

_UM_PER_UNIT = {2: 25400.0, 3: 10000.0}
"""µm in the absolute resolution units of TIFF: inch and centimetre."""

_ALPHA = (1, 2)
"""Extra samples that mean transparency."""

_CHANNEL_AXES = "CQI"
"""Axes of a series that count as channels: channel, and pages in an order the file does not explain."""


def open_source(path: str, auto: bool) -> Source:
    """Open with tifffile: the largest series of the file."""
    tif = tifffile.TiffFile(path)
    try:
        return TiffSource(tif, Path(path).stat().st_size)
    except BaseException:
        tif.close()
        raise


class TiffSource(Source):
    """A series of a TIFF with its levels; native channels are its C axis times its samples, without alpha."""

    def __init__(self, tif: tifffile.TiffFile, file_size: int) -> None:
        check_chain(tif)
        self._tif = tif
        self._file_size = file_size
        index = max(range(len(tif.series)), key=lambda i: _area(tif.series[i]))
        self._levels = tif.series[index].levels
        series = self._levels[0]
        page = series.keyframe
        check_samples(page)
        unknown = set(series.axes) - set("YXSZT" + _CHANNEL_AXES)
        if unknown or sum(axis in series.axes for axis in _CHANNEL_AXES) > 1:
            raise SlideError(f"its axes are {series.axes}, accepted: Y, X, S, Z, T and one of C, Q, I")
        self._axis = dict(zip(series.axes, series.shape))
        samples = self._axis.get("S", 1)
        self._alpha = int(bool(page.extrasamples) and int(page.extrasamples[-1]) in _ALPHA and samples > 1)
        self._samples = samples - self._alpha
        self._channel_axis = next((axis for axis in _CHANNEL_AXES if axis in self._axis), "")
        planes = self._axis.get(self._channel_axis, 1)
        color = self._samples == 3 and int(page.photometric) in (2, 6)
        for level in self._levels:
            if not level.keyframe.is_tiled:
                check_whole(level.keyframe.imagewidth, level.keyframe.imagelength)
        for axis in "ZT":
            if self._axis.get(axis, 1) > 1:
                _log.warning(
                    "%s: of %d planes along %s only the middle one is read",
                    tif.filename,
                    self._axis[axis],
                    axis,
                )
        ome = parse_ome(tif.ome_metadata, index) if tif.is_ome else OmeImage()
        pixel_size, note = _pixel_size(tif, page, ome)
        dtype = series.dtype.newbyteorder("=").name
        self.facts = Facts(
            vendor="ome-tiff" if tif.is_ome else "tiff",
            levels=levels_from_sizes(
                [(level.keyframe.imagewidth, level.keyframe.imagelength) for level in self._levels]
            ),
            channels=_channel_names(planes, self._samples, color, ome.names),
            dtype=dtype,
            rgb=(0, 1, 2) if color and planes == 1 else None,
            colors=ome.colors if self._samples == 1 and len(ome.colors or ()) == planes else None,
            pixel_size=pixel_size,
            pixel_size_note=note,
            objective_power=ome.objective_power,
            fluorescence=ome.fluorescence if not color else None,
        )
        white = dtype_limits(dtype)[1] if color else 0.0
        self.background = (white,) * len(self.facts.channels)
        self._arrays: dict[int, Any] = {}
        self._whole: dict[tuple[int, int], npt.NDArray[Any]] = {}
        self._segments: dict[tuple[int, int], Segments] = {}

    def read_level(
        self, level: int, x: int, y: int, width: int, height: int, channels: Sequence[int]
    ) -> npt.NDArray[Any]:
        """See `Source`; a level without tiles is decoded once and kept."""
        result = np.empty((height, width, len(channels)), dtype=self.facts.dtype)
        for plane in sorted({channel // self._samples for channel in channels}):
            samples = self._plane(level, plane, x, y, width, height)
            for position, channel in enumerate(channels):
                if channel // self._samples == plane:
                    result[..., position] = samples[..., channel % self._samples]
                    if self._alpha:
                        result[..., position][samples[..., -1] == 0] = self.background[channel]
        return result

    def close(self) -> None:
        """Release the file."""
        self._arrays.clear()
        self._whole.clear()
        self._tif.close()

    def _plane(self, level: int, plane: int, x: int, y: int, width: int, height: int) -> npt.NDArray[Any]:
        """(height, width, sample) of one plane."""
        if self._levels[level].keyframe.is_tiled:
            return self._decode(level, plane, x, y, width, height)
        if (level, plane) not in self._whole:
            size = self.facts.levels[level]
            self._whole[level, plane] = self._decode(level, plane, 0, 0, size.width, size.height)
        return self._whole[level, plane][y : y + height, x : x + width]

    def _decode(self, level: int, plane: int, x: int, y: int, width: int, height: int) -> npt.NDArray[Any]:
        series = self._levels[level]
        self._check_bytes(level, plane, x, y, width, height)
        if level not in self._arrays:
            store = self._levels[0].aszarr(level=level, fillvalue=self.background[0])
            self._arrays[level] = zarr.open_array(store, mode="r")
        where: list[Any] = []
        for axis, size in zip(series.axes, series.shape):
            if axis in "YX":
                where.append(slice(y, y + height) if axis == "Y" else slice(x, x + width))
            elif axis == "S":
                where.append(slice(None))
            else:
                where.append(plane if axis == self._channel_axis else size // 2)
        array = np.asarray(self._arrays[level][tuple(where)])
        left = [axis for axis in series.axes if axis in "YXS"]
        if "S" not in left:
            return array[..., np.newaxis] if left == ["Y", "X"] else array.T[..., np.newaxis]
        return array.transpose([left.index(axis) for axis in "YXS"])

    def _check_bytes(self, level: int, plane: int, x: int, y: int, width: int, height: int) -> None:
        series = self._levels[level]
        if series.dataoffset is not None and len(series.pages) == 1:
            if series.dataoffset + series.nbytes > self._file_size:
                raise SlideError(f"the file ends after {self._file_size} bytes, before its pixels do")
            return
        outer = [(axis, size) for axis, size in zip(series.axes, series.shape) if axis not in "YXS"]
        if len(series.pages) != math.prod(size for _, size in outer):
            return
        number = 0
        for axis, size in outer:
            number = number * size + (plane if axis == self._channel_axis else size // 2)
        if (level, number) not in self._segments:
            page = series.pages[number]
            if page is None:  # a plane that the OME metadata names and no page holds
                return
            self._segments[level, number] = Segments(page.aspage(), self._file_size)
        self._segments[level, number].check(x, y, width, height)


def _area(series: Any) -> int:
    return int(series.keyframe.imagewidth) * int(series.keyframe.imagelength)


def _channel_names(planes: int, samples: int, color: bool, names: Sequence[str]) -> tuple[str, ...]:
    named = [names[i] if i < len(names) and names[i] else f"channel {i + 1}" for i in range(planes)]
    if color and planes == 1:
        return RGB_NAMES
    if samples == 1:
        # names may repeat in a file; a number keeps them apart
        return tuple(f"{name} {i + 1}" if named.count(name) > 1 else name for i, name in enumerate(named))
    parts = RGB_NAMES if color else [f"sample {i + 1}" for i in range(samples)]
    return tuple(f"{name} {part}" for name in named for part in parts)


def _pixel_size(tif: Any, page: Any, ome: OmeImage) -> tuple[tuple[float, float] | None, str]:
    """Pixel size in µm from OME or ImageJ metadata, or from a scanner's resolution tags."""
    if tif.is_ome:
        return ome.pixel_size, "its OME metadata has no PhysicalSizeX and PhysicalSizeY"
    resolution = [page.tags.valueof(tag) for tag in ("XResolution", "YResolution")]
    if any(value is None or not value[0] or not value[1] for value in resolution):
        return None, "it has no resolution tags"
    steps = [value[1] / value[0] for value in resolution]  # length of a pixel
    if tif.is_imagej:
        unit = str((tif.imagej_metadata or {}).get("unit", ""))
        if unit in ("um", "micron", "microns", "µm", "μm", "\\u00B5m"):
            return (steps[0], steps[1]), ""
    unit_um = _UM_PER_UNIT.get(int(page.tags.valueof("ResolutionUnit", 2)))
    if unit_um is None:
        return None, "its resolution tags have no absolute unit"
    size = steps[0] * unit_um, steps[1] * unit_um
    if not plausible_scan(*size):
        return None, f"its resolution tags ({size[0]:g} µm) are a screen's, a printer's or a default"
    return size, ""
