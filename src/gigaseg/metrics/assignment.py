"""One-to-one matching on a sparse list of candidate pairs."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from gigaseg.metrics.overlap import BoolArray, FloatArray, IntArray

_MAX_DENSE = 4_000_000
"""Entries of the largest cost matrix that is solved as a dense one (32 MB)."""


def maximum_assignment(row: IntArray, col: IntArray, weight: FloatArray) -> BoolArray:
    """Choose pairs so that no row and no column occurs twice and the summed weight is the highest possible.

    The result is that of the Hungarian algorithm on the dense matrix (zero where there is no pair), at a cost
    that is close to linear in the pairs: a pair that weighs at least as much as the best other pair of its
    row and the best other pair of its column together belongs to some optimum (replacing these two by it
    loses nothing), so it is fixed and its row and column leave; what remains falls into connected components,
    each solved exactly.

    Parameters
    ----------
    row, col : (k,) int64 >= 0, no pair twice.
    weight : (k,) float64 > 0.

    Returns
    -------
    (k,) bool, the chosen pairs.
    """
    chosen = np.zeros(len(row), dtype=bool)
    alive = np.arange(len(row))
    while len(alive):
        r, c, w = row[alive], col[alive], weight[alive]
        best_r, other_r = _best_and_other(r, w)
        best_c, other_c = _best_and_other(c, w)
        sure = best_r & best_c & (w >= other_r + other_c)
        if not sure.any():
            break
        chosen[alive[sure]] = True
        alive = alive[~(np.isin(r, r[sure]) | np.isin(c, c[sure]))]
    if len(alive):
        _solve_components(row, col, weight, alive, chosen)
    return chosen


def greedy_assignment(first: IntArray, second: IntArray, order: IntArray) -> BoolArray:
    """Walk the pairs in `order` and keep each whose two members are still free.

    Parameters
    ----------
    first, second : (k,) int64, the members of each pair.
    order : (k,) int64, positions of the pairs, the most preferred first.

    Returns
    -------
    (k,) bool, the pairs kept.
    """
    chosen = np.zeros(len(first), dtype=bool)
    taken_first: set[int] = set()
    taken_second: set[int] = set()
    for pair, a, b in zip(order.tolist(), first[order].tolist(), second[order].tolist()):
        if a not in taken_first and b not in taken_second:
            taken_first.add(a)
            taken_second.add(b)
            chosen[pair] = True
    return chosen


def _best_and_other(group: IntArray, weight: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Is each entry the best of its group (one a group), and the best weight among the group's other entries."""
    order = np.lexsort((-weight, group))
    g, w = group[order], weight[order]
    starts = np.flatnonzero(np.diff(g, prepend=-1))
    size = np.diff(starts, append=len(g))
    second = np.where(size > 1, w[np.minimum(starts + 1, len(w) - 1)], 0.0)
    other = np.repeat(w[starts], size)
    other[starts] = second
    best = np.zeros(len(g), dtype=bool)
    best[order[starts]] = True
    result = np.empty_like(w)
    result[order] = other
    return best, result


def _solve_components(row: IntArray, col: IntArray, weight: FloatArray, alive: IntArray, chosen: BoolArray) -> None:
    """Solve what is left exactly, one connected component after the other; marks `chosen`."""
    r = np.unique(row[alive], return_inverse=True)[1]
    c = np.unique(col[alive], return_inverse=True)[1]
    rows, cols = int(r.max()) + 1, int(c.max()) + 1
    graph = sparse.coo_array((np.ones(len(r), np.int8), (r, c + rows)), shape=(rows + cols, rows + cols))
    component = connected_components(graph, directed=False)[1][r]
    order = np.argsort(component, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(component[order])) + 1):
        ids_r, i = np.unique(r[part], return_inverse=True)
        ids_c, j = np.unique(c[part], return_inverse=True)
        w = weight[alive[part]]
        if len(ids_r) * len(ids_c) <= _MAX_DENSE:
            matrix = np.zeros((len(ids_r), len(ids_c)))
            matrix[i, j] = w
            target = np.full(len(ids_r), -1)
            solution = linear_sum_assignment(matrix, maximize=True)
            target[solution[0]] = solution[1]
        else:
            target = _solve_sparse(i, j, w, len(ids_r), len(ids_c))
        chosen[alive[part[target[i] == j]]] = True


def _solve_sparse(i: IntArray, j: IntArray, weight: FloatArray, rows: int, cols: int) -> IntArray:
    """Column of each row, by LAPJVsp; every row has a private column for "unmatched", so that a matching exists."""
    ceiling = 2.0 * float(weight.max())
    costs = np.concatenate([ceiling - weight, np.full(rows, ceiling)])
    at = (np.concatenate([i, np.arange(rows)]), np.concatenate([j, cols + np.arange(rows)]))
    graph = sparse.coo_array((costs, at), shape=(rows, cols + rows)).tocsr()
    target: IntArray = min_weight_full_bipartite_matching(graph)[1]
    return target
