"""Points from a probability map, on maps whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gigaseg.segmenters.sac.points import NEGATIVE, PADDING, POSITIVE, select_points

DISCS = ((40, 30, 12), (90, 80, 9), (25, 100, 6))
"""x, y and radius, px, by descending area; the first one is on the middle of a pixel's corner."""


def painted(discs=DISCS, shape=(128, 120), value=0.95, ground=0.05):
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    found = np.full(shape, ground, np.float32)
    for cx, cy, radius in discs:
        found[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = value
    return found


def of(points, label):
    return points.xy[points.labels == label]


def test_centroids_are_those_of_the_discs_the_largest_first():
    found = of(select_points(painted(), 3), POSITIVE)
    assert np.abs(found - np.array([(x, y) for x, y, _ in DISCS])).max() <= 0.5


def test_of_many_regions_those_of_the_largest_sum_are_taken():
    assert of(select_points(painted(), 1), POSITIVE) == pytest.approx(np.array([[40, 30]]), abs=0.5)
    faint = painted()
    faint[:70] = np.where(faint[:70] > 0.5, 0.51, faint[:70])  # the largest disc: 452 px of 0.51 against 254 of 0.95
    faint[80, 90] = 1.0
    assert of(select_points(faint, 1), POSITIVE) == pytest.approx(np.array([[90, 80]]), abs=0.5)


def test_equal_regions_come_in_the_order_of_y_then_x():
    found = of(select_points(painted(((90, 20, 8), (30, 90, 8), (30, 20, 8))), 3), POSITIVE)
    assert found == pytest.approx(np.array([[30, 20], [90, 20], [30, 90]]), abs=0.5)


@pytest.mark.parametrize("rule", ["centroid", "random"])
def test_points_lie_on_their_side_and_are_different(rule):
    probability = painted()
    points = select_points(probability, 40, rule)
    assert points.labels.tolist() == [POSITIVE] * 40 + [NEGATIVE] * 40
    for label, inside in ((POSITIVE, True), (NEGATIVE, False)):
        x, y = of(points, label).astype(int).T
        assert ((probability[y, x] >= 0.5) == inside).all()
        assert len(set(zip(x.tolist(), y.tolist()))) == 40


def test_a_ring_has_its_point_inside_itself():
    y, x = np.mgrid[:64, :64] + 0.5
    radius = np.hypot(x - 32, y - 32)
    ring = np.where((radius > 12) & (radius < 20), 1.0, 0.0).astype(np.float32)
    ((col, row),) = of(select_points(ring, 1), POSITIVE).astype(int)
    assert ring[row, col] == 1
    assert abs(np.hypot(col + 0.5 - 32, row + 0.5 - 32) - 16) < 1.5  # its innermost pixel


def test_the_first_negative_point_is_far_from_all_objects_and_the_next_one_far_from_it():
    probability = painted(((64, 64, 30),), shape=(128, 128))
    first, second = of(select_points(probability, 2), NEGATIVE)
    assert np.hypot(*(first - 64)) > 50  # the centroid of the background is the middle of the disc
    assert np.hypot(*(first - second)) > 90


def test_small_regions_give_no_centroid_but_pixels_that_fill_up():
    speck = np.zeros((64, 64), np.float32)
    speck[10:13, 10:13] = 1  # 9 px
    speck[40:44, 40:44] = 1  # 16 px
    found = of(select_points(speck, 2), POSITIVE)
    assert found[0] == pytest.approx([42.5, 42.5])
    assert speck[tuple(found[1].astype(int)[::-1])] == 1
    assert (found[1] != found[0]).any()


def test_a_sign_without_enough_pixels_is_padded():
    few = np.zeros((32, 32), np.float32)
    few[4:8, 4:8] = 1
    points = select_points(few, 20)
    assert (points.labels == POSITIVE).sum() == 16
    assert (points.labels == PADDING).sum() == 4
    assert (points.xy[points.labels == PADDING] == 0).all()


@pytest.mark.parametrize("rule", ["centroid", "random"])
@pytest.mark.parametrize(("value", "missing"), [(0.0, POSITIVE), (1.0, NEGATIVE)], ids=["zeros", "ones"])
def test_an_empty_or_full_map_lacks_one_sign(rule, value, missing):
    points = select_points(np.full((32, 32), value, np.float32), 3, rule)
    assert len(points.labels) == 6
    assert (points.labels == PADDING).sum() == 3
    assert missing not in points.labels


def test_random_points_are_sure_ones_as_long_as_there_are_enough():
    probability = painted(value=0.6)
    probability[10:14, 50:60] = 0.95
    sure = select_points(probability, 40, "random")
    x, y = of(sure, POSITIVE).astype(int).T
    assert (probability[y, x] >= 0.9).all()
    more = select_points(probability, 41, "random")
    x, y = of(more, POSITIVE).astype(int).T
    assert (probability[y, x] == np.float32(0.6)).any()


@pytest.mark.parametrize("rule", ["centroid", "random"])
def test_the_same_map_gives_the_same_points_and_training_draws_others(rule):
    probability = painted()
    one, two = select_points(probability, 8, rule), select_points(probability, 8, rule)
    assert (one.xy == two.xy).all()
    drawn = [select_points(probability, 8, rule, rng=np.random.default_rng(seed)).xy for seed in (1, 1, 2)]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()


def test_no_pairs_are_no_points():
    points = select_points(painted(), 0)
    assert points.xy.shape == (0, 2)
    assert points.labels.shape == (0,)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (17, 23), elements=st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.95, 1.0])),
    st.integers(1, 30),
    st.sampled_from(["centroid", "random"]),
    st.sampled_from([None, 0, 1]),
)
def test_any_map_gives_twice_the_pairs_each_on_its_side(probability, pairs, rule, seed):
    points = select_points(probability, pairs, rule, rng=None if seed is None else np.random.default_rng(seed))
    assert points.xy.shape == (2 * pairs, 2)
    assert set(points.labels[:pairs].tolist()) <= {POSITIVE, PADDING}
    assert set(points.labels[pairs:].tolist()) <= {NEGATIVE, PADDING}
    for label in (POSITIVE, NEGATIVE):
        x, y = of(points, label).astype(int).T
        own = probability[y, x] if label == POSITIVE else 1 - probability[y, x]
        assert (own >= 0.5).all() if rule == "random" else ((probability[y, x] >= 0.5) == (label == POSITIVE)).all()
    enough = (probability >= 0.5).sum() >= pairs
    assert (points.labels[:pairs] == POSITIVE).all() == enough
