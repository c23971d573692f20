"""Non-maximum suppression of points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def point_nms(xy: npt.NDArray[np.floating], score: npt.NDArray[np.floating], radius: float) -> npt.NDArray[np.int64]:
    """Points of which no kept one of higher score lies within a radius: greedy, by descending score.

    Parameters
    ----------
    xy : (n, 2).
    score : (n,); of equal ones the earlier point comes first.
    radius : Euclidean distance at which a point is still suppressed, in the unit of `xy`.

    Returns
    -------
    (k,) int64 positions of the points that stay, ascending.
    """
    from scipy.spatial import KDTree

    order = np.argsort(-score, kind="stable")
    pairs = KDTree(xy[order]).query_pairs(radius, output_type="ndarray") if len(xy) else np.empty((0, 2), np.int64)
    kept = np.ones(len(xy), bool)
    # i < j, by i: whether that one stays is settled by then
    for better, worse in pairs[np.argsort(pairs[:, 0], kind="stable")].tolist():
        if kept[better]:
            kept[worse] = False
    return np.sort(order[kept]).astype(np.int64)
