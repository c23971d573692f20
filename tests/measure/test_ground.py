"""Sizes on the ground are those of pyproj's geodesics, wherever in a raster an instance lies."""

import math

import numpy as np
import pytest
import shapely
from pyproj import CRS, Geod, Transformer
from rasterio.transform import Affine

from gigaseg.measure.morphology import morphology
from gigaseg.slides.ground import Flat, Geodetic, areas_of

WGS84 = Geod(ellps="WGS84")
SIDE = 20_000
"""Rows and columns of the rasters."""


def raster(epsg, latitude, pixel, angle=0.0, longitude=10.0):
    """Ground of a raster of SIDE px a side in a CRS, centred at a place, and its way to degrees."""
    crs = CRS(epsg)
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(longitude, latitude)
    turned = Affine.translation(x, y) @ Affine.rotation(angle) @ Affine.scale(pixel, -pixel)
    transform = tuple(turned @ Affine.translation(-SIDE / 2, -SIDE / 2))[:6]
    to_degrees = Transformer.from_crs(crs, 4326, always_xy=True)

    def degrees(xy):
        a, b, c, d, e, f = transform
        return np.column_stack(to_degrees.transform(a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f))

    return Geodetic(crs.to_wkt(), transform), degrees


def buildings(n=60, seed=0):
    """L-shaped outlines of 20 to 60 px all over the raster, with holes in some; corners along its rim too."""
    rng = np.random.default_rng(seed)
    plan = np.array([(0, 0), (50, 0), (50, 20), (30, 20), (30, 60), (0, 60)], float)
    court = np.array([(5, 5), (15, 5), (15, 15), (5, 15)], float)
    found = []
    for i in range(n):
        where = rng.uniform(0, SIDE - 60, 2) if i > 3 else np.array([(i % 2), i // 2]) * (SIDE - 60.0)
        cosine, sine = np.cos(i), np.sin(i)
        turn = np.array([[cosine, -sine], [sine, cosine]]) * rng.uniform(0.4, 1)
        found.append(shapely.Polygon(plan @ turn + where, [court @ turn + where] if i % 2 else []))
    return np.array(found, object)


def geodesic(polygon, degrees):
    """Area and perimeter (of all rings) by pyproj."""
    shape = shapely.transform(shapely.orient_polygons(polygon), degrees)
    rings = [shape.exterior, *shape.interiors]
    found = [WGS84.polygon_area_perimeter(*shapely.get_coordinates(ring).T) for ring in rings]
    return abs(found[0][0]) - sum(abs(area) for area, _ in found[1:]), sum(length for _, length in found)


RASTERS = {
    f"{epsg}, {latitude} degrees, {angle} turned": (epsg, latitude, pixel, angle)
    for latitude in (0, 45, 60)
    for angle in (0, 30)
    for epsg, pixel in ((4326, 5e-6), (3857, 0.5), (32632, 0.5))
}
TALL = {"degrees, 4 tall": (4326, 45, 2e-4, 0), "mercator, 4 degrees tall": (3857, 60, 40.0, 0)}


@pytest.mark.parametrize("where", (RASTERS | TALL).values(), ids=(RASTERS | TALL).keys())
def test_areas_and_perimeters_are_geodesic_wherever_a_building_lies(where):
    ground, degrees = raster(*where)
    shapes = buildings()
    centroid = shapely.get_coordinates(shapely.centroid(shapes))
    found = morphology(shapes, None, ground.stretch(centroid), centroid)
    area, perimeter = np.array([geodesic(shape, degrees) for shape in shapes]).T
    # those of the tall rasters are 1 to 2 km long; of small ones pyproj tells the area to 1e-4 m²
    bound = 5e-5 if where in TALL.values() else 2e-6
    assert found["area"] == pytest.approx(area, rel=bound)
    assert found["perimeter"] == pytest.approx(perimeter, rel=bound)


def test_the_size_of_the_central_pixel_is_wrong_at_the_top_of_a_tall_raster():
    ground, _ = raster(*TALL["mercator, 4 degrees tall"])
    top, middle = areas_of(ground.stretch(np.array([[SIDE / 2, 0], [SIDE / 2, SIDE / 2]])))
    assert top / middle < 0.9


def test_axes_of_a_square_on_the_ground_are_equal_in_degrees_at_60_north():
    ground, _ = raster(4326, 60, 5e-6)
    square = shapely.transform(shapely.box(0, 0, 1, 1), lambda xy: xy * (80, 40 * 0.9971) + 500)
    found = morphology(np.array([square]), None, ground.stretch(np.array([[540.0, 520.0]])))
    assert found["major_axis"] == pytest.approx(found["minor_axis"], rel=2e-2)
    assert morphology(np.array([square]), None)["major_axis"] > 1.9 * morphology(np.array([square]), None)["minor_axis"]


@pytest.mark.parametrize("where", (RASTERS | TALL).values(), ids=(RASTERS | TALL).keys())
def test_places_are_as_far_apart_as_geodesics_are_long(where):
    ground, degrees = raster(*where)
    rng = np.random.default_rng(1)
    first = rng.uniform(0, SIDE, (50, 2))
    second = first + rng.normal(0, 30, (50, 2))
    apart = np.linalg.norm(ground.place(first) - ground.place(second), axis=1)
    _, _, length = WGS84.inv(*degrees(first).T, *degrees(second).T)
    assert apart == pytest.approx(length, rel=1e-7)
    rows = np.array([[0.0, 0.0], [1.0, 0.0]]) + rng.uniform(0, SIDE, 2)
    assert ground.least_rise(SIDE, SIDE) <= np.linalg.norm(np.diff(ground.place(rows[:, ::-1]), axis=0)) * 1.0001


def test_steps_of_pixels_are_cut_alike_on_the_ground_and_in_pixels():
    staircase = shapely.union_all([shapely.box(i, 0, i + 1, 40 - i) for i in range(30)])
    flat = morphology(np.array([staircase]), (1.0, 1.0), Flat((0.5, 0.5)).stretch(np.zeros((1, 2))))
    ground, _ = raster(3857, 60, 1.0)
    local = ground.stretch(np.array([[15.0, 15.0]]))
    found = morphology(np.array([staircase]), (1.0, 1.0), local)
    assert found["perimeter"] == pytest.approx(flat["perimeter"] * 2 * math.sqrt(areas_of(local)[0]), rel=2e-3)


def test_what_lies_outside_the_area_of_a_crs_has_no_size():
    crs = CRS.from_proj4("+proj=ortho +lat_0=0 +lon_0=0 +ellps=WGS84")
    ground = Geodetic(crs.to_wkt(), (1e4, 0, -7e6, 0, -1e4, 7e6))
    stretch = ground.stretch(np.array([[700.0, 700.0], [5.0, 5.0]]))
    assert np.isfinite(stretch[0]).all()
    assert np.isnan(stretch[1]).all()
    assert np.isnan(ground.place(np.array([[5.0, 5.0]]))).all()
