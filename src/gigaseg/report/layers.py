"""What is drawn over a thumbnail: instances as outlines or density, the foreground's outline, the tile grid.

Pictures are (height, width, 3) uint8 RGB and are changed in place. Coordinates given to a function are picture
pixels in the frame of the design: pixel corners at integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import shapely

Picture = npt.NDArray[np.uint8]
Rgb = tuple[int, int, int]

_SHIFT = 4
"""Bits after the point in coordinates that OpenCV draws with (1/16 px)."""


def rings(geometry: npt.NDArray[np.object_], scale: tuple[float, float]) -> list[list[npt.NDArray[np.float64]]]:
    """The rings of each polygon or multipolygon, holes too, as (m, 2) arrays of x, y divided by `scale`."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    lines, part = shapely.get_rings(parts, return_index=True)
    xy, line = shapely.get_coordinates(lines, return_index=True)
    split = np.split(xy / np.asarray(scale), np.flatnonzero(np.diff(line)) + 1) if len(xy) else []
    found: list[list[npt.NDArray[np.float64]]] = [[] for _ in range(len(geometry))]
    for instance, ring in zip(owner[part], split, strict=True):
        found[instance].append(ring)
    return found


def draw_lines(
    picture: Picture, lines: Sequence[npt.NDArray[np.float64]], color: Rgb, width: int, alpha: float
) -> None:
    """Draw closed lines; where they overlap they are not darker."""
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.polylines(mask, [_fixed(line) for line in lines], True, 255, width, cv2.LINE_AA, _SHIFT)
    _blend(picture, mask, color, alpha)


def draw_instances(
    picture: Picture, instances: Sequence[list[npt.NDArray[np.float64]]], color: Rgb, *, outlined: bool
) -> None:
    """Fill instances (holes stay open), lightly under an outline or fully without one."""
    mask = np.zeros(picture.shape[:2], np.uint8)
    for parts in instances:
        # one call an instance: within a call rings cancel, which is right for holes and wrong for neighbours
        cv2.fillPoly(mask, [_fixed(ring) for ring in parts], 255, cv2.LINE_AA, _SHIFT)
    _blend(picture, mask, color, 0.25 if outlined else 0.85)
    if outlined:
        draw_lines(picture, [ring for parts in instances for ring in parts], color, 1, 0.9)


def density(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Instances per picture pixel about each pixel: points counted, then smoothed; their sum stays (but for the rim).

    Parameters
    ----------
    x, y : (n,) centres.
    shape : (height, width) of the picture.
    """
    height, width = shape
    column, row = np.clip(x.astype(int), 0, width - 1), np.clip(y.astype(int), 0, height - 1)
    counts = np.bincount(row * width + column, minlength=height * width).reshape(shape).astype(np.float32)
    sigma = max(1.5, max(shape) / 400)
    return np.asarray(cv2.GaussianBlur(counts, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def draw_density(picture: Picture, values: npt.NDArray[np.float32], top: float) -> None:
    """Colour a greyed picture by `values` (0 .. `top` and above); it shows through where they are small."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., np.newaxis]
    share = np.clip(values / max(top, 1e-12), 0, 1)
    opacity = np.clip(share * 8, 0, 0.8)[..., np.newaxis]
    picture[:] = np.rint(grey * (1 - opacity) + density_colors(share) * opacity).astype(np.uint8)


def density_colors(share: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """RGB of the share (0..1, two dimensions) of the top density."""
    levels = np.rint(share * 255).astype(np.uint8)
    colors: npt.NDArray[np.uint8] = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1]
    return colors


def mask_outlines(
    mask: npt.NDArray[np.bool_], scale: tuple[float, float], shape: tuple[int, int]
) -> list[npt.NDArray[np.float64]]:
    """Outlines of a mask in picture px.

    Parameters
    ----------
    mask : (h, w).
    scale : picture px per mask px, (x, y).
    shape : (height, width) of the picture.
    """
    sx, sy = scale
    # pixel centres lie at halves in our frame and at integers in OpenCV's
    matrix = np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5]])
    height, width = shape
    large = cv2.warpAffine(mask.astype(np.uint8) * 255, matrix, (width, height), flags=cv2.INTER_LINEAR)
    outlines, _ = cv2.findContours((large > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [outline[:, 0, :].astype(np.float64) + 0.5 for outline in outlines]


def _fixed(line: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    return np.rint((line - 0.5) * (1 << _SHIFT)).astype(np.int32)


def _blend(picture: Picture, mask: npt.NDArray[np.uint8], color: Rgb, alpha: float) -> None:
    weight = mask[..., np.newaxis] * np.float32(alpha / 255)
    picture[:] = np.rint(picture * (1 - weight) + np.asarray(color, np.float32) * weight).astype(np.uint8)
