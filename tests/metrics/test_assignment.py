from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from gigaseg.metrics import assignment
from gigaseg.metrics.assignment import greedy_assignment, maximum_assignment


def _pairs(seed: int, density: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    matrix = generator.random((30, 25)) * (generator.random((30, 25)) < density)
    row, col = np.nonzero(matrix)
    return matrix, row, col, matrix[row, col]


@pytest.mark.parametrize("density", [0.02, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_sparse_assignment_weighs_as_much_as_the_dense_hungarian(seed, density):
    matrix, row, col, weight = _pairs(seed, density)
    chosen = maximum_assignment(row, col, weight)
    assert len(set(row[chosen])) == len(set(col[chosen])) == chosen.sum()
    assert weight[chosen].sum() == pytest.approx(matrix[linear_sum_assignment(matrix, maximize=True)].sum(), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_large_components_solved_sparsely_weigh_the_same(seed, monkeypatch):
    _, row, col, weight = _pairs(seed, 0.3)
    dense = weight[maximum_assignment(row, col, weight)].sum()
    monkeypatch.setattr(assignment, "_MAX_DENSE", 0)
    assert weight[maximum_assignment(row, col, weight)].sum() == pytest.approx(dense, abs=1e-12)


def test_two_light_pairs_beat_one_heavy_pair():
    chosen = maximum_assignment(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.51, 0.3, 0.3]))
    assert chosen.tolist() == [False, True, True]


def test_equal_weights_still_use_every_row_and_column_once():
    row, col = np.divmod(np.arange(36), 6)
    chosen = maximum_assignment(row, col, np.full(36, 0.25))
    assert sorted(row[chosen]) == sorted(col[chosen]) == list(range(6))


def test_greedy_takes_pairs_in_order_while_both_members_are_free():
    chosen = greedy_assignment(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0, 1, 2]))
    assert chosen.tolist() == [True, False, False]


def test_no_pairs_give_no_assignment():
    none = np.empty(0, np.int64)
    assert maximum_assignment(none, none, np.empty(0)).tolist() == []
