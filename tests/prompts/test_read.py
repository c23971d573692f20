"""Prompt files as QuPath, QGIS and OpenStreetMap give them become points, boxes and outlines of objects."""

import gzip
import json

import geopandas
import numpy as np
import pytest
import shapely

from gigaseg.errors import ConfigError, FormatError
from gigaseg.prompts.read import MOST_POINTS, read_prompts
from gigaseg.prompts.table import BOX, MASK, NEGATIVE, POINT, POSITIVE, UNLABELLED
from gigaseg.slides.inspect import inspect
from gigaseg.testing import ArraySlide
from gigaseg.tiles.tiling import Tiling

INFO = ArraySlide(np.zeros((300, 400, 3), np.uint8)).info
TILING = Tiling(128, 32, 400, 300, (1.0, 1.0), (1.0, 1.0), "px")


def write(path, *features):
    """Write (geometry, properties) as GeoJSON."""
    content = [{"type": "Feature", "geometry": json.loads(shapely.to_geojson(g)), "properties": p} for g, p in features]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": content}))
    return path


@pytest.fixture
def read(tmp_path):
    def run(*features, **options):
        return read_prompts(write(tmp_path / "p.geojson", *features), INFO, TILING, **options)

    return run


def point(x, y, **properties):
    return shapely.Point(x, y), properties


def test_positive_points_are_an_object_each_also_those_of_a_multipoint(read):
    table = read(point(10, 20), (shapely.MultiPoint([(30, 40), (50, 60)]), {})).table
    assert table.xy.tolist() == [[10, 20], [30, 40], [50, 60]]
    assert table.object.tolist() == [0, 1, 2]
    assert table.feature.tolist() == [0, 1, 1]
    assert (table.kind == POINT).all()
    assert (table.label == POSITIVE).all()
    assert table.classes == ("object",)


@pytest.mark.parametrize("label", ["negative", "Negative", "0", 0, 0.0, False, "neg"])
def test_a_label_says_negative_in_words_and_numbers(read, label):
    table = read(point(10, 20, label="positive", object="a"), point(12, 20, label=label, object="a")).table
    assert table.label.tolist() == [POSITIVE, NEGATIVE]
    assert table.object.tolist() == [0, 0]


def test_a_label_that_is_neither_is_told_with_its_feature(read):
    with pytest.raises(FormatError, match=r"p\.geojson: label of point feature 1 is 'maybe', accepted: positive"):
        read(point(1, 1, label=1), point(2, 2, label="maybe"))


def test_classifications_of_qupath_give_sign_or_class(read):
    features = [
        point(10, 10, objectType="annotation", classification={"name": "Positive", "color": [1, 2, 3]}),
        point(14, 10, objectType="annotation", classification={"name": "Negative", "color": [1, 2, 3]}),
        point(90, 10, objectType="annotation", classification={"name": "Tumor"}),
        (shapely.box(200, 200, 220, 220), {"classification": {"name": "Negative"}}),
        point(90, 90, label="positive", classification={"name": "Negative"}),
    ]
    table = read(*features).table
    assert table.label.tolist() == [POSITIVE, NEGATIVE, POSITIVE, UNLABELLED, POSITIVE]
    assert table.object.tolist() == [0, 0, 1, 2, 3]
    assert [table.classes[i] for i in table.class_index] == ["object", "object", "Tumor", "Negative", "Negative"]


def test_features_of_one_object_prompt_it_together_and_the_first_class_is_its_class(read):
    features = [
        point(10, 10, object=7),
        (shapely.box(0, 0, 30, 30), {"object": 7, "class": "roof"}),
        point(28, 28, object=7, label=0, **{"class": "tree"}),
        point(100, 100, metadata={"object": "8"}),
        point(104, 104, metadata={"object": "8"}),
    ]
    table = read(*features).table
    assert table.object.tolist() == [0, 0, 0, 1, 1]
    assert [table.classes[i] for i in table.class_index] == ["roof", "roof", "roof", "object", "object"]


