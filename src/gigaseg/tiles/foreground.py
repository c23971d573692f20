"""Foreground: where a slide is worth segmenting, as a coarse mask found from one overview.

Every method reads the slide once at about 8 µm per mask pixel (a raster: about 512 px on its long side, without a
pixel size: about 1024 px), strip by strip. Doubtful places count as foreground: it costs time, a lost rim nuclei.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg import __version__
from gigaseg.errors import ConfigError, FormatError, is_machine_fault, one_line, unknown
from gigaseg.files import atomic, raise_if_failed
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.base import BRIGHTFIELD, FLUORESCENCE, RASTER, Slide, SlideInfo

FOREGROUND_FORMAT = "gigaseg/foreground/1"

MASK_PIXEL_UM = 8.0
"""Side of a mask pixel, µm: resolves glands and strands of tissue, averages nuclei away; 3,125² for a 100,000² slide
at 0.25 µm."""

RASTER_SIDE_PX, UNITLESS_SIDE_PX = 512, 1024
"""Long side of the mask, px, for rasters and for slides without a pixel size."""

MIN_TISSUE_UM2 = 0.05e6
"""A piece of tissue, or a hole that is kept, has at least this area, µm²: a disc of 0.25 mm. Dust is smaller."""

MIN_PIECE_SHARE = 0.005
"""...but it need not be larger than this share of the slide, so that a small crop does not lose all it shows."""

MARGIN_PX = 3
"""How far a tissue mask is widened, mask px: 24 µm, two nuclei."""

TISSUE_OD = (0.06, 0.15)
"""Bounds of the threshold on optical density. Below the lower one lie noise and uneven glass, and all of an empty
slide; above the upper one no pale stroma would be found on a slide full of dark tissue."""

_STRIP_BYTES = 64 * 2**20
"""Native pixels read at once."""

_Mask = npt.NDArray[np.bool_]
_Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Foreground:
    """A coarse mask over a whole slide.

    Attributes
    ----------
    mask : (h, w) bool.
    scale : level-0 px per mask pixel, (x, y); the mask covers the slide exactly.
    method : the method that found it, never "auto".
    """

    mask: _Mask
    scale: tuple[float, float]
    method: str

    def fraction(self, bounds: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Share of each rectangle that is foreground.

        Parameters
        ----------
        bounds : (n, 4) xmin, ymin, xmax, ymax in level-0 px, fractional; may reach beyond the slide, which is no
            foreground but counts as area.

        Returns
        -------
        (n,) float32 in [0, 1], exact for the mask; 0 for an empty rectangle.
        """
        rectangles = np.asarray(bounds, dtype=np.float64).reshape(-1, 4) / np.tile(self.scale, 2)
        total = np.zeros(np.add(self.mask.shape, 1))
        total[1:, 1:] = self.mask.cumsum(0, dtype=np.float64).cumsum(1)
        height, width = self.mask.shape
        xmin, xmax = (rectangles[:, side].clip(0, width) for side in (0, 2))
        ymin, ymax = (rectangles[:, side].clip(0, height) for side in (1, 3))

        def below(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            # the integral of a mask that is constant over each pixel is bilinear between its corners
            col, row = np.minimum(x.astype(int), width - 1), np.minimum(y.astype(int), height - 1)
            u, v = x - col, y - row
            upper = total[row, col] * (1 - u) + total[row, col + 1] * u
            lower = total[row + 1, col] * (1 - u) + total[row + 1, col + 1] * u
            return np.asarray(upper * (1 - v) + lower * v)

        covered = below(xmax, ymax) - below(xmin, ymax) - below(xmax, ymin) + below(xmin, ymin)
        area = (rectangles[:, 2] - rectangles[:, 0]) * (rectangles[:, 3] - rectangles[:, 1])
        share = np.divide(covered, area, out=np.zeros_like(covered), where=area > 0)
        return np.asarray(share.clip(0, 1), np.float32)

    def area_px(self) -> float:
        """Area of the foreground, level-0 px²."""
        return float(np.count_nonzero(self.mask) * self.scale[0] * self.scale[1])

    def write(self, path: str | Path, digest: str = "") -> None:
        """Write foreground.tif: uint8, 255 where foreground, with the other attributes as JSON in its description."""
        import tifffile

        metadata = {
            "format": FOREGROUND_FORMAT,
            "version": __version__,
            "digest": digest,
            "method": self.method,
            "scale": list(self.scale),
        }
        with atomic(path) as temporary:
            tifffile.imwrite(
                temporary,
                self.mask.astype(np.uint8) * 255,
                photometric="minisblack",
                compression="zlib",
                description=json.dumps(metadata),
                metadata=None,
            )

    @classmethod
    def read(cls, path: str | Path) -> Foreground:
        """Read foreground.tif; raises FormatError, or UpstreamFailure for a failure record."""
        import tifffile

        raise_if_failed(path)
        try:
            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages.first
                description, mask = page.description, page.asarray()
        except Exception as error:  # tifffile and its decoders raise many kinds on damaged files
            if is_machine_fault(error):
                raise
            raise FormatError(
                f"{path}: cannot be read as TIFF ({one_line(error)}); expected {FOREGROUND_FORMAT}"
            ) from error
        try:
            content = json.loads(description)
            found = content["format"]
        except (ValueError, KeyError, TypeError):
            found = None
        if found != FOREGROUND_FORMAT:
            raise FormatError(f"{path}: format is {found!r}, expected '{FOREGROUND_FORMAT}'; run the grid step again")
        return cls(mask > 0, (content["scale"][0], content["scale"][1]), content["method"])


def find_foreground(slide: Slide, method: str = "auto") -> Foreground:
    """Find the foreground of a slide.

    Parameters
    ----------
    slide : the open slide.
    method : "tissue": stained tissue on bright glass, without pen marks and dust; "fluorescence": brighter than the
        background in any rendered channel; "valid": wherever a raster has data (nodata, NaN, channel "alpha");
        "all": everything; "auto": one of the first three by the slide's kind.

    Raises
    ------
    ConfigError
        Unknown method.
    SlideError
        The slide cannot be read.
    """
    if method not in METHODS:
        raise ConfigError(f"foreground: {unknown('method', method, METHODS)}")
    info = slide.info
    if method == "auto":
        method = {BRIGHTFIELD: "tissue", FLUORESCENCE: "fluorescence", RASTER: "valid"}[info.kind]
    width, height = _mask_size(info)
    scale = info.width / width, info.height / height
    if method == "all" or (method == "valid" and info.nodata is None and not _may_lack_data(info)):
        return Foreground(np.ones((height, width), bool), scale, method)
    smallest = max(1, round(min(_area_px(info, scale, MIN_TISSUE_UM2), MIN_PIECE_SHARE * width * height)))
    if method == "valid":
        mask = _overview(slide, (height, width), lambda part: _valid(part, info)) > 0
    elif method == "tissue":
        mask = _tissue(_overview(slide, (height, width), info.rendering.rgb), smallest)
    else:
        used = list(info.rendering.channels)
        native = _overview(slide, (height, width), lambda part: part[..., used].astype(np.float32))
        mask = _bright(native, smallest // 20 + 1)
    return Foreground(mask, scale, method)


METHODS = ("auto", "tissue", "fluorescence", "valid", "all")
"""Methods of `find_foreground`."""


def _mask_size(info: SlideInfo) -> tuple[int, int]:
    if info.unit == "um":
        shrink = [max(1.0, MASK_PIXEL_UM / size) for size in info.pixel_size]
    else:
        side = RASTER_SIDE_PX if info.kind == RASTER else UNITLESS_SIDE_PX
        shrink = [max(1.0, max(info.width, info.height) / side)] * 2
    return max(1, round(info.width / shrink[0])), max(1, round(info.height / shrink[1]))


def _area_px(info: SlideInfo, scale: tuple[float, float], area_um2: float) -> float:
    """`area_um2` in mask px²; without a pixel size a mask pixel is taken as `MASK_PIXEL_UM`."""
    if info.unit != "um":
        return area_um2 / MASK_PIXEL_UM**2
    return area_um2 / (info.pixel_size[0] * scale[0] * info.pixel_size[1] * scale[1])


def _overview(
    slide: Slide, shape: tuple[int, int], render: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """The whole slide rendered at `shape`, read in strips whose native pixels fit in memory."""
    info = slide.info
    height, width = shape
    scale_y = info.height / height
    # readers take the coarsest level that is still fine enough
    enough = [level for level in info.levels if level.downsample_y <= scale_y * 1.01]
    level = max(enough or info.levels[:1], key=lambda item: item.downsample_y)
    row_bytes = level.width * scale_y / level.downsample_y * len(info.channels) * np.dtype(info.dtype).itemsize
    rows = int(np.clip(_STRIP_BYTES / row_bytes, 1, height))
    parts = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        bounds = Bounds(0, top * scale_y, info.width, bottom * scale_y)
        parts.append(render(slide.read(bounds, Shape2d(bottom - top, width))))
    return np.concatenate(parts)


def _may_lack_data(info: SlideInfo) -> bool:
    return "alpha" in info.channels or np.issubdtype(np.dtype(info.dtype), np.floating)


def _valid(native: npt.NDArray[Any], info: SlideInfo) -> _Mask:
    """Where any channel has data; a mask pixel that averages data and nodata counts."""
    values = [index for index, name in enumerate(info.channels) if name != "alpha"]
    planes = native[..., values]
    lacking = ~np.isfinite(planes)
    if info.nodata is not None:
        lacking |= planes == np.asarray(info.nodata).astype(native.dtype)
    mask = ~lacking.all(axis=-1)
    if "alpha" in info.channels:
        mask &= native[..., info.channels.index("alpha")] > 0
    return np.asarray(mask, bool)


def _tissue(rgb: npt.NDArray[np.uint8], smallest: int) -> _Mask:
    """Stained tissue: denser than glass, no ink, cleaned."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    light = np.percentile(rgb.reshape(-1, 3), 98, axis=0).clip(200, 255)
    density = -np.log((rgb.astype(np.float32) + 1) / (light.astype(np.float32) + 1)).clip(None, 0)
    density = ndimage.gaussian_filter(density, (0.7, 0.7, 0))
    # the channel that absorbs most sees every stain: green for H&E, blue for DAB, red for haematoxylin alone
    stain = density.max(axis=-1).clip(0, 1)
    low, high = TISSUE_OD
    threshold = low
    if stain.max() > low:
        threshold = float(np.clip(threshold_otsu(stain), low, high))  # type: ignore[no-untyped-call]
    mask = (stain > threshold) & ~_ink(density, smallest)
    mask = ndimage.binary_opening(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]  # fibres, coverslip edges
    mask = _large(mask, smallest)
    mask = ~_large(~mask, smallest)
    return np.asarray(ndimage.binary_dilation(mask, iterations=MARGIN_PX), bool)


def _ink(density: _Image, smallest: int) -> _Mask:
    """Pen marks, from optical densities (h, w, 3): hues that no stain has, and black.

    Ratios of optical densities do not change with the amount of a dye. Haematoxylin absorbs red and green alike,
    eosin and DAB mostly green and blue; blue ink absorbs much more red than green, green ink least green. Red ink
    differs from eosin and most blood by absorbing no red at all.
    """
    from scipy import ndimage

    red, green, blue = np.moveaxis(density, -1, 0)
    most, least = density.max(axis=-1), density.min(axis=-1)
    hue = (red > 1.25 * green) & (green > blue)
    hue |= (red > 1.12 * green) & (red > 2 * blue) & (red > 1)  # a thick line: the ratio saturates
    hue |= green < 0.8 * np.minimum(red, blue)
    hue |= (red < 0.13 * green) & (blue > 0.8 * green) & (green > 0.9)
    black = most - least < 0.25 * most
    core = (hue & (most > 0.35)) | (black & (least > 0.9))
    core = _large(ndimage.binary_opening(core), max(1, smallest // 4))
    if not core.any():
        return core
    # a mark's soft rim is paler, and JPEG blurs its hue
    near = ndimage.binary_dilation(core, iterations=6)
    rim = ndimage.binary_dilation(core, iterations=2)
    return np.asarray(rim | (near & (hue | black)), bool)


def _bright(native: _Image, smallest: int) -> _Mask:
    """Where any channel of (h, w, c) exceeds its background."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    mask = np.zeros(native.shape[:2], bool)
    for plane in np.moveaxis(native, -1, 0):
        smooth = ndimage.gaussian_filter(np.nan_to_num(plane), 0.7)
        background, bright = np.percentile(smooth, (5, 99.5))
        dim = smooth <= np.median(smooth)
        noise = 1.5 * float(np.median(np.abs(smooth - ndimage.median_filter(smooth, 5))[dim]))
        floor = background + max(5 * noise, 0.05 * abs(background), 1e-6 * abs(bright))
        if bright <= floor:
            continue
        # a tenth of the range keeps dim cells beside bright ones, which Otsu would drop
        otsu = float(threshold_otsu(smooth))  # type: ignore[no-untyped-call]
        mask |= smooth > max(floor, min(otsu, background + 0.1 * (bright - background)))
    mask = _large(mask, smallest)
    return np.asarray(ndimage.binary_dilation(ndimage.binary_fill_holes(mask), iterations=MARGIN_PX), bool)


def _large(mask: _Mask, smallest: int) -> _Mask:
    """The 8-connected pieces of at least `smallest` px."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False
    return np.asarray(keep[labels] if count > 1 else np.zeros_like(mask), bool)
