"""IDM: from a density map to points. Known answers are those of OpenCV on maps whose objects are known."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigaseg.segmenters.persense.correlation import scattered
from gigaseg.segmenters.persense.idm import detect_points, grey_levels

GRID = np.array([(30.5 + 60 * i, 40.5 + 60 * j) for j in range(3) for i in range(5)])


def gaussians(xy, shape=(200, 300), sigma=4.0):
    return scattered(np.asarray(xy, float), shape, sigma)


def binary(shape, *squares):
    grey = np.zeros(shape, np.uint8)
    for x, y, w, h in squares:
        grey[y : y + h, x : x + w] = 255
    return grey


def areas_of(bound, areas):
    return bound == pytest.approx(np.mean(areas) + 2 * np.std(areas))


def ordered(xy):
    return xy[np.lexsort(xy.T)]


def test_fifteen_gaussians_give_fifteen_points_at_their_middles():
    density = gaussians(GRID)
    assert density.sum() == pytest.approx(15, abs=1e-3)
    found = detect_points(grey_levels(density))
    assert ordered(found.xy) == pytest.approx(ordered(GRID))
    assert found.bound == 130  # all contours alike: area 130, deviation 0


@pytest.mark.parametrize(("distance", "points"), [(8, 11), (12, 11), (16, 11), (18, 12), (20, 12)])
def test_a_pair_is_split_from_a_distance_on(distance, points):
    alone = [(30.5 + 60 * i, 40.5 + 60 * j) for j in range(2) for i in range(5)]
    pair = [(150.5 - distance / 2, 160.5), (150.5 + distance / 2, 160.5)]
    grey = grey_levels(gaussians([*alone, *pair]))
    ours, published = detect_points(grey), detect_points(grey, keep_parents=True)
    assert len(ours.xy) == points
    # published: all contours and the parts of each unusual one; at 20 px the two are apart, and each is "unusual"
    assert len(published.xy) == {18: 13, 20: 14}.get(distance, 12)
    if distance < 18:
        assert (np.abs(ours.xy - (150.5, 160.5)).max(1) < 0.5).any()


def test_no_contour_of_five_is_unusual_and_one_of_six_is():
    three = binary((60, 400), *[(20 + 60 * i, 20, 12, 12) for i in range(3)], (220, 5, 100, 50))
    assert len(detect_points(three, keep_parents=True).xy) == 4
    five = binary((60, 500), *[(20 + 50 * i, 20, 12, 12) for i in range(5)], (300, 5, 100, 50))
    assert len(detect_points(five, keep_parents=True).xy) == 7  # six contours, and the only part of the large one
    assert len(detect_points(five).xy) == 6


@pytest.mark.parametrize(("distance", "parts"), [(34, 1), (36, 2)])
def test_discs_are_split_when_their_neck_is_narrow(distance, parts):
    y, x = np.mgrid[:80, :200]
    discs = (np.hypot(x - 60, y - 40) <= 20) | (np.hypot(x - 60 - distance, y - 40) <= 20)
    found = detect_points((255 * discs).astype(np.uint8), bound=1)
    assert len(found.xy) == parts


def test_discs_cut_by_the_border_are_split_as_whole_ones_are():
    y, x = np.mgrid[:80, :200]
    discs = (np.hypot(x - 60, y - 0.5) <= 20) | (np.hypot(x - 96, y - 0.5) <= 20)  # halves
    found = detect_points((255 * discs).astype(np.uint8), bound=1)
    assert len(found.xy) == 2


def test_a_gaussian_is_kept_up_to_two_deviations():
    sigma = 20.0
    y, x = np.mgrid[:201, :201]
    grey = grey_levels(np.exp(-((x - 100) ** 2 + (y - 100) ** 2) / 2 / sigma**2).astype(np.float32), 0.0, 1.0)
    radius = sigma * np.sqrt(2 * np.log(255 / 31))
    assert np.flatnonzero(grey[100] > 30).max() - 100 == int(radius)
    assert radius == pytest.approx(2.05 * sigma, rel=0.01)


def test_a_small_square_keeps_its_true_centre():
    found = detect_points(binary((40, 60), (20, 10, 3, 3)))
    assert found.xy.tolist() == [[21.5, 11.5]]  # a contour of one pixel, whose polygon has no area


def test_a_line_keeps_its_middle():
    found = detect_points(binary((40, 60), (20, 10, 9, 3)))
    assert found.xy.tolist() == [[24.5, 11.5]]


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_a_constant_map_has_no_points(value):
    grey = grey_levels(np.full((50, 50), value, np.float32))
    found = detect_points(grey)
    assert len(found.xy) == 0
    assert np.isnan(found.bound)


def test_a_threshold_is_exceeded_not_reached():
    grey = np.full((9, 9), 30, np.uint8)
    assert len(detect_points(grey, threshold=30).xy) == 0
    assert len(detect_points(grey, threshold=29).xy) == 1


def test_objects_at_the_border_are_not_eroded_from_outside():
    assert detect_points(binary((40, 60), (0, 0, 4, 4))).xy.tolist() == [[1.5, 1.5]]


def test_levels_of_a_slide_leave_an_empty_tile_empty():
    noise = np.random.default_rng(0).random((64, 64)).astype(np.float32) * 1e-4
    assert len(detect_points(grey_levels(noise)).xy) > 5  # as published: its own noise becomes objects
    assert len(detect_points(grey_levels(noise, 0.0, 0.01)).xy) == 0


@given(st.integers(0, 3), st.integers(0, 3), st.integers(2, 6))
def test_points_move_with_the_map(dx, dy, n):
    xy = np.array([(40.5 + 40 * i, 50.5 + 30 * j) for i, j in itertools.product(range(n), range(2))])
    still = ordered(detect_points(grey_levels(gaussians(xy, (160, 320)))).xy)
    moved = ordered(detect_points(grey_levels(gaussians(xy + (dx, dy), (160, 320)))).xy)
    assert moved == pytest.approx(still + (dx, dy))