def test_an_ungrouped_negative_point_joins_the_nearest_object(read):
    found = read(
        point(10, 10), (shapely.box(100, 0, 160, 60), {}), point(90, 30, label=0), point(40, 10, label="negative")
    )
    assert found.table.object.tolist() == [0, 1, 1, 0]
    assert found.counts["negatives_to_nearest"] == 2


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([point(1, 1, label=0), point(2, 2, label=0)], "2 points, all of them negative"),
        ([point(1, 1), point(2, 2, label=0, object="b")], r"object 'b' \(feature 1\) has negative points only"),
        ([(shapely.LineString([(0, 0), (9, 9)]), {})], "1 features, none of them a point or polygon"),
        ([point(900, 10), (shapely.box(500, 0, 510, 9), {})], "none of its 2 prompts lies on slide 'array'"),
    ],
)
def test_a_file_without_usable_prompts_is_told(read, features, words):
    with pytest.raises(FormatError, match=words):
        read(*features)


def test_polygons_become_boxes_outlines_or_inner_points(read):
    ring = shapely.Point(100, 100).buffer(40).difference(shapely.Point(100, 100).buffer(20))
    boxes, masks, points = (read((ring, {}), polygons_as=how).table for how in ("box", "mask", "points"))
    assert boxes.kind.tolist() == [BOX]
    assert boxes.box.tolist() == [[60, 60, 140, 140]]
    assert boxes.geometry.tolist() == [None]
    assert masks.kind.tolist() == [MASK]
    assert masks.box.tolist() == boxes.box.tolist()
    assert shapely.equals_exact(masks.geometry[0], ring, 1e-6, normalize=True)
    assert points.kind.tolist() == [POINT]
    assert points.label.tolist() == [POSITIVE]
    assert ring.contains(shapely.Point(points.xy[0]))
    with pytest.raises(ConfigError, match="unknown value of polygons_as 'boxes'; accepted: box, mask, points"):
        read((ring, {}), polygons_as="boxes")


def test_what_lies_off_the_slide_is_left_out_clipped_and_reported(read):
    found = read(
        point(399.5, 10),
        point(400, 10),
        (shapely.box(390, 290, 450, 350), {}),
        (shapely.box(-30, 10, -10, 30), {}),
        point(-9, 9, object="gone"),
        point(9, 9, label=0, object="gone"),
    )
    assert found.table.feature.tolist() == [0, 2]
    assert found.table.box[1].tolist() == [390, 290, 400, 300]
    assert found.off_slide.tolist() == [[400, 10], [-20, 20], [-9, 9], [9, 9]]


def test_coordinates_are_level0_pixels_and_come_out_in_working_pixels(tmp_path):
    halved = Tiling(128, 32, 200, 150, (2.0, 2.0), (2.0, 2.0), "px")
    path = write(tmp_path / "p.geojson", point(10, 20), (shapely.box(100, 40, 140, 60), {}))
    table = read_prompts(path, INFO, halved).table
    assert table.xy[0].tolist() == [5, 10]
    assert table.box[1].tolist() == [50, 20, 70, 30]


def collection(*geometries):
    return [{"type": "Feature", "geometry": g, "properties": {}} for g in geometries]


DOT = {"type": "Point", "coordinates": [10, 20]}


@pytest.mark.parametrize("name", ["p.geojson", "p.json", "p.geojson.gz"])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf \n"])
def test_a_bare_array_of_features_is_read_as_a_collection(tmp_path, name, before):
    content = before + json.dumps(collection(DOT, {**DOT, "coordinates": [30, 40]})).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read_prompts(tmp_path / name, INFO, TILING).table.xy.tolist() == [[10, 20], [30, 40]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"p\.geojson: empty file; expected GeoJSON"),
        (b"[{", r"p\.geojson: cannot be read as polygons or points"),
        (b"[]", r"p\.geojson: .*(0 features|cannot be read)"),
        (
            json.dumps(collection(DOT, {**DOT, "coordinates": [1e308, 5]})).encode(),
            r"p\.geojson: holds the coordinate 1e\+308, accepted: up to 1e\+12",
        ),
        (
            json.dumps(
                collection(DOT, {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, -1e308], [0, 0]]]})
            ).encode(),
            r"p\.geojson: holds the coordinate -1e\+308",
        ),
    ],
)
def test_a_damaged_file_is_told_in_one_line(tmp_path, content, words):
    (tmp_path / "p.geojson").write_bytes(content)
    with pytest.raises(FormatError, match=words) as caught:
        read_prompts(tmp_path / "p.geojson", INFO, TILING)
    assert "\n" not in str(caught.value)


