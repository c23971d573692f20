"""What each layer of SAM's image encoder tells of an image: maps of the metrics of `gigaseg.sam.features`, and figures.

The figures count pixels: each has the value of its token. With a label image they say how well a layer tells objects
from what lies between them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from gigaseg import __version__
from gigaseg.errors import ConfigError, FormatError
from gigaseg.export.palette import class_color
from gigaseg.files import atomic
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.metrics.images import read_labels
from gigaseg.metrics.pixel import auc
from gigaseg.report import legend
from gigaseg.report.layers import Picture, density_colors
from gigaseg.sam.backend import DEFAULT_CHECKPOINT, Backend
from gigaseg.sam.features import choose_layers, global_map, layer_features, local_map
from gigaseg.slides.base import SlideInfo
from gigaseg.slides.inspect import inspect
from gigaseg.slides.registry import open_slide

FEATURES_FORMAT = "gigaseg/features/1"
"""Stands in the PNG's text field "gigaseg" and in the array "about" of the maps, with what was analysed."""

_PANEL_PX = 320
"""Long side of a panel of the sheet."""

_EM = 14
_OPACITY = 0.75
"""Of a map over the greyed image."""

_AT_ONCE = 256
"""Tokens that are compared with all others at once."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Truth:
    """Pixels of a label image by the token that holds their centre.

    Attributes
    ----------
    inside, outside, edge : (h, w) pixels in objects, in none, and at the rim of objects (with one of the 8 neighbours
        outside the object).
    tokens : (n, 2) row and column of the token with most pixels of each object, by ascending id.
    """

    inside: npt.NDArray[np.int64]
    outside: npt.NDArray[np.int64]
    edge: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]

    @classmethod
    def from_labels(cls, labels: npt.NDArray[Any], grid: tuple[int, int]) -> Truth:
        """Count the pixels of a label image (y, x) of the whole region in `grid` (rows, columns) tokens."""
        h, w = grid
        rows, columns = ((np.arange(n) + 0.5) * m // n for n, m in zip(labels.shape, grid))
        token = (rows[:, None] * w + columns).astype(np.int64)
        framed = np.pad(labels.astype(np.int64), 1, mode="edge")  # the border of the picture is no rim
        kernel = np.ones((3, 3), np.uint8)
        smallest, largest = (f(framed.astype(np.float64), kernel)[1:-1, 1:-1] for f in (cv2.erode, cv2.dilate))
        rim = (labels > 0) & (smallest != largest)
        inside, outside, edge = (
            np.bincount(token[mask], minlength=h * w).reshape(grid) for mask in (labels > 0, labels == 0, rim)
        )
        pairs, count = np.unique(np.stack([labels[labels > 0], token[labels > 0]]), axis=1, return_counts=True)
        order = np.lexsort((pairs[1], -count, pairs[0]))
        best = order[np.unique(pairs[0][order], return_index=True)[1]]
        return cls(inside, outside, edge, np.stack(np.divmod(pairs[1][best].astype(np.int64), w), axis=1))


def analyse_features(
    image: Path,
    out: Path,
    *,
    checkpoint: str | None = None,
    layers: Sequence[str] | None = None,
    points: Sequence[tuple[float, float]] = (),
    region: tuple[int, int, int, int] | None = None,
    size: int | None = None,
    labels: Path | None = None,
    device: str = "auto",
) -> str:
    """Analyse an image, or a region of a slide, as the encoder sees it.

    Writes into `out`: features.png (maps over the image, a row a layer), features.tsv (the figures) and features.npz:
    `local_LAYER` (h, w) and `global_LAYER` (points, h, w) float32, `points` (n, 2) x and y in level-0 px, `tokens`
    (n, 2) row and column, and `about`, JSON.

    Parameters
    ----------
    image : any slide, raster or plain picture.
    checkpoint : of a SAM; None for the one that ships.
    layers : names as `choose_layers` takes them.
    points : (x, y), level-0 px, whose tokens the others are compared with; none: the middle of the region, with labels
        the object nearest to it.
    region : (x, y, width, height), level-0 px; None: the whole image.
    size : long side that the encoder sees, px, a multiple of the patch; None: what the model was made for. Both
        sides are rounded to whole patches.
    labels : label image of the region or of the image.
    device : "auto", "cpu", "cuda" or "cuda:N".

    Returns
    -------
    The figures, tab-separated: a line a layer under a heading.

    Raises
    ------
    SlideError, FormatError, CheckpointError, DeviceError
        A file or the device cannot be used.
    ConfigError, SegmenterError
        An option has a value that is not accepted.
    """
    checkpoint = checkpoint or DEFAULT_CHECKPOINT
    info = inspect(image, slide=image.stem, pixel_size="px")
    bounds = _bounds(info, region)
    for x, y in points:
        _check_point(x, y, bounds)
    backend = Backend.open(checkpoint, device, size, precision="fp32")
    names = choose_layers(backend.config, layers)
    shape = _shape(bounds, size or backend.config.image_size, backend.config.patch)
    grid = (shape.height // backend.config.patch, shape.width // backend.config.patch)
    truth = None if labels is None else Truth.from_labels(_labels(labels, info, bounds), grid)
    slide = open_slide(info)
    try:
        picture = info.rendering.rgb(slide.read(bounds, shape))
    finally:
        slide.close()
    xy = np.asarray(points or [_default_point(truth, grid, bounds)], np.float64)
    tokens = token_at(xy, bounds, grid)
    maps: dict[str, Floats] = {}
    rows = []
    for name, features in layer_features(backend, picture, names).items():
        maps[f"local_{name}"] = local_map(features).cpu().numpy()
        maps[f"global_{name}"] = global_map(features, tokens).cpu().numpy()
        figures = _figures(maps[f"local_{name}"], maps[f"global_{name}"])
        if truth is not None:
            figures |= _separation(maps[f"local_{name}"], _similar(features, truth.tokens), truth)
        rows.append({"layer": name, "channels": str(features.shape[-1])} | {k: f"{v:.4g}" for k, v in figures.items()})
    table = "\n".join("\t".join(line) for line in (rows[0], *(row.values() for row in rows))) + "\n"
    about = {
        "format": FEATURES_FORMAT,
        "version": __version__,
        "image": str(image),
        "region": [int(v) for v in (bounds.xmin, bounds.ymin, bounds.width, bounds.height)],
        "checkpoint": checkpoint,
        "input": [shape.width, shape.height],
    }
    _write(out, table, maps, xy, tokens, json.dumps(about))
    title = f"{image.name} · {checkpoint}"
    sheet = draw_sheet(picture, maps, (xy - (bounds.xmin, bounds.ymin)) / (bounds.width, bounds.height), title)
    text = PngImagePlugin.PngInfo()
    text.add_text("gigaseg", json.dumps(about))
    with atomic(out / "features.png") as temporary:
        Image.fromarray(sheet).save(temporary, "PNG", pnginfo=text)
    return table


def token_at(xy: npt.NDArray[np.float64], bounds: Bounds, grid: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Row and column, (n, 2), of the tokens that hold points (n, 2) of a region, x and y in its frame."""
    share = (xy - (bounds.xmin, bounds.ymin)) / (bounds.width, bounds.height)
    return np.floor(share[:, ::-1] * grid).astype(np.int64)


