"""Random label images whose instances are known, for tests of everything that must give them back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.errors import ConfigError, unknown

Labels = npt.NDArray[np.uint32]
_Draw = Callable[[npt.NDArray[np.int32], np.random.Generator], None]


def label_image(kind: str, shape: tuple[int, int], seed: int) -> Labels:
    """Draw a label image.

    Parameters
    ----------
    kind : one of `LABEL_KINDS`:
        "nuclei": ellipses of 6-24 px, a quarter of them in touching pairs;
        "fibres": snakes 1-5 px thick and longer than the image, some crossed and so cut by others;
        "buildings": rotated rectangles and L-shapes, most with a courtyard, some with a building inside;
        "giants": a few star-like objects with deep bays, up to the size of the image;
        "crowd": no background at all, everything touches (wobbly Voronoi cells of about 14 px);
        "porous": sponges with holes of all sizes, and islands inside holes.
    shape : (height, width), each at least 1.
    seed : the same (kind, shape, seed) gives the same image.

    Returns
    -------
    (height, width) uint32: 0 background, 1..n in raster order of first pixel. Each label is exactly one
    8-connected object (what another object cut in two became two labels), so some are single pixels.

    Raises
    ------
    ConfigError : unknown kind.
    """
    from skimage.measure import label

    if kind not in _DRAW:
        raise ConfigError(unknown("kind of label image", kind, LABEL_KINDS))
    rng = np.random.default_rng([seed, LABEL_KINDS.index(kind)])
    canvas = np.zeros(shape, np.int32)
    _DRAW[kind](canvas, rng)
    components = label(canvas, connectivity=2)  # type: ignore[no-untyped-call]
    return np.asarray(components, dtype=np.uint32)


def _points(xy: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    return np.round(xy).astype(np.int32)


def _count(canvas: npt.NDArray[np.int32], area: float) -> int:
    """Number of objects when each has `area` px² of the canvas to itself."""
    return max(1, round(canvas.size / area))


def _nuclei(canvas: npt.NDArray[np.int32], rng: np.random.Generator) -> None:
    import cv2

    height, width = canvas.shape
    for index in range(_count(canvas, 420)):
        centre = rng.uniform(0, (width, height))
        axes = rng.uniform(3, 12, 2)
        angle = rng.uniform(0, 180)
        cv2.ellipse(canvas, (centre.tolist(), (2 * axes).tolist(), angle), 2 * index + 1, -1)
        if rng.random() < 0.25:
            offset = rng.normal(size=2)
            centre = centre + offset / np.hypot(*offset) * axes.sum() * 0.8
            cv2.ellipse(canvas, (centre.tolist(), (2 * axes[::-1]).tolist(), angle), 2 * index + 2, -1)


def _fibres(canvas: npt.NDArray[np.int32], rng: np.random.Generator) -> None:
    import cv2

    height, width = canvas.shape
    for index in range(_count(canvas, 2500 + 12 * max(canvas.shape))):
        steps = max(8, round(1.5 * max(canvas.shape) / 4))
        heading = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, 0.25, steps))
        path = rng.uniform(0, (width, height)) + np.cumsum(4 * np.stack([np.cos(heading), np.sin(heading)], 1), 0)
        path = np.abs((path / (width, height) + 1) % 2 - 1) * (width, height)  # reflected at the image's rim
        cv2.polylines(canvas, [_points(path)], False, index + 1, int(rng.integers(1, 6)))


def _buildings(canvas: npt.NDArray[np.int32], rng: np.random.Generator) -> None:
    import cv2

    height, width = canvas.shape
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    ell = np.array([[-1, -1], [1, -1], [1, 0], [0, 0], [0, 1], [-1, 1]], float)
    for index in range(_count(canvas, 3000)):
        centre, half = rng.uniform(0, (width, height)), rng.uniform(5, 40, 2)
        angle = rng.choice([0, math.pi / 2, rng.uniform(0, math.pi)])
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        is_ell = rng.random() < 0.3
        cv2.fillPoly(canvas, [_points((ell if is_ell else square) * half @ turn + centre)], 2 * index + 1)
        if not is_ell and half.min() > 8 and rng.random() < 0.7:
            cv2.fillPoly(canvas, [_points(square * half * 0.6 @ turn + centre)], 0)
            if rng.random() < 0.5:
                cv2.fillPoly(canvas, [_points(square * half * 0.25 @ turn + centre)], 2 * index + 2)


def _giants(canvas: npt.NDArray[np.int32], rng: np.random.Generator) -> None:
    import cv2

    height, width = canvas.shape
    angles = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    for index in range(int(rng.integers(2, 6))):
        lobes, phase = rng.integers(2, 9), rng.uniform(0, 2 * math.pi)
        depth = rng.uniform(0.2, 0.9)
        radius = rng.uniform(0.15, 0.6) * (1 - depth * (0.5 + 0.5 * np.cos(lobes * angles + phase)))
        radius *= 1 + rng.normal(0, 0.05, len(angles))
        outline = np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1) * max(canvas.shape)
        cv2.fillPoly(canvas, [_points(outline + rng.uniform(0, (width, height)))], index + 1)


def _crowd(canvas: npt.NDArray[np.int32], rng: np.random.Generator) -> None:
    canvas[:] = _cells(canvas.shape, 14.0, rng)


def _porous(canvas: npt.NDArray[np.int32], rng: np.random.Generator) -> None:
    sponge = _smooth(canvas.shape, 2.5, rng) + 0.7 * _smooth(canvas.shape, 1.0, rng)
    cells = _cells(canvas.shape, 60.0, rng)
    walls = sponge > -0.4
    canvas[walls] = cells[walls]
    canvas[sponge < -1.6] = cells.max() + 1  # islands, apart from the walls; connectivity numbers them


def _cells(shape: tuple[int, ...], diameter: float, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Voronoi cells, numbered from 1, of about `diameter` px with wobbly borders."""
    from scipy.spatial import cKDTree

    height, width = shape
    seeds = rng.uniform(0, (height, width), (max(1, round(height * width / diameter**2)), 2))
    yx = np.moveaxis(np.mgrid[:height, :width], 0, -1).astype(np.float32)
    yx[..., 0] += 1.5 * _smooth(shape, 2.0, rng)
    yx[..., 1] += 1.5 * _smooth(shape, 2.0, rng)
    return np.asarray(cKDTree(seeds).query(yx.reshape(-1, 2))[1], np.int32).reshape(height, width) + 1


def _smooth(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Gaussian noise of standard deviation about 1 and correlation length `sigma` px."""
    import cv2

    noise = rng.standard_normal(shape, np.float32)
    # white noise smoothed by a Gaussian keeps 1 / (2 sigma sqrt(pi)) of its standard deviation
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma) * (2 * sigma * math.sqrt(math.pi)), np.float32)


_DRAW: dict[str, _Draw] = {
    "nuclei": _nuclei,
    "fibres": _fibres,
    "buildings": _buildings,
    "giants": _giants,
    "crowd": _crowd,
    "porous": _porous,
}
LABEL_KINDS = tuple(_DRAW)
"""Kinds of `label_image`."""
