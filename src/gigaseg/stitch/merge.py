"""From agreeing pairs to objects: union-find with one exception, and what each object keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gigaseg.instances.table import Instances
from gigaseg.stitch.match import Edges, Index
from gigaseg.tiles.tiling import BOTTOM, LEFT, RIGHT, TOP, Tiling


@dataclass(frozen=True)
class Groups:
    """Which object each tile instance belongs to.

    Attributes
    ----------
    group : (n,) 0..count-1.
    count : number of objects.
    skipped : edges left out because they would join two whole instances of one tile.
    """

    group: Index
    count: int
    skipped: int


def join(edges: Edges, whole: npt.NDArray[np.bool_], tile: Index) -> Groups:
    """Join the edges in their order, except those that would put two whole instances of one tile together.

    Parameters
    ----------
    edges : in descending order of agreement.
    whole : (n,) bool.
    tile : (n,) number of each instance's tile.
    """
    n = len(whole)
    group = _components(edges.first, edges.second, n)
    contested = _contested(group, whole, tile)
    if not contested.any():
        return Groups(group, int(group.max(initial=-1)) + 1, 0)
    hard = contested[group[edges.first]]
    kept = np.ones(len(hard), bool)
    kept[hard] = _join_one_by_one(edges.first[hard], edges.second[hard], whole, tile)
    group = _components(edges.first[kept], edges.second[kept], n)
    return Groups(group, int(group.max(initial=-1)) + 1, int((~kept).sum()))


def _components(first: Index, second: Index, n: int) -> Index:
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _contested(group: Index, whole: npt.NDArray[np.bool_], tile: Index) -> npt.NDArray[np.bool_]:
    """(groups,) bool: the group holds two whole instances of one tile."""
    count = int(group.max(initial=-1)) + 1
    keys, times = np.unique(group[whole] * (int(tile.max(initial=0)) + 1) + tile[whole], return_counts=True)
    contested = np.zeros(count, bool)
    contested[keys[times > 1] // (int(tile.max(initial=0)) + 1)] = True
    return contested


def _join_one_by_one(first: Index, second: Index, whole: npt.NDArray[np.bool_], tile: Index) -> npt.NDArray[np.bool_]:
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
            parent[b] = a
            tiles[a] |= tiles.pop(b)
        kept[k] = True
    return kept


def represent(
    instances: Instances,
    groups: Groups,
    whole: npt.NDArray[np.bool_],
    open_sides: npt.NDArray[np.uint8],
    tiling: Tiling,
) -> Instances:
    """One instance an object, ordered by the representative's place.

    An object with a whole member is its most central one (largest distance of the bounding box to the tile's borders
    beyond which another tile sees on; then score, then place). One whose members are all cut is their union, with
    score and class probabilities weighted by area; its place is that of its most central member.
    """
    n = len(instances)
    members = np.bincount(groups.group, minlength=groups.count)
    centrality = _centrality(instances, open_sides, tiling)
    order = np.lexsort((np.arange(n), -instances.score, -centrality, ~whole, groups.group))
    leader = order[np.r_[True, np.diff(groups.group[order]) > 0]] if n else np.empty(0, np.int64)
    result = instances.take(leader)
    geometry = result.geometry.copy()
    score, prob, index = result.score.copy(), result.class_prob.copy(), result.class_index.copy()
    cut = result.cut & ~open_sides[leader]
    united = np.flatnonzero((members > 1) & ~whole[leader])
    if united.size:
        place = np.full(groups.count, -1)
        place[united] = np.arange(united.size)
        mine = np.flatnonzero(place[groups.group] >= 0)
        mine = mine[np.argsort(place[groups.group[mine]], kind="stable")]
        owner = place[groups.group[mine]]
        geometry[united] = unite(instances.geometry[mine], owner)
        area = shapely.area(instances.geometry[mine])
        total = np.bincount(owner, weights=area)
        score[united] = np.bincount(owner, weights=area * instances.score[mine]) / total
        for c in range(prob.shape[1]):
            prob[united, c] = np.bincount(owner, weights=area * instances.class_prob[mine, c]) / total
        index[united] = prob[united].argmax(axis=1)
        np.bitwise_or.at(cut, united[owner], instances.cut[mine] & ~open_sides[mine])
    result = replace(
        result,
        geometry=geometry,
        score=score,
        class_prob=prob,
        class_index=index,
        cut=cut,
        members=np.minimum(members, np.iinfo(np.int16).max).astype(np.int16),
    )
    return result.take(np.argsort(leader, kind="stable"))


def unite(geometry: npt.NDArray[np.object_], owner: Index) -> npt.NDArray[np.object_]:
    """Union of the geometries of each owner (ascending), without the collinear vertices that seams leave behind."""
    collections = shapely.geometrycollections(geometry, indices=owner)
    united = shapely.union_all(np.asarray(collections, dtype=object)[:, None], axis=1)
    return np.asarray(shapely.simplify(united, 0), dtype=object)


def _centrality(instances: Instances, open_sides: npt.NDArray[np.uint8], tiling: Tiling) -> npt.NDArray[np.float64]:
    """Least distance of each bounding box to an open border of its tile, working px; inf when no border is open."""
    boxes = shapely.bounds(instances.geometry).reshape(-1, 4)
    x0 = instances.tile_col.astype(float) * tiling.stride
    y0 = instances.tile_row.astype(float) * tiling.stride
    distance = np.column_stack(
        [boxes[:, 0] - x0, boxes[:, 1] - y0, x0 + tiling.tile - boxes[:, 2], y0 + tiling.tile - boxes[:, 3]]
    )
    closed = (open_sides[:, None] & np.array([LEFT, TOP, RIGHT, BOTTOM], np.uint8)) == 0
    distance[closed] = np.inf
    return np.asarray(distance.min(axis=1, initial=np.inf), dtype=np.float64)
