"""What every slide offers, whatever file it lies in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gigaseg.errors import FormatError
from gigaseg.files import read_json, write_json
from gigaseg.geometry import Bounds, Shape2d

SLIDE_FORMAT = "gigaseg/slide/1"

BRIGHTFIELD, FLUORESCENCE, RASTER = "brightfield", "fluorescence", "raster"
"""Kinds of slide: they decide the foreground rule and the measurements, nothing else."""


class Level(NamedTuple):
    """One level of the pyramid: size in its own pixels, and level-0 pixels per pixel along x and y."""

    width: int
    height: int
    downsample_x: float
    downsample_y: float


@dataclass(frozen=True)
class Rendering:
    """How native channels become RGB uint8 for models and pictures; fixed per slide, so that tiles agree.

    Attributes
    ----------
    channels : indices of the native channels that are used, in order.
    limits : (low, high) of each used channel: native values mapped linearly to 0..255; None: values are taken as
        they are (uint8).
    colors : RGB colour in 0..1 of each used channel; the coloured channels are summed and clipped.
        None: the used channels are red, green, blue themselves (three of them), or grey (one).
    """

    channels: tuple[int, ...]
    limits: tuple[tuple[float, float], ...] | None = None
    colors: tuple[tuple[float, float, float], ...] | None = None

    def rgb(self, array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Render `array`, (y, x, native channels) in native dtype, as (y, x, 3) uint8."""
        # indexing with a list copies, and into another memory order
        in_order = self.channels == tuple(range(array.shape[-1]))
        planes = array if in_order else array[..., list(self.channels)]
        if self.limits is None and self.colors is None and planes.shape[-1] == 3:
            return np.ascontiguousarray(planes, dtype=np.uint8)
        values = planes.astype(np.float32)
        if self.limits is not None:
            low, high = np.asarray(self.limits, dtype=np.float32).T
            values = (values - low) * (255 / np.maximum(high - low, np.finfo(np.float32).tiny))
        if self.colors is not None:
            values = values @ np.asarray(self.colors, dtype=np.float32)
        values = np.nan_to_num(np.clip(values + np.float32(0.5), 0, 255), nan=0)
        if values.shape[-1] == 1:
            values = np.broadcast_to(values, (*values.shape[:2], 3))
        return np.ascontiguousarray(values, dtype=np.uint8)


@dataclass(frozen=True)
class SlideInfo:
    """All that later steps need to know of a slide; slide.json on disk.

    Attributes
    ----------
    slide, path : its name in the sheet and its file.
    kind : "brightfield", "fluorescence" or "raster".
    reader, vendor : the reader that opened it; vendor or format as that reader reports it.
    width, height : size of level 0, px.
    levels : the pyramid, finest first.
    channels : names of the native channels.
    dtype : native dtype as numpy names it.
    background : native value of each channel outside the slide.
    rendering : how native channels become RGB.
    pixel_size : size of a level-0 pixel (x, y) in `unit`: true size on the specimen or on the ground.
    pixel_size_source : "sheet", "metadata" or "objective".
    unit : "um", "m" or "px".
    crs : WKT of the coordinate reference system, or None.
    transform : affine (a, b, c, d, e, f) with X = a x + b y + c, Y = d x + e y + f from level-0 px to the CRS, or None.
    nodata : native value of pixels without data, or None.
    bounds : x, y, width and height, level-0 px, of the scanned area where the file tells it (MIRAX); else None. QuPath
        shows this area alone, so the origin of its coordinates is the area's corner.
    objective_power : of the scanner, or None.
    fingerprint : identifies the file's state (size and modification time).
    """

    slide: str
    path: str
    kind: str
    reader: str
    vendor: str
    width: int
    height: int
    levels: tuple[Level, ...]
    channels: tuple[str, ...]
    dtype: str
    background: tuple[float, ...]
    rendering: Rendering
    pixel_size: tuple[float, float]
    pixel_size_source: str
    unit: str
    crs: str | None
    transform: tuple[float, float, float, float, float, float] | None
    nodata: float | None
    bounds: tuple[int, int, int, int] | None
    objective_power: float | None
    fingerprint: str

    def write(self, path: str | Path, digest: str = "") -> None:
        """Write slide.json."""
        write_json(path, {"format": SLIDE_FORMAT, "digest": digest, **asdict(self)})

    @classmethod
    def read(cls, path: str | Path) -> SlideInfo:
        """Read slide.json; raises FormatError, or UpstreamFailure for a failure record."""
        content = read_json(path, SLIDE_FORMAT)
        try:
            return cls.from_dict(content)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path}: field {error} is missing or wrong; run inspect again") from error

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SlideInfo:
        """Build from the JSON object (lists become tuples)."""
        values = {field.name: _tuples(content[field.name]) for field in fields(cls)}
        if values["kind"] not in (BRIGHTFIELD, FLUORESCENCE, RASTER):
            raise ValueError(f"kind {values['kind']!r}")
        if not all(isinstance(values[name], int) for name in ("width", "height")):
            raise TypeError("width or height")
        x, y = values["pixel_size"]
        if not (x > 0 and y > 0):
            raise ValueError("pixel_size")
        if np.dtype(values["dtype"]).kind not in "iuf":
            raise ValueError(f"dtype {values['dtype']!r}")
        values["levels"] = tuple(Level(*level) for level in values["levels"])
        values["rendering"] = Rendering(**{k: _tuples(v) for k, v in content["rendering"].items()})
        return cls(**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


class Slide(Protocol):
    """An open slide."""

    info: SlideInfo

    def read(self, bounds: Bounds, shape: Shape2d, channels: Sequence[int] | None = None) -> npt.NDArray[Any]:
        """Read a rectangle of the slide at any resolution.

        Parameters
        ----------
        bounds : level-0 px; may lie partly or wholly outside the slide, and may be fractional.
        shape : (height, width) of the result.
        channels : indices of the native channels wanted; None: all.

        Returns
        -------
        (height, width, channel) array in the native dtype, anti-aliased when it shrinks; pixels outside the slide
        have `info.background`.

        Raises
        ------
        SlideError : the file cannot be decoded there.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...
