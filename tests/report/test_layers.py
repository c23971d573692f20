import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from gigaseg.report.layers import density, draw_density, draw_instances, draw_lines, mask_outlines, rings

RED = (255, 0, 0)


def white(height=40, width=60):
    return np.full((height, width, 3), 255, np.uint8)


def test_rings_come_by_instance_with_holes_and_parts_in_picture_pixels():
    hollow = shapely.Polygon([(0, 0), (20, 0), (20, 20), (0, 20)], [[(5, 5), (10, 5), (10, 10)]])
    pair = shapely.MultiPolygon([shapely.box(0, 0, 2, 4), shapely.box(6, 0, 8, 4)])
    found = rings(np.array([hollow, pair]), (2.0, 4.0))
    assert [len(parts) for parts in found] == [2, 2]
    assert found[0][0].max(axis=0).tolist() == [10, 5]
    assert found[1][1].min(axis=0).tolist() == [3, 0]


def test_no_instances_have_no_rings():
    assert rings(np.empty(0, object), (1.0, 1.0)) == []


def test_filled_instance_covers_its_pixels_and_leaves_its_hole():
    picture = white()
    frame = shapely.Polygon([(10, 5), (50, 5), (50, 35), (10, 35)], [[(20, 15), (40, 15), (40, 25), (20, 25)]])
    draw_instances(picture, rings(np.array([frame]), (1.0, 1.0)), RED, outlined=False)
    covered = picture[..., 1] < 128
    assert covered[10, 15]
    assert not covered[20, 30]
    # a border pixel is half covered by an antialiased edge
    assert covered.sum() == pytest.approx(frame.area, abs=frame.length)
    ys, xs = np.nonzero(covered)
    # OpenCV counts both borders of a filled polygon as inside: up to half a pixel too much
    assert (xs.mean(), ys.mean()) == pytest.approx((29.5, 19.5), abs=0.6)


def test_overlapping_instances_do_not_cancel():
    picture = white()
    pair = shapely.box(np.array([5, 15]), 5, np.array([30, 45]), 35)
    draw_instances(picture, rings(pair, (1.0, 1.0)), RED, outlined=False)
    assert (picture[10:30, 10:40, 1] < 128).all()


def test_line_is_drawn_where_it_lies():
    picture = white()
    draw_lines(picture, [np.array([[10.5, 5.5], [50.5, 5.5], [50.5, 30.5], [10.5, 30.5]])], RED, 1, 1.0)
    drawn = picture[..., 1] < 128
    assert drawn[5, 10:51].all()
    assert drawn[5:31, 10].all()
    assert not drawn[6:30, 11:50].any()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_density_keeps_the_number_of_instances_that_lie_inside(n, seed):
    random = np.random.default_rng(seed)
    x, y = random.uniform(20, 100, n), random.uniform(20, 60, n)
    assert density(x, y, (80, 120)).sum() == pytest.approx(n, rel=1e-4)


def test_density_is_highest_where_the_instances_are_and_counts_those_on_the_far_border():
    values = density(np.array([100.0] * 5 + [120.0]), np.array([40.0] * 5 + [80.0]), (80, 120))
    assert np.unravel_index(values.argmax(), values.shape) == (40, 100)
    assert values[-1, -1] > 0


def test_density_shows_the_slide_where_there_is_nothing():
    picture = white()
    values = np.zeros((40, 60), np.float32)
    values[:, 30:] = 2.0
    draw_density(picture, values, 1.0)
    assert (picture[:, :30] == 255).all()
    assert (picture[:, 30:] < 255).any(axis=2).all()


def test_outline_of_a_mask_lies_on_its_border_in_picture_pixels():
    mask = np.zeros((11, 22), bool)
    mask[3:8, 5:15] = True
    [outline] = mask_outlines(mask, (4.0, 3.0), (33, 88))
    assert outline.min(axis=0) == pytest.approx([20, 9], abs=1)
    assert outline.max(axis=0) == pytest.approx([60, 24], abs=1)


def test_hole_of_a_mask_has_its_own_outline():
    mask = np.ones((20, 20), bool)
    mask[8:12, 8:12] = False
    assert len(mask_outlines(mask, (3.0, 3.0), (60, 60))) == 2
