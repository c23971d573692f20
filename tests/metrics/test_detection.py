from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from gigaseg.metrics.detection import (
    ClassCounts,
    Points,
    class_average,
    greedy_counts,
    match_gated,
    match_greedy,
    match_hungarian,
    paired_counts,
)
from gigaseg.metrics.instance import Counts


def _x(*values: float) -> np.ndarray:
    return np.array([(v, 0.0) for v in values]).reshape(-1, 2)


def _as_set(pairs: tuple[np.ndarray, np.ndarray]) -> set[tuple[int, int]]:
    return set(zip(pairs[0].tolist(), pairs[1].tolist()))


def test_class_counts_of_the_published_example():
    counts = ClassCounts(tp=8, fp=1, fn=2, fp_d=3, fn_d=4)
    assert (counts.f1, counts.precision, counts.recall) == (16 / 29, 8 / 13, 0.5)
    assert counts.f1 == pytest.approx(2 * counts.precision * counts.recall / (counts.precision + counts.recall))
    alone = Counts(tp=8, fp=1 + 3, fn=2 + 4)
    assert (alone.precision, alone.recall, alone.f1) == pytest.approx((0.667, 0.571, 0.615), abs=5e-4)


def test_hungarian_gives_up_a_near_pair_for_a_smaller_total():
    assert _as_set(match_hungarian(_x(0, 13), _x(12, 100))) == {(0, 0)}
    assert _as_set(match_gated(_x(0, 13), _x(12, 100))) == {(1, 0)}
    assert _as_set(match_greedy(_x(0, 13), _x(12, 100))) == {(1, 0)}


@pytest.mark.parametrize("match", [match_hungarian, match_gated, match_greedy])
def test_radius_itself_is_accepted_and_more_is_not(match):
    assert len(match(_x(0), _x(12.0), radius=12.0)[0]) == 1
    assert len(match(_x(0), _x(12.01), radius=12.0)[0]) == 0


@pytest.mark.parametrize("seed", range(4))
def test_gated_matching_finds_the_most_pairs_at_the_least_distance(seed):
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    generator = np.random.default_rng(seed)
    truth, prediction = generator.random((40, 2)) * 60, generator.random((35, 2)) * 60
    distance = cdist(truth, prediction)
    cost = np.where(distance <= 6, distance, 1e6)
    t, p = linear_sum_assignment(cost)
    near = cost[t, p] < 1e6
    found = match_gated(truth, prediction, radius=6)
    assert len(found[0]) == near.sum()
    assert distance[found].sum() == pytest.approx(distance[t[near], p[near]].sum(), abs=1e-6)


def test_higher_score_chooses_first():
    truth, prediction = _x(0), _x(1, 5)
    assert _as_set(match_greedy(truth, prediction, np.array([0.2, 0.9]))) == {(0, 1)}
    assert _as_set(match_greedy(truth, prediction, np.array([0.9, 0.2]))) == {(0, 0)}
    assert _as_set(match_greedy(truth, prediction)) == {(0, 0)}


def test_wrong_class_counts_twice_on_each_side_when_paired_and_once_when_apart():
    truth = Points(_x(0, 50, 100), np.array([0, 0, 1]))
    prediction = Points(_x(1, 51, 200), np.array([0, 1, 1]))
    detection, (first, second) = paired_counts(truth, prediction, classes=2)
    assert (detection.tp, detection.fp, detection.fn) == (2, 1, 1)
    assert first == ClassCounts(tp=1, fp=0, fn=1, fp_d=0, fn_d=0)
    assert second == ClassCounts(tp=0, fp=1, fn=0, fp_d=1, fn_d=1)
    assert first.f1 == 0.5
    detection, (first, second) = greedy_counts(truth, prediction, classes=2)
    assert (detection.tp, detection.fp, detection.fn) == (2, 1, 1)
    assert (first.tp, first.fp, first.fn) == (1, 0, 1)
    assert (second.tp, second.fp, second.fn) == (0, 2, 1)


def test_legacy_dummy_turns_empty_sides_into_points_at_the_corner():
    none, corner = Points(_x(), np.empty(0, int)), Points(_x(5), np.array([0]))
    plain, _ = paired_counts(none, none, classes=1)
    assert (plain.tp, plain.fp, plain.fn) == (0, 0, 0)
    legacy, each = paired_counts(none, none, classes=1, legacy_dummy=True)
    assert (legacy.tp, legacy.fp, legacy.fn) == (1, 0, 0)
    assert each == [ClassCounts(0, 0, 0, 0, 0)]
    near, _ = paired_counts(none, corner, legacy_dummy=True)
    assert (near.tp, near.fp, near.fn) == (1, 0, 0)
    far, _ = paired_counts(none, Points(_x(500), np.array([0])), legacy_dummy=True)
    assert (far.tp, far.fp, far.fn) == (0, 1, 1)


def test_order_of_predictions_changes_nothing():
    generator = np.random.default_rng(0)
    truth, prediction = generator.random((30, 2)) * 80, generator.random((30, 2)) * 80
    score, order = generator.random(30), generator.permutation(30)
    for match in (match_hungarian, match_gated):
        t, p = match(truth, prediction[order])
        assert _as_set((t, order[p])) == _as_set(match(truth, prediction))
    t, p = match_greedy(truth, prediction[order], score[order])
    assert _as_set((t, order[p])) == _as_set(match_greedy(truth, prediction, score))


def test_class_average_leaves_undefined_classes_out():
    assert class_average({"a": 0.5, "b": float("nan"), "c": 1.0}) == 0.75
    assert isnan(class_average({"a": float("nan")}))