def test_empty_parts_of_a_multipoint_are_passed_over(tmp_path):
    parts = shapely.from_wkt(
        ["MULTIPOINT (EMPTY, (10 20), EMPTY, (30 40))", "MULTIPOINT (EMPTY, EMPTY)", "POINT (50 60)"]
    )
    geopandas.GeoDataFrame(geometry=parts, crs=None).to_parquet(tmp_path / "p.parquet")
    found = read_prompts(tmp_path / "p.parquet", INFO, TILING)
    assert found.table.xy.tolist() == [[10, 20], [30, 40], [50, 60]]
    assert found.table.feature.tolist() == [0, 0, 2]
    assert found.counts["other_features"] == 1


def test_polygons_without_area_are_counted_apart_from_those_off_the_slide(read):
    flat = shapely.Polygon([(10, 10), (50, 10), (30, 10)])
    found = read((flat, {}), (shapely.box(0, 0, 9, 9), {}), (shapely.box(500, 0, 509, 9), {}))
    assert found.counts["without_area"] == 1
    assert len(found.off_slide) == 1
    assert found.table.feature.tolist() == [1]
    with pytest.raises(FormatError, match=r"p\.geojson: none of its 1 polygons has an area"):
        read((flat, {}))


def test_an_object_of_too_many_points_is_told(read):
    places = np.random.default_rng(0).uniform(0, 300, (MOST_POINTS + 1, 2))
    many = (shapely.MultiPoint(places), {"object": "roof"})
    with pytest.raises(FormatError, match=r"object 'roof' \(feature 1\) has 257 points, accepted: up to 256"):
        read(point(1, 1), many)
    assert len(read((shapely.MultiPoint(places[1:]), {"object": "roof"})).table) == MOST_POINTS
    assert len(read((shapely.MultiPoint(places), {})).table) == MOST_POINTS + 1, "objects of their own"
    with pytest.raises(FormatError, match=r"object 'without a name' \(feature 0\) has 258 points"):
        read(point(1, 1), (shapely.MultiPoint(places), {"label": 0}))


@pytest.mark.parametrize(("crs", "warned"), [("EPSG:3857", True), (None, False)])
@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "parquet"])
def test_a_crs_that_is_not_used_is_warned_of(tmp_path, caplog, crs, warned, suffix):
    frame = geopandas.GeoDataFrame(geometry=[shapely.Point(10, 20)], crs=crs)
    path = tmp_path / f"p.{suffix}"
    frame.to_parquet(path) if suffix == "parquet" else frame.to_file(path)
    assert len(read_prompts(path, INFO, TILING).table) == 1
    said = [text for text in caplog.messages if "its CRS" in text]
    assert len(said) == warned
    if warned:
        assert "p." + suffix in said[0]
        assert "slide 'array' has none" in said[0]


def test_a_geopackage_gives_the_same_as_geojson(tmp_path, read):
    features = [point(10, 10, label="positive", object="a"), point(20, 10, label="negative", object="a")]
    expected = read(*features).table
    frame = geopandas.GeoDataFrame(
        {"label": ["positive", "negative"], "object": ["a", "a"]}, geometry=[f[0] for f in features], crs=None
    )
    frame.to_file(tmp_path / "p.gpkg")
    found = read_prompts(tmp_path / "p.gpkg", INFO, TILING).table
    for name in ("object", "label", "kind", "feature"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    assert found.xy.tolist() == expected.xy.tolist()


def test_properties_with_gaps_count_as_not_given(read):
    table = read(point(1, 1, label=1, object=1), point(2, 2, label=None, object=None), point(3, 3, object=1)).table
    assert table.object.tolist() == [0, 1, 0]
    assert (table.label == POSITIVE).all()


def test_footprints_of_a_raster_come_into_its_pixels(data):
    info = inspect(data / "raster" / "town.tif", slide="town", unit="m")
    tiling = Tiling(1024, 256, info.width, info.height, (1.0, 1.0), info.pixel_size, "m")
    table = read_prompts(data / "raster" / "town_buildings.geojson", info, tiling).table
    assert len(table) == 107
    assert (table.kind == BOX).all()
    assert (table.box[:, 2:] > table.box[:, :2]).all()
    assert table.box.min() >= 0
    assert (table.box.max(axis=0)[2:] <= (info.width, info.height)).all()
