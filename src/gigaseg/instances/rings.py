"""The corners of a label image, linked to closed rings: which edge follows which, and which ring is whose hole."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gigaseg.instances.corners import Corners, Index, Labels, swapped


@dataclass(frozen=True)
class Rings:
    """Rings ordered by (label, y, x) of their first edge.

    A ring starts at the left end of its first edge, in raster order, that has the label below. It runs with the label
    on its right (y down: clockwise).

    Attributes
    ----------
    corner : (c,) the corners, ring after ring.
    first : (r,) place of each ring's first corner in `corner`.
    hole : (r,) bool.
    """

    corner: Index
    first: Index
    hole: npt.NDArray[np.bool_]

    @property
    def length(self) -> Index:
        """(r,) corners of each ring."""
        return np.diff(self.first, append=len(self.corner))


def cross_over(corners: Corners) -> Corners:
    """Link outlines across the corners where two pixels of one 4-connected part meet.

    Such a corner closes a loop around background. Crossing over to the other pixel (a left turn) splits the loop off as
    a hole that touches the shell at a point, which is valid; turning right would make one ring that touches itself.
    Pixels of two parts keep their outlines apart. To tell: of outlines that turn right everywhere, one comes by twice
    only where the part is the same.
    """
    if not len(corners.twins):
        return corners
    following, _ = _following(corners)
    lowest = _lowest(following, np.arange(len(following)))
    same = lowest[corners.twins >> 1] == lowest[(corners.twins + 1) >> 1]
    return replace(corners, across=swapped(corners.across, corners.twins[same]))


def trace(corners: Corners) -> Rings:
    """Follow the edges of corners that are crossed over; there must be some."""
    following, start = _following(corners)
    edges, first = _cycles(following, corners.below[::2])
    corner = np.stack([start[edges], start[edges] ^ 1], axis=1).reshape(-1)
    x, y = corners.x[corner], corners.y[corner]
    # what lies above an edge counts for one that runs left, against one that runs right
    area = np.add.reduceat((x[::2] - x[1::2]) * y[::2], first)
    return Rings(corner, 2 * first, area < 0)


def shells(rings: Rings, corners: Corners, labels: Labels) -> Index:
    """Of each ring the shell (number of a ring) of the same 4-connected part; of a shell, itself.

    Parameters
    ----------
    corners, labels : what the rings were traced from: corners crossed over, (h, w) label image.
    """
    shell = np.arange(len(rings.first))
    owner = corners.label[rings.corner[rings.first]]
    holes = np.flatnonzero(rings.hole)
    # a lone shell is the first ring of its label
    shell[holes] = np.searchsorted(owner, owner[holes])
    owners = owner[~rings.hole]
    several = np.searchsorted(owners, owner[holes], "right") - np.searchsorted(owners, owner[holes]) > 1
    if not several.any():
        return shell
    holes = holes[several]
    shell[holes] = _higher(rings, corners, labels, holes)
    while not np.array_equal(higher := shell[shell], shell):
        shell = higher
    return shell


def _higher(rings: Rings, corners: Corners, labels: Labels, holes: Index) -> Index:
    """Of each hole another ring of its part that reaches higher up.

    The part has the pixel above the hole's first corner. The run of its pixels there begins, to the left, at an edge of
    such a ring.
    """
    top = np.minimum.reduceat(rings.corner, rings.first)[holes]
    height, width = labels.shape
    rows, at = np.unique(corners.y[top] - 1, return_inverse=True)
    begins = np.ones((len(rows), width), bool)
    np.not_equal(labels[rows, 1:], labels[rows, :-1], out=begins[:, 1:])
    runs = np.flatnonzero(begins)
    x = runs[np.searchsorted(runs, at * width + corners.x[top], "right") - 1] % width

    owners = np.unique(corners.label[top])

    def key(label: Labels, x: Index, y: Index) -> Index:
        """Place in the order of (x, label, y), in which the edges of a label on one line of the lattice follow."""
        return np.asarray((x * len(owners) + np.searchsorted(owners, label)) * (height + 1) + y)

    upper = np.flatnonzero((corners.y[corners.across] > corners.y) & np.isin(corners.label, owners))
    keys = key(corners.label[upper], corners.x[upper], corners.y[upper])
    order = np.argsort(keys)
    edge = np.searchsorted(keys[order], key(corners.label[top], x, rows[at]), "right") - 1
    ring = np.empty(len(corners), np.intp)
    ring[rings.corner] = np.repeat(np.arange(len(rings.first)), rings.length)
    return ring[upper[order][edge]]


def _following(corners: Corners) -> tuple[Index, Index]:
    """The edge that follows each edge, and the corner where each edge starts: at the left with its label below."""
    start = np.arange(0, len(corners), 2) + ~corners.below[::2]
    return corners.across[start ^ 1] >> 1, start


def _lowest(following: Index, rank: Index) -> Index:
    """Lowest rank in the cycle of each member of a permutation, by pointer doubling."""
    while True:
        lower = np.minimum(rank, rank[following])
        if np.array_equal(lower, rank):
            return rank
        rank, following = lower, following[following]


def _cycles(following: Index, may_lead: npt.NDArray[np.bool_]) -> tuple[Index, Index]:
    """Members of a permutation, cycle after cycle, and where each cycle starts: at the lowest member that may lead.

    Parameters
    ----------
    following : (n,) the permutation; cycles are ordered by their first members.
    may_lead : (n,) bool, true for some member of each cycle.
    """
    count = len(following)
    everyone = np.arange(count)
    lead = _lowest(following, np.where(may_lead, everyone, count))
    leads = lead == everyone
    # steps to the end of the cycle, cut before its first member
    last = leads[following]
    pointer = np.where(last, everyone, following)
    left = (~last).astype(np.intp)
    while (more := left[pointer]).any():
        left += more
        pointer = pointer[pointer]
    leaders = np.flatnonzero(leads)
    length = left[leaders] + 1
    end = np.cumsum(length)
    last_place = np.empty(count, np.intp)
    last_place[leaders] = end - 1
    members = np.empty(count, np.intp)
    members[last_place[lead] - left] = everyone
    return members, end - length
