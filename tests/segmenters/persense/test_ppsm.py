"""PPSM: which points stay."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigaseg.segmenters.persense.ppsm import MOST, least_share, select_points

POINTS = np.array([[10.5, 10.5], [30.5, 10.5], [50.5, 10.5]])


def level(value, shape=(40, 60)):
    return np.full(shape, value, np.float32)


@pytest.mark.parametrize(
    ("count", "share"),
    [(0, math.inf), (0.5, 2.83), (2, 0.707), (3, 0.471), (5, 0.283), (10, 0.141), (39, 0.036), (100, 0.014)],
)
def test_the_published_thresholds(count, share):
    for rule in ("code", "paper"):
        assert least_share(count, rule) == pytest.approx(share, abs=0.005)


def test_a_single_object():
    assert least_share(1, "code") == 0.5
    assert least_share(1, "paper") == pytest.approx(1.414, abs=0.001)
    assert least_share(1) == 0.5


@given(st.floats(0.5, 1e6))
def test_clamped_no_count_rejects_everything(count):
    assert 0 < least_share(count) <= MOST


@given(st.floats(0, 0.49))
def test_clamped_less_than_half_an_object_is_none(count):
    assert not select_points(POINTS, level(1), 1.0, count).any()


@given(st.floats(2, 1000), st.floats(0.01, 1))
def test_where_all_is_equally_similar_all_points_pass(count, value):
    boxes = np.array([[0, 0, 60, 40]], np.float32)
    for rule in ("clamped", "code"):
        assert select_points(POINTS, level(value), float(np.float32(value)), count, boxes, rule).all()


def test_a_point_on_the_threshold_passes_but_in_the_paper():
    similarity = level(0.5)
    assert select_points(POINTS, similarity, 1.0, 1.0, rule="code").all()
    assert not select_points(POINTS, similarity, 0.5 * 2 / math.sqrt(2), 2.0, rule="paper").any()


def test_where_nothing_is_similar_nothing_passes():
    assert not select_points(POINTS, level(-0.2), -0.2, 30.0).any()


def test_a_point_in_two_boxes_stays_once_and_one_on_an_edge_stays():
    boxes = np.array([[0, 0, 20, 20], [5, 5, 30.5, 30]], np.float32)
    kept = select_points(POINTS, level(1), 1.0, 10.0, boxes)
    assert kept.tolist() == [True, True, False]


def test_no_box_holds_no_point_and_no_detector_holds_all():
    assert not select_points(POINTS, level(1), 1.0, 10.0, np.empty((0, 4), np.float32)).any()
    assert select_points(POINTS, level(1), 1.0, 10.0, None).all()


def test_similarity_is_read_where_the_point_is():
    similarity = level(0.0)
    similarity[10, 30] = 1.0
    assert select_points(POINTS, similarity, 1.0, 3.0).tolist() == [False, True, False]
