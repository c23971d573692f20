"""The overview picture of a slide: thumbnail, foreground, tile grid and instances, with legend and scale bar."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageColor, PngImagePlugin

from gigaseg import __version__
from gigaseg.errors import ConfigError
from gigaseg.export.palette import class_colors as colors_of
from gigaseg.files import atomic, read_metadata, read_parquet, same_slide
from gigaseg.instances.table import STITCHED_FORMAT, read_instances
from gigaseg.measure.cover import PixelAreas
from gigaseg.report import layers, legend
from gigaseg.report.layers import Picture, Rgb
from gigaseg.report.thumbnail import thumbnail
from gigaseg.slides.base import SlideInfo
from gigaseg.slides.ground import ground_of
from gigaseg.slides.registry import open_slide
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.grid import Grid

log = logging.getLogger(__name__)

OVERVIEW_FORMAT = "gigaseg/overview/1"
"""Stands in the PNG's text field "gigaseg", with the slide's name."""

DENSITY_BELOW_PX = 2.0
"""Median size of the instances in the picture below which their density is drawn: dots would only make a mush."""

OUTLINE_FROM_PX = 5.0
"""Median size from which they are outlined; between the two they are filled."""

_MIN_TILE_PX = 8
"""Tiles smaller than this in the picture are not drawn one by one, only what they cover together."""

_AREAS = {"um": ("mm²", 1e6), "m": ("km²", 1e6), "px": ("megapixel", 1e6)}
"""Area that densities refer to, and how many square units it holds."""


def overview(
    info: Path,
    grid: Path,
    foreground: Path,
    instances: Path,
    out: Path,
    *,
    long_side: int = 1600,
    instance_color: str = "#00c853",
    foreground_color: str = "#ff9100",
    grid_color: str = "#2962ff",
    class_colors: Mapping[str, str] | None = None,
) -> None:
    """Draw a slide with all that was found in it, as PNG.

    A million instances take seconds: where they would be too small to see, their density is drawn instead.

    Parameters
    ----------
    info, grid, foreground, instances : slide.json, grid.parquet, foreground.tif, instances.parquet of the slide.
    out : the picture.
    long_side : of the thumbnail, px.
    instance_color : as "#rrggbb", of the first class; further classes have the colours of the exports.
    foreground_color, grid_color : as "#rrggbb".
    class_colors : as "#rrggbb", of classes by name; they go before the others.

    Raises
    ------
    UpstreamFailure
        An input is a failure record.
    FormatError, SlideError
        An input or the slide cannot be read.
    ConfigError
        A colour is no colour.
    """
    names = {"instance_color": instance_color, "foreground_color": foreground_color, "grid_color": grid_color}
    colors = {name: _rgb(name, value) for name, value in names.items()}
    slide_info, tiles, mask = SlideInfo.read(info), Grid.read(grid), Foreground.read(foreground)
    same_slide(slide_info.slide, tiles.slide, grid)
    same_slide(slide_info.slide, read_metadata(instances, STITCHED_FORMAT)["slide"], instances)
    boxes, counts = _boxes(instances)
    chosen = class_colors or {}
    of_class = colors_of(list(counts), chosen)
    if next(iter(counts), None) not in (None, *chosen):
        of_class[0] = colors["instance_color"]
    slide = open_slide(slide_info)
    try:
        picture = thumbnail(slide, long_side)
    finally:
        slide.close()
    scale = (slide_info.width / picture.shape[1], slide_info.height / picture.shape[0])
    em = max(12, round(max(picture.shape[:2]) / 80))
    items = _draw_instances(picture, slide_info, scale, boxes, counts, instances, of_class, em)
    items.append(_draw_grid(picture, tiles, scale, colors["grid_color"], em))
    items.append(_draw_foreground(picture, mask, scale, colors["foreground_color"], em))
    step = slide_info.pixel_size[0] * scale[0]
    items.append(legend.bar(legend.scale_bar(step, slide_info.unit, picture.shape[1])))
    sheet = legend.compose(picture, slide_info.slide, _subtitle(slide_info, tiles, mask, len(boxes)), items, em)
    text = PngImagePlugin.PngInfo()
    about = {"format": OVERVIEW_FORMAT, "slide": slide_info.slide, "version": __version__}
    text.add_text("gigaseg", json.dumps(about))
    with atomic(out) as temporary:
        Image.fromarray(sheet).save(temporary, "PNG", pnginfo=text)
    log.info("slide '%s': drew %d instances on %s", slide_info.slide, len(boxes), out)


def _boxes(instances: Path) -> tuple[npt.NDArray[np.float64], dict[str, int]]:
    """(n, 4) bounds of the instances in level-0 px, and their number by class; the outlines are not decoded."""
    table, metadata = read_parquet(instances, STITCHED_FORMAT, ["bbox", "class"])
    counts = dict.fromkeys(metadata["classes"], 0)
    for entry in table["class"].cast(pa.string()).value_counts().to_pylist():
        counts[entry["values"]] = entry["counts"]
    sides = [table["bbox"].combine_chunks().field(side) for side in ("xmin", "ymin", "xmax", "ymax")]
    boxes = np.stack([np.asarray(side, np.float64) for side in sides], axis=1).reshape(-1, 4)
    return boxes, counts


def _draw_instances(
    picture: Picture,
    info: SlideInfo,
    scale: tuple[float, float],
    boxes: npt.NDArray[np.float64],
    counts: dict[str, int],
    instances: Path,
    colors: Sequence[Rgb],
    em: int,
) -> list[legend.Item]:
    size = (boxes[:, 2:] - boxes[:, :2]) / scale
    median = float(np.median(np.sqrt(size.prod(axis=1)))) if len(boxes) else 0.0
    if len(boxes) and median < DENSITY_BELOW_PX:
        return [_draw_density(picture, info, scale, (boxes[:, :2] + boxes[:, 2:]) / 2 / scale, em)]
    found, _ = read_instances(instances, stitched=True)
    rings = layers.rings(found.geometry, scale)
    items = []
    for index, ((name, count), color) in enumerate(zip(counts.items(), colors, strict=True)):
        mine = [rings[i] for i in np.flatnonzero(found.class_index == index)]
        layers.draw_instances(picture, mine, color, outlined=median >= OUTLINE_FROM_PX)
        items.append(legend.swatch(f"{name}: {count:,}", color, em))
    return items


def _draw_density(
    picture: Picture, info: SlideInfo, scale: tuple[float, float], centres: npt.NDArray[np.float64], em: int
) -> legend.Item:
    values = layers.density(centres[:, 0], centres[:, 1], picture.shape[:2])
    # the top is that of the dense parts, not of the densest spot
    top = float(np.percentile(values[values > values.max() / 100], 99))
    layers.draw_density(picture, values, top)
    area, units = _AREAS[info.unit]
    pixel = scale[0] * info.pixel_size[0] * scale[1] * info.pixel_size[1] / units
    return legend.color_bar(f"0 to {_three_digits(top / pixel)} or more instances per {area}", em)


def _draw_grid(picture: Picture, grid: Grid, scale: tuple[float, float], color: Rgb, em: int) -> legend.Item:
    tiling = grid.tiling
    height, width = picture.shape[:2]
    factor = np.array([tiling.scale[0] / scale[0], tiling.scale[1] / scale[1]])
    if tiling.stride * factor.min() >= _MIN_TILE_PX:
        # cores, which meet in one line; the tiles themselves overlap
        cores = [tiling.get(int(r), int(c)).core for r, c in zip(grid.row, grid.col, strict=True)]
        corners = [np.array([[b.xmin, b.ymin], [b.xmax, b.ymin], [b.xmax, b.ymax], [b.xmin, b.ymax]]) for b in cores]
        # through pixel centres, so that the lines are crisp
        lines = [np.clip(np.floor(xy * factor), 0, [width - 1, height - 1]) + 0.5 for xy in corners]
    else:
        step = tiling.stride * factor
        lines = layers.mask_outlines(grid.kept, (step[0], step[1]), (height, width))
    thickness = max(1, em // 16)
    layers.draw_lines(picture, lines, color, thickness, 0.6)
    total = tiling.rows * tiling.cols
    return legend.line(f"tiles: {len(grid.row):,} of {total:,} kept", color, em, thickness)


def _draw_foreground(
    picture: Picture, foreground: Foreground, scale: tuple[float, float], color: Rgb, em: int
) -> legend.Item:
    per_mask_px = (foreground.scale[0] / scale[0], foreground.scale[1] / scale[1])
    outlines = layers.mask_outlines(foreground.mask, per_mask_px, picture.shape[:2])
    thickness = max(2, em // 8)
    layers.draw_lines(picture, outlines, color, thickness, 0.9)
    return legend.line("foreground", color, em, thickness)


def _subtitle(info: SlideInfo, grid: Grid, foreground: Foreground, count: int) -> str:
    name, units = _AREAS[info.unit]
    area = PixelAreas(ground_of(info), info.width, info.height).of(foreground) / units
    parts = [f"{count:,} instances"]
    if area > 0:
        parts.append(f"{_three_digits(count / area)} per {name} of foreground ({_three_digits(area)} {name})")
    parts.append(f"{info.width:,} × {info.height:,} px")
    if info.unit != "px":
        parts.append(f"{info.pixel_size[0]:.3g} {'µm' if info.unit == 'um' else info.unit}/px")
    return " · ".join(parts)


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _rgb(name: str, value: str) -> Rgb:
    try:
        red, green, blue = ImageColor.getrgb(value)[:3]
    except ValueError:
        raise ConfigError(f"report.{name} is '{value}', accepted: a colour as #rrggbb") from None
    return red, green, blue
