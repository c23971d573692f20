"""PerSense's point prompt selection module (PPSM): which points look like the exemplar (section 3.3, Algorithm 3)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

RULES = ("clamped", "code", "paper")
"""How the threshold follows from the number of objects."""

FACTOR = math.sqrt(2)
"""The normalisation factor of Table 2b."""

MOST = 0.9
"""Greatest share of the best similarity that the clamped rule asks for."""


def least_share(count: float, rule: str = "clamped") -> float:
    """Share of the best similarity that a point must reach.

    The paper: sqrt 2 / count, which for a single object is above 1 and rejects it. The published code: the same, but
    1/2 for a count of exactly 1. Clamped, ours: infinite below half an object, 1/2 up to one and a half, then sqrt 2 /
    max(count, 2): no count between rejects everything.

    Parameters
    ----------
    count : of objects, as the density map has it; need not be whole.
    rule : one of `RULES`.
    """
    if rule == "clamped":
        if count < 0.5:
            return math.inf
        return 0.5 if count < 1.5 else min(MOST, FACTOR / max(count, 2.0))
    if rule == "code" and count == 1:
        return 0.5
    return FACTOR / count if count > 0 else math.inf


def select_points(
    xy: npt.NDArray[np.float64],
    similarity: npt.NDArray[np.float32],
    best: float,
    count: float,
    boxes: npt.NDArray[np.float32] | None = None,
    rule: str = "clamped",
) -> npt.NDArray[np.bool_]:
    """Which points stay.

    Parameters
    ----------
    xy : (n, 2) x, y px, pixel corners at integers.
    similarity : (h, w) of the picture.
    best : greatest similarity, of the picture or of a whole slide; where it is not positive nothing looks like the
        exemplar, and the clamped rule keeps no point.
    count : of objects (`least_share`).
    boxes : (k, 4) of a detector; a point must lie in one of them, edges included. None: anywhere.
    rule : one of `RULES`; the paper's keeps points above the threshold, the others also those on it.

    Returns
    -------
    (n,) bool: each point once, however many boxes hold it.
    """
    share = least_share(count, rule)
    if not math.isfinite(share) or (rule == "clamped" and best <= 0):
        return np.zeros(len(xy), bool)
    height, width = similarity.shape
    cols, rows = (np.clip(np.floor(xy[:, k]).astype(int), 0, n - 1) for k, n in ((0, width), (1, height)))
    found = similarity[rows, cols]
    kept = found > best * share if rule == "paper" else found >= best * share
    if boxes is not None:
        kept &= in_boxes(xy, boxes)
    return np.asarray(kept)


def in_boxes(xy: npt.NDArray[np.float64], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whether each point lies in some box, edges included."""
    inside = np.zeros(len(xy), bool)
    for start in range(0, len(xy), 4096):
        some = xy[start : start + 4096, None]
        within = np.all((some >= boxes[:, :2]) & (some <= boxes[:, 2:]), axis=2)
        inside[start : start + 4096] = within.any(axis=1)
    return inside
