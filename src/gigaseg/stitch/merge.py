"""From agreeing pairs to objects: union-find with one exception, who represents an object, and what rivals do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gigaseg.stitch.seam import Flags, Index, Values


@dataclass(frozen=True)
class Nodes:
    """Tile instances that take part in a pair, ascending by row.

    Attributes
    ----------
    row : (m,) place in the slide's table of tile instances.
    tile : (m,) number of the tile.
    whole : (m,) bool, touches no border of its tile inside the slide, and no partner gives the lie to that.
    centrality : (m,) distance to the tile's open borders, working px.
    score : (m,) in [0, 1].
    area : (m,) working px².
    cut_left : (m,) uint8 mask of the borders it touches beyond which no tile was kept.
    cut_kept : (m,) bool, touches a border beyond which a kept tile sees on.
    """

    row: Index
    tile: Index
    whole: Flags
    centrality: Values
    score: npt.NDArray[np.float32]
    area: Values
    cut_left: npt.NDArray[np.uint8]
    cut_kept: Flags


@dataclass(frozen=True)
class Links:
    """Pairs of nodes by position: `match.Pairs` of the whole slide.

    Attributes
    ----------
    first, second, agreement : edges in descending order of agreement, ties by position.
    rival_first, rival_second, rival_common : pairs that cover each other without agreeing; shared area, working px².
    """

    first: Index
    second: Index
    agreement: Values
    rival_first: Index
    rival_second: Index
    rival_common: Values


@dataclass(frozen=True)
class Plan:
    """What becomes of the tile instances; rows that are not named stay as they are.

    Attributes
    ----------
    gone : rows that vanish, ascending.
    lead : rows that stay for several, ascending.
    members : (len(lead),) how many tile instances each stands for.
    cut_left : (len(lead),) uint8 mask of the borders at which the object remains cut.
    united : rows of `lead` whose object becomes the union of its members, ascending.
    member_row, member_owner : the members of the united objects, by owner (position in `united`), then row.
    skipped : edges left out because they would join two whole instances of one tile.
    conflicts : pairs of objects left or dropped that contradict each other.
    dropped : objects that gave way to a contradicting one.
    """

    gone: Index
    lead: Index
    members: Index
    cut_left: npt.NDArray[np.uint8]
    united: Index
    member_row: Index
    member_owner: Index
    skipped: int
    conflicts: int
    dropped: int


def plan(nodes: Nodes, links: Links, agreement: float) -> Plan:
    """Decide what becomes of all nodes.

    An object with a whole member is represented by the whole member that contradicts the fewest others, then is the
    most central (largest distance of the bounding box to the tile's borders beyond which another tile sees on), then
    has the highest score, then comes first. An object whose members are all cut becomes their union.

    Two objects contradict each other when their representatives are rivals (`Links`) and no tile drew both. In the
    order whole, central, score, row each object stays unless at least `agreement` of its area lies in contradicting
    ones that stay; half of that is enough for a cut one, since a sliver moves with the outline it is a piece of.
    Unions always stay.
    """
    group, skipped = join(links, nodes.whole, nodes.tile)
    count = int(group.max(initial=-1)) + 1
    size = np.bincount(group, minlength=count)
    rivals = group[links.rival_first] != group[links.rival_second]
    first, second, common = links.rival_first[rivals], links.rival_second[rivals], links.rival_common[rivals]
    trouble = np.bincount(np.concatenate([first, second]), minlength=len(group))
    order = np.lexsort((nodes.row, -nodes.score, -nodes.centrality, trouble, ~nodes.whole, group))
    leader = order[np.r_[True, np.diff(group[order]) > 0]] if count else np.empty(0, np.int64)
    union = (size > 1) & ~nodes.whole[leader]
    stays, conflicts = _settle(nodes, group, leader, union, first, second, common, agreement)

    gone = np.ones(len(group), bool)
    gone[leader[stays]] = False
    several = np.flatnonzero((size > 1) & stays)
    several = several[np.argsort(nodes.row[leader[several]])]
    cut = np.zeros(count, np.uint8)
    np.bitwise_or.at(cut, group[union[group]], nodes.cut_left[union[group]])
    united = several[union[several]]
    place = np.full(count, -1)
    place[united] = np.arange(len(united))
    mine = np.flatnonzero(place[group] >= 0)
    mine = mine[np.argsort(place[group[mine]], kind="stable")]
    return Plan(
        gone=nodes.row[gone],
        lead=nodes.row[leader[several]],
        members=size[several],
        cut_left=cut[several],
        united=nodes.row[leader[united]],
        member_row=nodes.row[mine],
        member_owner=place[group[mine]],
        skipped=skipped,
        conflicts=conflicts,
        dropped=int((~stays).sum()),
    )


def join(links: Links, whole: Flags, tile: Index) -> tuple[Index, int]:
    """Join the edges in their order, except those that would put two whole instances of one tile together.

    Returns
    -------
    (m,) group of each node, 0..count-1, and the number of edges left out.
    """
    group = components(links.first, links.second, len(whole))
    contested = _contested(group, whole, tile)
    if not contested.any():
        return group, 0
    hard = contested[group[links.first]]
    kept = np.ones(len(hard), bool)
    kept[hard] = _join_one_by_one(links.first[hard], links.second[hard], whole, tile)
    return components(links.first[kept], links.second[kept], len(whole)), int((~kept).sum())


def components(first: Index, second: Index, n: int) -> Index:
    """(n,) number of the connected component of each of n nodes."""
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _contested(group: Index, whole: Flags, tile: Index) -> Flags:
    """(groups,) bool: the group holds two whole instances of one tile."""
    tiles = int(tile.max(initial=0)) + 1
    keys = np.sort(group[whole] * tiles + tile[whole])
    contested = np.zeros(int(group.max(initial=-1)) + 1, bool)
    contested[keys[1:][keys[1:] == keys[:-1]] // tiles] = True
    return contested


def _join_one_by_one(first: Index, second: Index, whole: Flags, tile: Index) -> Flags:
    """Kruskal over the few contested edges: which of them may be joined."""
    parent: dict[int, int] = {}
    tiles: dict[int, set[int]] = {}

    def root(i: int) -> int:
        if i not in parent:
            parent[i] = i
            tiles[i] = {int(tile[i])} if whole[i] else set()
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    kept = np.zeros(len(first), bool)
    for k, (i, j) in enumerate(zip(first.tolist(), second.tolist())):
        a, b = root(i), root(j)
        if a != b:
            if tiles[a] & tiles[b]:
                continue
            if len(tiles[a]) < len(tiles[b]):  # small sets into large ones: linear, near enough
                a, b = b, a
            parent[b] = a
            tiles[a] |= tiles.pop(b)
        kept[k] = True
    return kept


def _settle(
    nodes: Nodes,
    group: Index,
    leader: Index,
    union: Flags,
    first: Index,
    second: Index,
    common: Values,
    agreement: float,
) -> tuple[Flags, int]:
    """(groups,) bool, which objects stay, and the number of pairs of objects that contradict each other."""
    stays = np.ones(len(leader), bool)
    # only what stands for an object can contradict: its leader, or any piece of a union
    speaks = union[group]
    speaks[leader] = True
    mine = speaks[first] & speaks[second]
    one, two, common = group[first[mine]], group[second[mine]], common[mine]
    if not len(one):
        return stays, 0
    seen = coo_array((np.ones(len(group), np.int32), (group, nodes.tile))).tocsr()
    apart = np.asarray(seen[one].multiply(seen[two]).sum(axis=1)).reshape(-1) == 0
    shared: dict[int, dict[int, float]] = {}
    for a, b, area in zip(one[apart].tolist(), two[apart].tolist(), common[apart].tolist()):
        for x, y in ((a, b), (b, a)):
            mutual = shared.setdefault(x, {})
            mutual[y] = max(mutual.get(y, 0.0), area)
    involved = np.array(sorted(shared), dtype=np.int64)
    of = leader[involved]
    rank = np.lexsort((nodes.row[of], -nodes.score[of], -nodes.centrality[of], ~nodes.whole[of]))
    settled = np.zeros(len(leader), bool)
    for x in involved[rank].tolist():
        if not union[x]:
            taken = sum(area for y, area in shared[x].items() if stays[y] and (settled[y] or union[y]))
            share = agreement if nodes.whole[leader[x]] else agreement / 2
            stays[x] = taken < share * nodes.area[leader[x]]
        settled[x] = True
    return stays, sum(len(mutual) for mutual in shared.values()) // 2
