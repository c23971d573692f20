"""Which objects are complete: pairs come block by block, and what can still grow is held back.

What becomes of an object depends on the tile instances it is linked to, directly or through others, and on nothing
else. Once a block is done, a set of linked instances none of which lies in the rows to come is final: it is decided
and forgotten. Held are only the sets that reach the next row of tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from gigaseg.stitch.merge import Links, Nodes, components
from gigaseg.stitch.seam import Flags, Index

_ENDS = ("first", "second", "rival_first", "rival_second")
_EDGE = ("first", "second", "agreement")


class Frontier:
    """Nodes and links of the objects that may still grow.

    Attributes
    ----------
    held : what is open, one part; the links by row of the slide's table.
    """

    def __init__(self) -> None:
        self.held: list[tuple[Nodes, Links]] = []

    def add(self, nodes: Nodes, links: Links, end: int) -> tuple[Nodes, Links]:
        """Take in what a block found and hand out what is final.

        Parameters
        ----------
        nodes, links : of the block, links by row of the slide's table; blocks come from top to bottom.
        end : first row of the tile rows to come; at least the number of rows after the last block.

        Returns
        -------
        Nodes and links (by position, as `gather` orders them) of all objects that cannot grow any more.
        """
        every, all_links = gather([*self.held, (nodes, links)])
        final = _final(every, all_links, end)
        rest, rest_links = _some(every, all_links, ~final)
        self.held = [(rest, replace(rest_links, **{name: rest.row[getattr(rest_links, name)] for name in _ENDS}))]
        return _some(every, all_links, final)


def gather(parts: Sequence[tuple[Nodes, Links]]) -> tuple[Nodes, Links]:
    """Nodes of all parts, each once, and all links by position among them, edges in descending agreement.

    The links of the parts are by row of the slide's table.
    """
    every = {f.name: np.concatenate([getattr(nodes, f.name) for nodes, _ in parts]) for f in fields(Nodes)}
    row, position, inverse = np.unique(every["row"], return_index=True, return_inverse=True)
    # a row of the halo is a node of two blocks: one may know its area from a rival, one may doubt that it is whole
    area, whole = np.zeros(len(row)), np.ones(len(row), bool)
    np.maximum.at(area, inverse, every["area"])
    np.logical_and.at(whole, inverse, every["whole"])
    nodes = Nodes(**{**{name: values[position] for name, values in every.items()}, "area": area, "whole": whole})
    pairs = {f.name: np.concatenate([getattr(links, f.name) for _, links in parts]) for f in fields(Links)}
    for name in _ENDS:
        pairs[name] = np.searchsorted(row, pairs[name])
    order = np.lexsort((pairs["second"], pairs["first"], -np.round(pairs["agreement"], 9)))
    for name in _EDGE:
        pairs[name] = pairs[name][order]
    order = np.lexsort((pairs["rival_second"], pairs["rival_first"]))
    for name in ("rival_first", "rival_second", "rival_common"):
        pairs[name] = pairs[name][order]
    return nodes, Links(**pairs)


def _final(nodes: Nodes, links: Links, end: int) -> Flags:
    """(m,) bool, no node that it is linked to, directly or through others, lies in row `end` or beyond."""
    first = np.concatenate([links.first, links.rival_first])
    second = np.concatenate([links.second, links.rival_second])
    group = components(first, second, len(nodes.row))
    grows = np.zeros(len(nodes.row), bool)
    grows[group[nodes.row >= end]] = True
    return np.asarray(~grows[group])


def _some(nodes: Nodes, links: Links, keep: Flags) -> tuple[Nodes, Links]:
    """The nodes `keep`, which no link leaves, with their links by the new positions."""
    place: Index = np.cumsum(keep) - 1
    chosen = {}
    for f in fields(Links):
        values = getattr(links, f.name)[keep[links.first if f.name in _EDGE else links.rival_first]]
        chosen[f.name] = place[values] if f.name in _ENDS else values
    return Nodes(**{f.name: getattr(nodes, f.name)[keep] for f in fields(Nodes)}), Links(**chosen)
