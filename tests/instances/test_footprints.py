"""Footprints with known corners, and what must stay as it was drawn."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize
from scipy.ndimage import label
from shapely.affinity import rotate

from gigaseg.instances.footprints import LEAST_IOU, MOST_CHANGE, regularise
from gigaseg.instances.polygons import polygons_from_labels
from stitching import steady

L_SHAPE = shapely.Polygon([(0, 0), (40, 0), (40, 15), (18, 15), (18, 30), (0, 30)])
COURTYARD = shapely.Polygon(shapely.box(0, 0, 40, 30).exterior, [shapely.box(12, 10, 30, 20).exterior.reverse()])
CHAMFERED = shapely.Polygon([(12, 0), (40, 0), (40, 30), (0, 30), (0, 12)])
"""A corner of 12 x 12 is cut off."""

SHAPES = {"rectangle": shapely.box(0, 0, 40, 20), "l": L_SHAPE, "courtyard": COURTYARD, "chamfered": CHAMFERED}


def rough(polygon, sd=0.25, seed=0):
    """The outline as a hand with a tremor draws it: points 1 apart, each moved."""
    random = np.random.default_rng(seed)

    def move(xy):
        moved = xy + random.normal(0, sd, xy.shape)
        return np.concatenate([moved[:-1], moved[:1]])

    rings = [move(shapely.get_coordinates(shapely.segmentize(ring, 1.0))) for ring in shapely.get_rings(polygon)]
    return shapely.Polygon(rings[0], rings[1:])


def pixels(polygon, size):
    """The outline of the pixels of side `size` whose centres the polygon holds."""
    left, top, right, bottom = polygon.bounds
    shape = (int((bottom - top) / size) + 4, int((right - left) / size) + 4)
    moved = shapely.transform(polygon, lambda xy: (xy - (left, top)) / size + 1.3)
    _, (traced, *_) = polygons_from_labels(rasterize([(moved, 1)], out_shape=shape, dtype=np.int32))
    return shapely.transform(traced, lambda xy: (xy - 1.3) * size + (left, top))


def iou(a, b):
    return a.intersection(b).area / a.union(b).area


def corners(polygon):
    return [len(ring.coords) - 1 for ring in (polygon.exterior, *polygon.interiors)]


def angles(ring):
    """Of the walls, modulo 90 degrees."""
    side = np.diff(shapely.get_coordinates(ring), axis=0)
    return np.degrees(np.arctan2(side[:, 1], side[:, 0])) % 90


@pytest.mark.parametrize("turn", [0, 23, 44.9, 45, 61, 90, 137])
@pytest.mark.parametrize(
    ("name", "expected"),
    [("rectangle", [4]), ("l", [6]), ("courtyard", [4, 4]), ("chamfered", [5])],
)
@pytest.mark.parametrize("drawn", ["rough", "pixels"])
def test_corners_come_back_where_they_were(name, expected, turn, drawn):
    truth = rotate(SHAPES[name], turn, origin=(7, 3))
    outline = rough(truth) if drawn == "rough" else pixels(truth, 0.5)
    (found,) = regularise([outline], 1.0, 0.0 if drawn == "rough" else 0.5)
    assert corners(found) == expected
    assert found.is_valid
    off = shapely.distance(
        shapely.points(shapely.get_coordinates(found))[:, None],
        shapely.points(shapely.get_coordinates(truth)),
    ).min(axis=1)
    assert off.max() <= 1.0
    assert iou(found, truth) > iou(outline, truth) - 1e-9
    assert found.area == pytest.approx(truth.area, rel=0.02)
    if name != "chamfered":
        for ring in shapely.get_rings(found):
            assert np.abs((angles(ring) - angles(ring)[0] + 45) % 90 - 45).max() < 1e-6


def test_a_rectangle_that_is_one_comes_back():
    (found,) = regularise([rotate(SHAPES["rectangle"], 30)], 1.0)
    assert found.normalize().equals_exact(rotate(SHAPES["rectangle"], 30).normalize(), 1e-9)


@pytest.mark.parametrize("turn", [0, 20])
def test_a_jog_below_the_tolerance_is_straightened_and_a_larger_one_kept(turn):
    walls = [(0, 0), (20, 0), (20, 0.6), (40, 0.6), (40, 20), (0, 20)]
    (small,) = regularise([rotate(shapely.Polygon(walls), turn)], 1.0)
    (large,) = regularise([rotate(shapely.Polygon([(x, 4 * y if y == 0.6 else y) for x, y in walls]), turn)], 1.0)
    assert corners(small) == [4]
    assert corners(large) == [6]


@pytest.mark.parametrize("radius", [4.0, 10.0, 50.0])
def test_a_circle_stays_the_object_it_was(radius):
    circle = shapely.Point(3, 4).buffer(radius)
    (found,) = regularise([circle], 0.5)
    assert found is circle


def test_a_circle_of_pixels_loses_its_steps_and_stays_round():
    circle = shapely.Point(0.3, 0.1).buffer(10)
    (found,) = regularise([pixels(circle, 0.5)], 1.0, 0.5)
    assert iou(found, circle) > 0.95
    assert found.length == pytest.approx(circle.length, rel=0.05)  # the steps are 4 / pi times as long


def test_a_star_has_no_axes_and_stays():
    turn = np.linspace(0, 2 * np.pi, 15)[:-1]
    reach = np.where(np.arange(14) % 2, 8.0, 20.0)
    star = shapely.Polygon(np.column_stack([reach * np.cos(turn), reach * np.sin(turn)]))
    assert regularise([star], 0.5)[0] is star


@pytest.mark.parametrize(
    "outline",
    [
        shapely.box(0, 0, 30, 0.3),
        shapely.box(0, 0, 0.5, 0.5),
        shapely.Polygon([(0, 0), (30, 0.1), (15, 0.2)]),
        rough(rotate(shapely.box(0, 0, 30, 0.8), 20), 0.05),
    ],
    ids=["flat", "speck", "needle", "strip"],
)
def test_slivers_and_specks_are_safe(outline):
    (found,) = regularise([outline], 1.0)
    assert found.is_valid
    assert iou(found, outline) >= LEAST_IOU


def test_parts_of_a_multipolygon_are_regular_each_and_none_is_nothing():
    truth = shapely.MultiPolygon([shapely.box(0, 0, 40, 20), shapely.box(60, 0, 80, 30)])
    outline = shapely.MultiPolygon([rough(part) for part in truth.geoms])
    circles = shapely.MultiPolygon([shapely.Point(x, 0).buffer(5) for x in (0, 20)])
    found, same = regularise([outline, circles], 1.0)
    assert [corners(part) for part in found.geoms] == [[4], [4]]
    assert same is circles
    assert len(regularise([], 1.0)) == 0


def test_what_is_found_does_not_depend_on_the_others_of_the_list():
    outlines = [rough(rotate(shape, 11 * i), seed=i) for i, shape in enumerate(SHAPES.values())]
    together = regularise(outlines, 1.0)
    for outline, found in zip(outlines, together):
        assert shapely.equals_identical(regularise([outline], 1.0)[0], found)


@st.composite
def blobs(draw):
    """Outlines of anything that a mask may hold: blocks and bits of noise, with holes and bridges."""
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    grain = draw(st.sampled_from([1, 2, 5, 9]))
    coarse = random.random((40 // grain + 1, 40 // grain + 1)) < draw(st.floats(0.2, 0.8))
    mask = np.kron(coarse, np.ones((grain, grain), bool))
    mask &= random.random(mask.shape) < draw(st.sampled_from([1.0, 0.97, 0.8]))
    labels, count = label(mask)
    return polygons_from_labels(labels.astype(np.int32))[1] if count else np.empty(0, object)


@steady(25)
@given(blobs(), st.sampled_from([0.5, 1.0, 2.5, 6.0]), st.sampled_from([0.0, 1.0]))
def test_whatever_is_drawn_the_result_is_valid_and_like_it(outlines, tolerance, step):
    found = regularise(outlines, tolerance, step)
    assert len(found) == len(outlines)
    assert shapely.is_valid(found).all()
    assert (shapely.get_type_id(found) == shapely.get_type_id(outlines)).all()
    area, common = shapely.area(outlines), shapely.area(shapely.intersection(found, outlines))
    assert (common >= (LEAST_IOU - 1e-9) * (shapely.area(found) + area - common)).all()
    assert (np.abs(shapely.area(found) - area) <= (MOST_CHANGE + 1e-9) * area).all()
