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
from skimage.measure import label as connected_components

Labels = npt.NDArray[np.integer[Any]]


def polygons_from_labels(labels: Labels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """Outline every label of a label image.

    Parameters
    ----------
    labels : (h, w) integers; 0 is background, any other value one instance.

    Returns
    -------
    ids : (n,) the labels, ascending.
    geometry : (n,) valid polygons (multipolygons where a label has several 4-connected parts), holes kept, in pixel
        coordinates with integer corners; consecutive edges are never collinear.
    """
    padded = np.pad(labels, 1)
    parts: Labels = connected_components(padded, background=0, connectivity=1)  # type: ignore[no-untyped-call]
    count = int(parts.max(initial=0))
    if count == 0:
        return np.empty(0, np.int64), np.empty(0, object)
    part_label = np.zeros(count + 1, np.int64)
    part_label[parts.reshape(-1)] = padded.reshape(-1)
    polygons = _outline_parts(parts, count)
    order = np.argsort(part_label[1:], kind="stable")
    ids, first, per_id = np.unique(part_label[1:][order], return_index=True, return_counts=True)
    geometry = polygons[order][first]
    several = np.flatnonzero(per_id > 1)
    if several.size:
        group = np.repeat(np.arange(len(ids)), per_id)
        chosen = per_id[group] > 1
        position = np.searchsorted(several, group[chosen])
        geometry[several] = shapely.multipolygons(polygons[order][chosen], indices=position)
    return ids, geometry


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
    ids, found = polygons_from_labels(atlas)
    geometry = np.full(len(masks), shapely.Polygon(), dtype=object)
    index = ids - 1
    shift = np.asarray(origins)[index] - corners[index]
    coordinates, owner = shapely.get_coordinates(found, return_index=True)
    geometry[index] = shapely.set_coordinates(found, coordinates + shift[owner])
    return geometry


def _atlas(masks: Sequence[npt.NDArray[np.bool_]]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Lay all masks side by side on one label image, in rows of similar height; return it and each (x, y) corner."""
    shapes = np.array([mask.shape for mask in masks]).reshape(-1, 2)
    order = np.argsort(-shapes[:, 0], kind="stable")
    side = max(int(np.sqrt((shapes[:, 0] * shapes[:, 1]).sum()) * 1.2) + 1, int(shapes[:, 1].max()))
    corners = np.zeros((len(masks), 2), np.int64)
    x = y = row_height = 0
    for i in order:
        height, width = shapes[i]
        if x + width > side:
            x, y, row_height = 0, y + row_height, 0
        corners[i] = (x, y)
        x += width
        row_height = max(row_height, height)
    atlas = np.zeros((y + row_height, side), np.int32)
    for i, mask in enumerate(masks):
        x, y = corners[i]
        atlas[y : y + shapes[i, 0], x : x + shapes[i, 1]][mask] = i + 1
    return atlas, corners


def _outline_parts(parts: npt.NDArray[np.integer[Any]], count: int) -> npt.NDArray[np.object_]:
    """Outline the 4-connected parts 1..count of a label image that has a border of background."""
    start, end, part = _boundary_edges(parts)
    ring_of, rank, ring_count = _chain(start, end, part)
    order = np.lexsort((rank, ring_of))
    width = parts.shape[1] + 1
    y, x = np.divmod(start[order], width)
    ring = ring_of[order]
    corner = _is_corner(x, y, ring)
    x, y, ring = x[corner], y[corner], ring[corner]
    # the border of background is one pixel wide: take it off
    rings = shapely.linearrings(np.column_stack([x - 1.0, y - 1.0]), indices=ring)
    first = np.searchsorted(ring_of[order], np.arange(ring_count))
    owner = part[order][first]
    outer = _signed_area(x, y, ring, ring_count) > 0
    shells = np.empty(count, object)
    shells[owner[outer] - 1] = rings[outer]
    if outer.all():
        return np.asarray(shapely.polygons(shells), dtype=object)
    holes = np.flatnonzero(~outer)
    by_owner = holes[np.argsort(owner[holes], kind="stable")]
    return np.asarray(_with_holes(shells, rings[by_owner], owner[by_owner] - 1), dtype=object)


def _with_holes(
    shells: npt.NDArray[np.object_], holes: npt.NDArray[np.object_], owner: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.object_]:
    polygons = np.asarray(shapely.polygons(shells), dtype=object)
    punched, first = np.unique(owner, return_index=True)
    groups = np.split(holes, first[1:])
    polygons[punched] = [shapely.polygons(shells[i], holes=group) for i, group in zip(punched, groups)]
    return polygons


def _boundary_edges(
    parts: npt.NDArray[np.integer[Any]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.integer[Any]]]:
    """Unit edges between a part and anything else, directed with the part on the right (y down: clockwise).

    Returns start and end vertex (y * (w + 1) + x) and the part of each edge. An edge between two parts counts for both,
    once in each direction.
    """
    width = parts.shape[1] + 1
    starts, ends, owners = [], [], []

    def add(
        own: npt.NDArray[np.integer[Any]], other: npt.NDArray[np.integer[Any]], y0: int, x0: int, turn: int
    ) -> None:
        y, x = np.nonzero((own != other) & (own > 0))
        corner = (y + y0) * width + (x + x0)
        # top: left to right; bottom: right to left; left: bottom to top; right: top to bottom
        begin, finish = ((0, 1), (width + 1, width), (width, 0), (1, width + 1))[turn]
        starts.append(corner + begin)
        ends.append(corner + finish)
        owners.append(own[y, x])

    add(parts[1:], parts[:-1], 1, 0, 0)
    add(parts[:-1], parts[1:], 0, 0, 1)
    add(parts[:, 1:], parts[:, :-1], 0, 1, 2)
    add(parts[:, :-1], parts[:, 1:], 0, 0, 3)
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(owners)


def _chain(
    start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], part: npt.NDArray[np.integer[Any]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Join edges to rings: ring number and place in the ring of every edge, and the number of rings.

    Each edge is followed by the one of its part that leaves its end. Where two pixels of a part meet at a corner only,
    the outline crosses over to the other pixel (a left turn). A part is 4-connected, so the corner closes a loop around
    background: crossing over splits that loop off as a hole that touches the shell at a point, which is valid, whereas
    a right turn would make one ring that touches itself.
    """
    n = len(start)
    by_start = np.lexsort((start, part))
    key = part.astype(np.int64) * (int(max(start.max(), end.max())) + 1)
    sorted_keys = (key + start)[by_start]
    position = np.searchsorted(sorted_keys, key + end)
    following = by_start[position]
    twice = (position + 1 < n) & (sorted_keys[np.minimum(position + 1, n - 1)] == key + end)
    if twice.any():
        edge = np.flatnonzero(twice)
        candidate = by_start[position[edge] + 1]
        width_step = end - start  # +1, -1 (along x) or +w, -w (along y)
        row = int(np.abs(width_step).max())
        dx = np.where(np.abs(width_step) == 1, width_step, 0)
        dy = np.where(np.abs(width_step) == row, np.sign(width_step), 0)
        left = dx[edge] * dy[candidate] - dy[edge] * dx[candidate] < 0
        following[edge] = np.where(left, candidate, following[edge])
    return _rank_cycles(following)


def _rank_cycles(
    following: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Number the cycles of a permutation and rank the members of each, by pointer doubling.

    Each cycle starts at its lowest member, so the result does not depend on how the edges were found.
    """
    n = len(following)
    lowest = np.arange(n)
    jump = following.copy()
    while True:
        lower = np.minimum(lowest, lowest[jump])
        if np.array_equal(lower, lowest):
            break
        lowest, jump = lower, jump[jump]
    head = lowest == np.arange(n)
    # distance to the end of the cycle, cut before its head
    last = head[following]
    pointer = np.where(last, np.arange(n), following)
    distance = np.where(last, 0, 1)
    while True:
        further = distance[pointer]
        if not further.any():
            break
        distance += further
        pointer = pointer[pointer]
    heads = np.flatnonzero(head)
    ring_of = np.searchsorted(heads, lowest)
    rank = distance[heads][ring_of] - distance
    return ring_of, rank, len(heads)


def _is_corner(
    x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], ring: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Where the outline turns: unit edges in ring order, each given by its start."""
    before = np.arange(-1, len(x) - 1)
    after = np.arange(1, len(x) + 1)
    first = np.flatnonzero(np.r_[True, ring[1:] != ring[:-1]])
    last = np.r_[first[1:] - 1, len(x) - 1]
    before[first] = last
    after[last] = first
    straight = ((x[before] == x) & (x[after] == x)) | ((y[before] == y) & (y[after] == y))
    return np.asarray(~straight)


def _signed_area(
    x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], ring: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.float64]:
    """Shoelace formula per ring; positive for outer rings (clockwise with y down)."""
    after = np.arange(1, len(x) + 1)
    first = np.flatnonzero(np.r_[True, ring[1:] != ring[:-1]])
    after[np.r_[first[1:] - 1, len(x) - 1]] = first
    return np.bincount(ring, weights=(x * y[after] - x[after] * y).astype(np.float64), minlength=count) / 2
