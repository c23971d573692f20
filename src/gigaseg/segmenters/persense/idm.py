"""PerSense's instance detection module (IDM): points from a density map (section 3.2 of the paper, Algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

THRESHOLD = 30
"""Grey level of 255 above which a density map is foreground; with CounTR's maps the published code has 20."""

SPREAD = 2.0
"""Standard deviations above the mean area from which on a contour is taken for several objects."""


@dataclass(frozen=True, eq=False)
class Detected:
    """Points of a density map.

    Attributes
    ----------
    xy : (n, 2) float64 x, y; pixel corners at integers.
    bound : area, px, above which a contour was split; NaN without contours.
    """

    xy: npt.NDArray[np.float64]
    bound: float


def grey_levels(
    density: npt.NDArray[np.float32], low: float | None = None, high: float | None = None
) -> npt.NDArray[np.uint8]:
    """A density map on the scale 0..255, truncated.

    Parameters
    ----------
    low, high : densities that become 0 and 255; None: the map's own least and greatest, as published. That of a picture
        without objects turns its noise into objects, and overlapping tiles disagree; a slide has one for all.

    Returns
    -------
    (h, w); zeros where `high` is no more than `low`, or no number.
    """
    low = float(density.min()) if low is None else low
    high = float(density.max()) if high is None else high
    if not high > low:
        return np.zeros(density.shape, np.uint8)
    scaled = (density.astype(np.float64) - low) / (high - low) * 255
    return np.clip(scaled, 0, 255).astype(np.uint8)


def detect_points(
    grey: npt.NDArray[np.uint8],
    *,
    threshold: int = THRESHOLD,
    bound: float | None = None,
    keep_parents: bool = False,
) -> Detected:
    """Points of the objects that a density map shows.

    Binary map, erosion by 3 x 3, outer contours; a contour of unusually large area is split by its distance transform.
    The areas are those of polygons through the contours' pixel centres, so a line has none.

    Parameters
    ----------
    grey : map on the scale 0..255 (`grey_levels`).
    threshold : levels above it are foreground (the paper's text has >=, its code >).
    bound : area, px, above which a contour is split; None: mean + 2 standard deviations of this map's contours, which
        no contour of five or fewer exceeds.
    keep_parents : as published, keep the centre of a contour beside those of the parts it was split into, and that of
        a part that is the only one. Else several parts stand for their contour, and a single one does not.

    Returns
    -------
    Detected
        The parts first, then the contours.
    """
    binary = cv2.threshold(grey, threshold, 255, cv2.THRESH_BINARY)[1]
    eroded = cv2.erode(binary, np.ones((3, 3), np.uint8))
    contours = _outer(eroded)
    areas = np.array([cv2.contourArea(contour) for contour in contours])
    if not contours:
        return Detected(np.empty((0, 2)), np.nan if bound is None else bound)
    if bound is None:
        bound = float(areas.mean() + SPREAD * areas.std())
    parts: list[npt.NDArray[np.float64]] = []
    whole: list[npt.NDArray[np.float64]] = []
    for contour, area in zip(contours, areas):
        children = _children(contour, grey.shape) if area > bound else []
        split = len(children) > 1
        if split or keep_parents:
            parts += [_centre(child) for child in children]
        if not split or keep_parents:
            whole.append(_centre(contour))
    return Detected(np.array([*parts, *whole]).reshape(-1, 2) + 0.5, bound)


def _outer(binary: npt.NDArray[Any]) -> list[npt.NDArray[np.int32]]:
    return [np.asarray(c, np.int32) for c in cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]]


def _children(contour: npt.NDArray[np.int32], shape: tuple[int, ...]) -> list[npt.NDArray[np.int32]]:
    """Contours of what lies deeper than half of the contour's greatest depth; beyond the map's border it goes on."""
    x, y, width, height = cv2.boundingRect(contour)
    left, top = int(x > 0), int(y > 0)
    right, bottom = int(x + width < shape[1]), int(y + height < shape[0])
    filled = np.zeros((top + height + bottom, left + width + right), np.uint8)
    corner = (x - left, y - top)
    cv2.drawContours(filled, [contour - corner], -1, 255, cv2.FILLED)
    depth = cv2.distanceTransform(filled, cv2.DIST_L2, 3)
    deep = (depth > 0.5 * depth.max()).astype(np.uint8)
    return [child + np.array(corner, np.int32) for child in _outer(deep)]


def _centre(contour: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Centroid, as x and y of pixels; of a line or a pixel, whose polygon has no area, the mean of its pixels."""
    moments = cv2.moments(contour)
    if moments["m00"] > 0:
        return np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    return np.asarray(np.unique(contour.reshape(-1, 2), axis=0).mean(0))
