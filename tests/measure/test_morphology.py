"""Shape measurements have their analytic values."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import disk
from skimage.measure import regionprops

from gigaseg.instances.polygons import polygons_from_labels
from gigaseg.measure.morphology import morphology


def one(geometry, step=None):
    return {name: float(values[0]) for name, values in morphology(np.array([geometry], dtype=object), step).items()}


def ellipse(a, b, degrees, x=0.0, y=0.0, n=2000):
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    xy = np.column_stack([a * np.cos(t), b * np.sin(t)])
    turn = np.radians(degrees)
    return shapely.Polygon(xy @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]] + (x, y))


@pytest.mark.parametrize("degrees", [-60, 0, 30, 89])
def test_an_ellipse_has_its_own_axes_eccentricity_and_orientation(degrees):
    found = one(ellipse(10, 6, degrees, 1e5, 2e5))
    assert found["area"] == pytest.approx(np.pi * 60, rel=1e-4)
    assert found["major_axis"] == pytest.approx(20, rel=1e-4)
    assert found["minor_axis"] == pytest.approx(12, rel=1e-4)
    assert found["eccentricity"] == pytest.approx(0.8, rel=1e-4)
    assert found["orientation"] == pytest.approx(degrees, abs=0.01)
    assert found["solidity"] == pytest.approx(1)


def test_a_rectangle_with_a_courtyard_loses_its_hole():
    found = one(shapely.box(0, 0, 40, 30).difference(shapely.box(10, 10, 20, 20)))
    assert found["area"] == 1100
    assert found["perimeter"] == 140 + 40
    assert found["solidity"] == pytest.approx(1100 / 1200)
    assert found["equivalent_diameter"] == pytest.approx(np.sqrt(4400 / np.pi))


def test_a_circle_has_no_eccentricity_and_orientation_zero():
    found = one(ellipse(5, 5, 0))
    assert found["eccentricity"] == pytest.approx(0, abs=1e-3)
    assert found["orientation"] == 0


def test_parts_of_a_multipolygon_count_together():
    found = one(shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(8, 0, 10, 2)]))
    assert found["area"] == 8
    assert found["orientation"] == 0
    assert found["major_axis"] == pytest.approx(4 * np.sqrt(1 / 3 + 16))


@settings(max_examples=30, deadline=None)
@given(st.floats(8, 40), st.floats(0, 1), st.floats(0, 1))
def test_the_perimeter_of_a_pixel_disc_is_that_of_the_circle_within_12_percent(radius, dy, dx):
    labels = np.zeros((100, 100), int)
    labels[disk((50 + dy, 50 + dx), radius)] = 1
    _, geometry = polygons_from_labels(labels)
    found = one(geometry[0], step=(1, 1))
    circle = np.sqrt(4 * np.pi * found["area"])
    assert circle < found["perimeter"] < 1.12 * circle
    assert shapely.length(geometry[0]) > 1.2 * circle, "the staircase itself is far too long"


def test_moments_agree_with_those_of_pixels():
    labels = np.zeros((60, 60), int)
    labels[disk((25, 30), 12)] = 1
    labels[20:50, 28:33] = 1
    _, geometry = polygons_from_labels(labels)
    found, pixels = one(geometry[0]), regionprops(labels)[0]
    assert found["area"] == pixels.area
    # scikit-image takes pixels as points; each square adds the variance of a unit interval, 1 / 12
    for ours, theirs in (("major_axis", "axis_major_length"), ("minor_axis", "axis_minor_length")):
        assert found[ours] ** 2 == pytest.approx(pixels[theirs] ** 2 + 16 / 12, rel=1e-6)
    assert abs(found["orientation"]) == pytest.approx(90 - abs(np.degrees(pixels.orientation)), abs=1e-6)


def test_no_instances_give_empty_columns():
    assert all(len(values) == 0 for values in morphology(np.empty(0, object), (1, 1)).values())
