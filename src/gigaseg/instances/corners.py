"""Where the outlines of a label image turn, and which of these corners an edge joins.

A vertex of the pixel lattice is the corner of up to four pixels. A label's outline turns there when the label has one
of them, three, or two that meet at the vertex only (then twice). Along a line of the lattice a label's corners are in
turn the start and the end of an edge, so sorting them finds all edges, and straight steps need no work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer[Any]]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Corners:
    """Corners of a label image, ordered by (label, y, x): 2k and 2k + 1 are the ends of horizontal edge k.

    Attributes
    ----------
    label : (n,) the label whose outline turns.
    x, y : (n,) vertex, px.
    below : (n,) bool; of an edge's left end: whether the label lies below the edge, else above.
    across : (n,) the other end of each corner's vertical edge. Where two pixels of a label meet at a corner only, each
        pixel's outline keeps to that pixel.
    twins : (t,) corners i for which i and i + 1 are those of two such pixels.
    """

    label: Labels
    x: Index
    y: Index
    below: npt.NDArray[np.bool_]
    across: Index
    twins: Index

    def __len__(self) -> int:
        return len(self.label)


def find_corners(labels: Labels) -> Corners:
    """Corners of a (h, w) label image; 0 is background."""
    height, width = labels.shape
    # one pixel of background before each row ends the row above too, and keeps neighbours at fixed steps in one line
    step = width + 1
    line = np.zeros((height + 2) * step + 1, _narrow(labels))
    line[step : -step - 1].reshape(height, step)[:, 1:] = labels
    upright, level = line[1:] != line[:-1], line[step:] != line[:-step]
    # no outline ends, so a vertex with edges along both axes is a corner of some label, or of the background
    vertex = np.flatnonzero((upright[:-step] | upright[step:]) & (level[:-1] | level[1:]))
    # the left column first: of twins, the one whose edge ends here then comes before the one whose edge starts here
    quarters = np.stack([line[shift:][vertex] for shift in (0, step, 1, step + 1)], axis=1)
    corner = np.flatnonzero(_turns(quarters))
    label = quarters.reshape(-1)[corner]
    by_label = np.argsort(label, kind="stable")
    corner, label = corner[by_label], label[by_label]
    y, x = np.divmod(vertex[corner >> 2], step)
    across = _pair(np.argsort(x.astype(np.uint16) if width < 2**16 else x, kind="stable"))
    twins = 2 * np.flatnonzero((x[1:-1:2] == x[2::2]) & (y[1:-1:2] == y[2::2]) & (label[1:-1:2] == label[2::2])) + 1
    # down a line, of twins at left below and right above the first is the one whose edge starts here
    across = swapped(across, twins[corner[twins] & 3 == 1])
    return Corners(label, x, y, (corner & 1).astype(bool), across, twins)


def swapped(across: Index, first: Index) -> Index:
    """Partners after the corners i and i + 1 have changed places, for each i of `first`."""
    if not len(first):
        return across
    place = np.arange(len(across))
    place[first], place[first + 1] = first + 1, first
    return place[across[place]]


def _narrow(labels: Labels) -> npt.DTypeLike:
    """The type to work in: labels of 16 bits are compared faster, and sorted in linear time."""
    if labels.dtype == bool:
        return np.uint16
    return np.uint16 if labels.size and labels.min() >= 0 and labels.max() < 2**16 else labels.dtype


def _turns(quarters: Labels) -> npt.NDArray[np.bool_]:
    """Whether the outline of each pixel's label turns at the vertex, told at the pixel in the bend.

    Parameters
    ----------
    quarters : (n, 4) labels left above, left below, right above, right below a vertex, not all equal.

    Returns
    -------
    (n, 4) bool: the pixel is not background, and of its two neighbours among these both have its label, or neither.
    """
    left_above, left_below, right_above, right_below = quarters.T
    above, below = left_above == right_above, left_below == right_below
    left, right = left_above == left_below, right_above == right_below
    turns = np.stack([above == left, below == left, above == right, below == right], axis=1)
    turns &= quarters != 0
    return turns


def _pair(order: Index) -> Index:
    """Partner of each of n when every two consecutive ones in an order are partners."""
    partner = np.empty_like(order)
    partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    return partner
