"""Outlines follow pixel edges exactly and are valid."""

import hashlib
import time

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import rasterize, shapes
from scipy.ndimage import find_objects

from gigaseg.instances.polygons import polygons_from_labels, polygons_from_masks
from gigaseg.testing.labels import LABEL_KINDS, label_image

small_labels = st.integers(1, 4).flatmap(
    lambda high: arrays(
        np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, high).map(lambda v: v * 7)
    )
)

KNOWN = [
    ((40, 30), 1, 0.6, "2a3de9844514c7a1"),
    ((40, 30), 3, 0.7, "30159c9e70f54212"),
    ((33, 47), 4, 1.0, "d19927ef5fcb5255"),
    ((60, 50), 5, 0.1, "fbc4b9ca8d09799f"),
    ((64, 64), 1, 0.93, "01eb2f4dab001b59"),
]
"""Shape, labels and share of foreground of noise, and the digest of its outlines as they were first stored."""


def check(labels):
    ids, geometry = polygons_from_labels(labels)
    assert ids.tolist() == [i for i in np.unique(labels) if i]
    assert shapely.is_valid(geometry).all()
    for i, polygon in zip(ids, geometry):
        assert np.array_equal(rasterize([polygon], out_shape=labels.shape).astype(bool), labels == i)
        assert polygon.area == (labels == i).sum()
        for ring in shapely.get_rings(polygon):
            check_ring(shapely.get_coordinates(ring))


def check_ring(coordinates):
    """Integer corners, turns by a right angle at each, starts at the first edge that has the part below."""
    assert np.array_equal(coordinates, coordinates.astype(int))
    steps = np.diff(coordinates, axis=0)
    assert ((steps != 0).sum(axis=1) == 1).all()
    assert ((steps[:, 0] != 0) != np.roll(steps[:, 0] != 0, 1)).all()
    rightward = coordinates[:-1][steps[:, 0] > 0]
    assert coordinates[0].tolist() == min(rightward.tolist(), key=lambda xy: (xy[1], xy[0]))
    assert steps[0, 0] > 0


@settings(max_examples=200, deadline=None)
@given(small_labels)
def test_outlines_of_random_labels_give_back_the_pixels(labels):
    check(labels)


@settings(max_examples=200, deadline=None)
@given(arrays(np.int32, st.tuples(st.integers(1, 16), st.integers(1, 16)), elements=st.integers(0, 1)), st.booleans())
def test_outlines_of_one_label_in_many_parts_give_back_the_pixels(labels, inverted):
    check(np.pad(1 - labels if inverted else labels, 1, constant_values=int(inverted)))


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


def test_of_parts_within_holes_each_has_its_own_holes():
    labels = np.zeros((13, 15), int)
    for depth in range(0, 6, 2):  # rings within rings, the innermost with two holes
        labels[depth : 13 - depth, depth : 15 - depth] = 3
        labels[depth + 1 : 12 - depth, depth + 1 : 14 - depth] = 0
    labels[5:8, 5:10] = 3
    labels[6, [6, 8]] = 0
    check(labels)
    _, (nested,) = polygons_from_labels(labels)
    assert [len(part.interiors) for part in nested.geoms] == [1, 1, 2]
    assert [part.bounds[0] for part in nested.geoms] == [0, 2, 4]


def test_parts_that_touch_from_inside_a_hole_stay_apart():
    labels = np.ones((5, 5), int)
    labels[1:4, 1:4] = [[0, 0, 0], [0, 1, 0], [0, 0, 1]]
    labels[3, 2] = labels[2, 3] = 0
    check(labels)
    _, (geometry,) = polygons_from_labels(labels)
    assert [part.area for part in geometry.geoms] == [17, 1]


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (bool, [1]),
        (np.uint8, [1, 255]),
        (np.uint16, [1, 65535]),
        (np.int32, [65535, 65536]),
        (np.int32, [-5, 4]),
        (np.uint64, [1, 2**40]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_labels_of_any_type_and_size_are_kept_apart(dtype, values):
    noise = np.random.default_rng(1).integers(0, len(values) + 1, (9, 14))
    labels = np.array([0, *values])[noise].astype(dtype)
    ids, geometry = polygons_from_labels(labels)
    expected = [int(value) for value in np.unique(labels) if value]
    assert (ids.dtype, ids.tolist()) == (np.int64, expected)
    assert [polygon.area for polygon in geometry] == [(labels == dtype(i)).sum() for i in expected]


def test_a_view_of_an_image_gives_the_outlines_of_its_copy():
    view = label_image("crowd", (60, 80), 1)[::2, 5:70:3].T
    assert shapely.equals_exact(polygons_from_labels(view)[1], polygons_from_labels(view.copy())[1]).all()


def test_an_origin_moves_the_outlines():
    labels = label_image("nuclei", (50, 70), 2)
    ids, here = polygons_from_labels(labels)
    moved_ids, there = polygons_from_labels(labels, (100_000, -7))
    moved = shapely.transform(here, lambda xy: xy + (100_000, -7))
    assert np.array_equal(ids, moved_ids)
    assert shapely.equals_exact(there, moved).all()


@pytest.mark.parametrize(
    ("shape", "labels", "share", "digest"),
    KNOWN,
    ids=["one label", "three labels", "no background", "specks", "nearly full"],
)
def test_rings_and_corners_come_in_the_order_that_stored_results_have(shape, labels, share, digest):
    random = np.random.default_rng(0)
    image = random.integers(1, labels + 1, shape) * (random.random(shape) < share)
    found = hashlib.sha256(b"".join(shapely.to_wkb(polygons_from_labels(image)[1], byte_order=1)))
    assert found.hexdigest()[:16] == digest


def test_outlines_of_a_tile_take_less_time_than_those_of_gdal():
    labels = label_image("nuclei", (512, 512), 0).astype(np.int32)

    def least(call):
        times = []
        for _ in range(3):
            begin = time.process_time()
            call()
            times.append(time.process_time() - begin)
        return min(times)

    ours = least(lambda: polygons_from_labels(labels))
    assert ours < least(lambda: list(shapes(labels, mask=labels > 0, connectivity=4)))


@pytest.mark.parametrize("shape", [(4, 4), (0, 5), (5, 0), (1, 1)], ids=str)
def test_a_background_image_has_no_outlines(shape):
    ids, geometry = polygons_from_labels(np.zeros(shape, int))
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