def draw_sheet(picture: Picture, maps: Mapping[str, Floats], points: npt.NDArray[np.float64], title: str) -> Picture:
    """The image with its points, and below it a row a layer: the local map, then the global one of each point.

    Parameters
    ----------
    picture : (height, width, 3) uint8 RGB, what the encoder saw.
    maps : as in features.npz; each has colours of its own, from its least to its largest value.
    points : (n, 2), x and y as shares of the picture.
    title : above all.
    """
    ratio = _PANEL_PX / max(picture.shape[:2])
    width, height = (max(1, round(side * ratio)) for side in picture.shape[1::-1])
    way = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    large: Picture = np.asarray(cv2.resize(picture, (width, height), interpolation=way), np.uint8)
    grey: Picture = np.repeat(np.asarray(cv2.cvtColor(large, cv2.COLOR_RGB2GRAY), np.uint8)[..., None], 3, axis=2)
    names = [key.removeprefix("local_") for key in maps if key.startswith("local_")]
    columns = 1 + len(points)
    # a caption is wider than a narrow picture
    cell_width, cell_height = max(width, 17 * _EM) + _EM, height + 2 * _EM
    sheet = np.full((cell_height * (1 + len(names)), cell_width * columns, 3), 255, np.uint8)

    def put(row: int, column: int, panel: Picture, caption: str, marked: Sequence[int]) -> None:
        for index in marked:
            _mark(panel, points[index], index)
        x, y = column * cell_width, row * cell_height
        sheet[y : y + height, x : x + width] = panel
        legend.draw_text(sheet, caption, x, y + height + _EM + _EM // 4, _EM)

    put(0, 0, large.copy(), "image", range(len(points)))
    for row, name in enumerate(names, start=1):
        layer = f"block {name}" if name.isdigit() else name
        local = maps[f"local_{name}"]
        put(row, 0, _overlay(grey, local), f"{layer}: local, {_range(local)}", ())
        for index, similar in enumerate(maps[f"global_{name}"]):
            caption = f"{layer}: global {index + 1}, {_range(similar)}"
            put(row, 1 + index, _overlay(grey, similar), caption, (index,))
    items = [legend.color_bar("least to largest value of each map", _EM)]
    subtitle = "local: variance over channels · global: cosine similarity to the marked token"
    return legend.compose(sheet, title, subtitle, items, _EM)


def _overlay(grey: Picture, values: Floats) -> Picture:
    low, high = float(values.min()), float(values.max())
    share = (values - low) / ((high - low) or 1)
    colors = cv2.resize(density_colors(share), grey.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.addWeighted(grey, 1 - _OPACITY, colors, _OPACITY, 0), np.uint8)


def _range(values: Floats) -> str:
    return f"{values.min():.3g} … {values.max():.3g}"


def _mark(panel: Picture, share: npt.NDArray[np.float64], index: int) -> None:
    height, width = panel.shape[:2]
    at = (min(width - 1, int(share[0] * width)), min(height - 1, int(share[1] * height)))
    cv2.circle(panel, at, 6, (255, 255, 255), 4, cv2.LINE_AA)
    cv2.circle(panel, at, 6, class_color(index), 2, cv2.LINE_AA)


def _figures(local: Floats, similar: Floats) -> dict[str, float]:
    mean = float(local.mean())
    return {
        "local_mean": mean,
        "local_cv": float(local.std()) / mean if mean else 0.0,
        "global_mean": float(similar.mean()),
        "global_sd": float(similar.std(axis=(1, 2)).mean()),
    }


def _similar(features: Any, tokens: npt.NDArray[np.int64]) -> Iterator[Floats]:
    """Similarity of all tokens to each of `tokens`, (h, w) each."""
    for start in range(0, len(tokens), _AT_ONCE):
        yield from global_map(features, tokens[start : start + _AT_ONCE]).cpu().numpy()


def _separation(local: Floats, similar: Iterable[Floats], truth: Truth) -> dict[str, float]:
    """Figures against the truth; the global ones are means over the objects, each compared with all pixels.

    Parameters
    ----------
    similar : to the token of each object.
    """
    inside, outside = truth.inside, truth.outside
    found = [(_average(each, inside), _average(each, outside), auc(each, inside, outside)) for each in similar]
    within, between, area = np.mean(found, axis=0) if found else (np.nan,) * 3
    return {
        "similarity_inside": float(within),
        "similarity_outside": float(between),
        "auc_global": float(area),
        "auc_local": auc(local, inside, outside),
        "auc_local_edge": auc(local, truth.edge, inside + outside - truth.edge),
    }


def _average(values: Floats, weights: npt.NDArray[np.int64]) -> float:
    return float(np.average(values, weights=weights)) if weights.any() else np.nan


def _bounds(info: SlideInfo, region: tuple[int, int, int, int] | None) -> Bounds:
    x, y, width, height = region or (0, 0, info.width, info.height)
    if not (x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= info.width and y + height <= info.height):
        raise ConfigError(
            f"--region is {x} {y} {width} {height}, accepted: x, y, width, height inside the image, "
            f"{info.width} x {info.height} px"
        )
    return Bounds(x, y, x + width, y + height)


def _check_point(x: float, y: float, bounds: Bounds) -> None:
    if not (bounds.xmin <= x < bounds.xmax and bounds.ymin <= y < bounds.ymax):
        raise ConfigError(
            f"--point is {x:g} {y:g}, accepted: x from {bounds.xmin:g} to below {bounds.xmax:g}, "
            f"y from {bounds.ymin:g} to below {bounds.ymax:g}"
        )


def _shape(bounds: Bounds, long_side: int, patch: int) -> Shape2d:
    ratio = long_side / max(bounds.width, bounds.height) / patch
    return Shape2d(*(max(1, round(side * ratio)) * patch for side in (bounds.height, bounds.width)))


def _labels(path: Path, info: SlideInfo, bounds: Bounds) -> npt.NDArray[Any]:
    """The labels of the region."""
    labels = read_labels(path).labels
    left, top, right, bottom = map(int, bounds)
    if labels.shape == (bottom - top, right - left):
        return labels
    if labels.shape == (info.height, info.width):
        return labels[top:bottom, left:right]
    part = "" if (info.width, info.height) == (bounds.width, bounds.height) else f" or {right - left} x {bottom - top}"
    raise FormatError(
        f"{path}: has {labels.shape[1]} x {labels.shape[0]} px, expected {info.width} x {info.height}{part}"
    )


def _default_point(truth: Truth | None, grid: tuple[int, int], bounds: Bounds) -> tuple[float, float]:
    """The middle, or the centre of the token of the object that is nearest to it."""
    share = np.array([0.5, 0.5])
    if truth is not None and len(truth.tokens):
        centres = (truth.tokens + 0.5) / grid
        size = (bounds.height, bounds.width)
        share = centres[np.hypot(*((centres - 0.5) * size).T).argmin()]
    return float(bounds.xmin + share[1] * bounds.width), float(bounds.ymin + share[0] * bounds.height)


def _write(
    out: Path,
    table: str,
    maps: Mapping[str, Floats],
    xy: npt.NDArray[np.float64],
    tokens: npt.NDArray[np.int64],
    about: str,
) -> None:
    with atomic(out / "features.tsv") as temporary:
        temporary.write_text(table, encoding="utf-8")
    with atomic(out / "features.npz") as temporary:
        arrays: dict[str, Any] = {**maps, "points": xy, "tokens": tokens, "about": np.array(about)}
        np.savez(temporary, **arrays)
