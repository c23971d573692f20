"""Masks to polygons: exact pixel outlines, vectorised over all instances of a tile.

A pixel (y, x) is the unit square [x, x+1) x [y, y+1), so outlines have integer corners. Regions are 4-connected: pixels
that share only a corner become separate parts of a multipolygon, which keeps every polygon valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from gigaseg.instances.corners import Index, Labels, find_corners
from gigaseg.instances.rings import Rings, cross_over, shells, trace


def polygons_from_labels(
    labels: Labels, origin: tuple[int, int] = (0, 0)
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """Outline every label of a label image.

    Parameters
    ----------
    labels : (h, w) integers; 0 is background, any other value one instance.
    origin : (x, y) of the image's top-left corner.

    Returns
    -------
    ids : (n,) the labels, ascending.
    geometry : (n,) valid polygons (multipolygons where a label has several 4-connected parts), holes kept, with integer
        corners; consecutive edges are never collinear.
    """
    return _outline(labels, np.array([origin]))


def polygons_from_masks(
    masks: Sequence[npt.NDArray[np.bool_]], origins: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.object_]:
    """Outline masks that may overlap.

    Parameters
    ----------
    masks : n bool arrays, each cropped to its box.
    origins : (n, 2) integers, (x, y) of each crop's top-left corner.

    Returns
    -------
    (n,) polygons or multipolygons, valid, integer corners; an empty polygon for a mask without pixels.
    """
    if len(masks) == 0:
        return np.empty(0, object)
    atlas, corners = _atlas(masks)
    ids, found = _outline(atlas, np.concatenate([[(0, 0)], np.asarray(origins) - corners]))
    geometry = np.full(len(masks), shapely.Polygon(), dtype=object)
    geometry[ids - 1] = found
    return geometry


def _atlas(masks: Sequence[npt.NDArray[np.bool_]]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Lay all masks side by side on one label image, in rows of similar height; return it and each (x, y) corner."""
    shapes = np.array([mask.shape for mask in masks]).reshape(-1, 2)
    order = np.argsort(-shapes[:, 0], kind="stable")
    side = max(int(np.sqrt((shapes[:, 0] * shapes[:, 1]).sum()) * 1.2) + 1, int(shapes[:, 1].max()))
    corners = np.zeros((len(masks), 2), np.int64)
    x = y = row_height = 0
    sizes = shapes.tolist()
    for i in order.tolist():
        height, width = sizes[i]
        if x + width > side:
            x, y, row_height = 0, y + row_height, 0
        corners[i] = (x, y)
        x += width
        row_height = max(row_height, height)
    atlas = np.zeros((y + row_height, side), np.int32)
    for i, (mask, (x, y), (height, width)) in enumerate(zip(masks, corners.tolist(), sizes)):
        atlas[y : y + height, x : x + width][mask] = i + 1
    return atlas, corners


def _outline(
    labels: Labels, origins: npt.NDArray[np.integer[Any]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """As `polygons_from_labels`; the image's top-left corner is at `origins[i]` for label i, or at the only one."""
    corners = cross_over(find_corners(labels))
    if not len(corners):
        return np.empty(0, np.int64), np.empty(0, object)
    rings = trace(corners)
    shell = shells(rings, corners, labels)
    x, y = (origins if len(origins) == 1 else np.take(origins, corners.label, axis=0)).T
    polygons = _polygons(rings, shell, np.stack([corners.x + x, corners.y + y], axis=1).astype(float))
    owner = corners.label[rings.corner[rings.first[~rings.hole]]]
    ids, first, parts = np.unique(owner, return_index=True, return_counts=True)
    geometry = polygons[first]
    several = np.flatnonzero(parts > 1)
    if several.size:
        chosen = np.repeat(parts > 1, parts)
        position = np.repeat(np.arange(len(several)), parts[several])
        geometry[several] = shapely.multipolygons(polygons[chosen], indices=position)
    return ids.astype(np.int64), geometry


def _polygons(rings: Rings, shell: Index, xy: npt.NDArray[np.float64]) -> npt.NDArray[np.object_]:
    """One polygon of each shell and its holes, in the order of the rings.

    Parameters
    ----------
    shell : (r,) shell of each ring.
    xy : (n, 2) the corners.
    """
    order = np.argsort(shell, kind="stable")  # a shell comes before its holes
    size = rings.length[order] + 1
    end = np.cumsum(size)
    place = np.arange(end[-1]) + np.repeat(rings.first[order] + size - end, size)
    place[end - 1] = rings.first[order]
    offsets = np.append(0, end), np.append(np.flatnonzero(~rings.hole[order]), len(order))
    kind = shapely.GeometryType.POLYGON
    # np.take copies whole rows, many times faster than xy[...]
    coordinates = np.take(xy, rings.corner[place], axis=0)
    return np.asarray(shapely.from_ragged_array(kind, coordinates, offsets), dtype=object)
