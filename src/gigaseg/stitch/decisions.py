"""What becomes of every tile instance, in a few bytes each: decided object by object, asked for run by run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gigaseg.stitch.merge import Plan
from gigaseg.stitch.seam import Index
from gigaseg.stitch.united import UniteTask


@dataclass(frozen=True)
class Decided:
    """What becomes of n consecutive rows.

    Attributes
    ----------
    begin : the first row.
    members : (n,) int16, tile instances that the row stands for, up to 32,767; 0: it vanishes.
    cut_left : (n,) uint8 mask of the borders at which the object remains cut, where members > 1.
    union : the objects among them that become the union of their members.
    """

    begin: int
    members: npt.NDArray[np.int16]
    cut_left: npt.NDArray[np.uint8]
    union: UniteTask


class Decisions:
    """Three bytes a row, and two numbers for every piece of a union; rows that no plan names stay as they are."""

    def __init__(self, rows: int) -> None:
        self._members = np.ones(rows, np.int16)
        self._cut_left = np.zeros(rows, np.uint8)
        self._lead: list[Index] = []
        self._piece: list[Index] = []

    def add(self, plan: Plan) -> None:
        """Note what becomes of some objects; the plans may come in any order."""
        self._members[plan.gone] = 0
        self._members[plan.lead] = np.minimum(plan.members, np.iinfo(np.int16).max)
        self._cut_left[plan.lead] = plan.cut_left
        if len(plan.united):
            self._lead.append(plan.united[plan.member_owner])
            self._piece.append(plan.member_row)

    def of(self, begin: int, end: int) -> Decided:
        """What becomes of the rows begin..end-1."""
        lead, piece = self._sorted_pieces()
        mine = slice(*np.searchsorted(lead, [begin, end]))
        row, owner = np.unique(lead[mine], return_inverse=True)
        return Decided(begin, self._members[begin:end], self._cut_left[begin:end], UniteTask(row, piece[mine], owner))

    def _sorted_pieces(self) -> tuple[Index, Index]:
        """Pieces of all unions by the row that stands for the union, then by their own."""
        if len(self._lead) != 1:
            lead, piece = np.concatenate([*self._lead, _NONE]), np.concatenate([*self._piece, _NONE])
            order = np.lexsort((piece, lead))
            self._lead, self._piece = [lead[order]], [piece[order]]
        return self._lead[0], self._piece[0]


_NONE = np.empty(0, np.int64)
