"""Simplified outlines stay near what was drawn, valid and whole."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gigaseg.instances.polygons import polygons_from_labels
from gigaseg.instances.simplified import simplify


def blobs(seed, side=120):
    """Outlines along pixel edges, with holes; some neighbours touch."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 2.5)
    labels, _ = ndimage.label(noise > 0.03)
    labels[:, side // 2 :] += 1000 * (labels[:, side // 2 :] > 0)  # cut in two, so that halves touch
    _, labels = np.unique(labels, return_inverse=True)
    return np.array(polygons_from_labels(labels.reshape(side, side).astype(np.int32))[1], object)


def rings(geometry):
    return [len(shapely.get_rings(shape)) for shape in geometry]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.8, 1.0, 2.0, 4.0, 12.0]))
def test_outlines_lie_within_the_tolerance_are_valid_and_lose_no_hole(seed, tolerance):
    drawn = blobs(seed)
    found = simplify(drawn, tolerance)
    border, was = shapely.boundary(found), shapely.boundary(drawn)
    assert (shapely.hausdorff_distance(border, was, densify=0.1) <= tolerance * 1.0001).all()
    assert shapely.is_valid(found).all()
    assert rings(found) == rings(drawn)
    assert (shapely.get_num_coordinates(found) <= shapely.get_num_coordinates(drawn)).all()
    if tolerance >= 1:
        assert shapely.get_num_coordinates(found).sum() < 0.5 * shapely.get_num_coordinates(drawn).sum()


def test_parts_are_kept_and_what_has_no_corner_to_lose_is_the_same_object():
    parts = shapely.MultiPolygon([shapely.Point(0, 0).buffer(9), shapely.Point(30, 0).buffer(0.2)])
    square = shapely.box(0, 0, 5, 5)
    found = simplify(np.array([parts, square], object), 1.0)
    assert len(found[0].geoms) == 2
    assert found[0].is_valid
    assert shapely.get_num_coordinates(found[0]) < 40
    assert found[1] is square
    assert found[0].hausdorff_distance(parts) <= 1.0


@pytest.mark.parametrize("n", [0, 1])
def test_few_or_none(n):
    assert len(simplify(np.array([shapely.box(0, 0, 1, 1)] * n, object), 1.0)) == n
