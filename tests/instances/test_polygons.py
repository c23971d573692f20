"""Outlines follow pixel edges exactly and are valid."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import rasterize
from scipy.ndimage import find_objects

from gigaseg.instances.polygons import polygons_from_labels, polygons_from_masks
from gigaseg.testing.labels import LABEL_KINDS, label_image

small_labels = st.integers(1, 4).flatmap(
    lambda high: arrays(
        np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, high).map(lambda v: v * 7)
    )
)


def check(labels):
    ids, geometry = polygons_from_labels(labels)
    assert ids.tolist() == [i for i in np.unique(labels) if i]
    assert shapely.is_valid(geometry).all()
    for i, polygon in zip(ids, geometry):
        assert np.array_equal(rasterize([polygon], out_shape=labels.shape).astype(bool), labels == i)
        assert polygon.area == (labels == i).sum()
        coordinates = shapely.get_coordinates(polygon)
        assert np.array_equal(coordinates, coordinates.astype(int))


@settings(max_examples=200, deadline=None)
@given(small_labels)
def test_outlines_of_random_labels_give_back_the_pixels(labels):
    check(labels)


@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_outlines_of_objects_give_back_the_pixels(kind):
    check(label_image(kind, (120, 90), 3))


def test_a_square_has_four_corners_and_lies_on_pixel_edges():
    labels = np.zeros((6, 8), int)
    labels[1:4, 2:7] = 5
    _, geometry = polygons_from_labels(labels)
    assert geometry[0].equals(shapely.box(2, 1, 7, 4))
    assert shapely.get_num_coordinates(geometry[0]) == 5


def test_holes_are_kept_and_an_island_in_a_hole_belongs_to_its_own_label():
    labels = np.ones((5, 5), int)
    labels[1:4, 1:4] = 0
    labels[2, 2] = 2
    _, (ring, island) = polygons_from_labels(labels)
    assert len(ring.interiors) == 1
    assert (ring.area, island.area) == (16, 1)


def test_pixels_that_meet_at_a_corner_are_parts_of_one_multipolygon():
    _, geometry = polygons_from_labels(np.eye(3, dtype=int))
    assert geometry[0].geom_type == "MultiPolygon"
    assert len(geometry[0].geoms) == 3


def test_a_loop_closed_at_a_corner_has_a_hole_that_touches_its_shell():
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]])
    _, geometry = polygons_from_labels(labels)
    assert geometry[0].is_valid
    assert len(geometry[0].interiors) == 1


def test_a_background_image_has_no_outlines():
    ids, geometry = polygons_from_labels(np.zeros((4, 4), int))
    assert len(ids) == len(geometry) == 0


@settings(max_examples=60, deadline=None)
@given(small_labels, st.integers(0, 50))
def test_masks_give_the_outlines_of_their_labels(labels, shift):
    ids, expected = polygons_from_labels(labels)
    boxes = [box for box in find_objects(labels) if box is not None]
    masks = [labels[box] == i for i, box in zip(ids, boxes)]
    origins = np.array([(box[1].start + shift, box[0].start) for box in boxes]).reshape(-1, 2)
    found = polygons_from_masks(masks, origins)
    moved = shapely.transform(expected, lambda xy: xy + (shift, 0))
    assert shapely.equals(found, moved).all()


def test_masks_may_overlap_and_an_empty_mask_gives_an_empty_polygon():
    masks = [np.ones((2, 3), bool), np.zeros((2, 2), bool), np.ones((1, 1), bool)]
    found = polygons_from_masks(masks, np.array([[0, 0], [5, 5], [1, 1]]))
    assert [g.bounds for g in found[[0, 2]]] == [(0, 0, 3, 2), (1, 1, 2, 2)]
    assert found[1].is_empty
