"""Polygons from a file come back through tiles and stitching as they are."""

import json

import geopandas
import numpy as np
import pytest
import shapely
import tifffile

from gigaseg.config import Preset, SegmenterConfig, TilesConfig
from gigaseg.errors import FormatError, SegmenterError
from gigaseg.instances.segment import segment
from gigaseg.instances.table import read_instances
from gigaseg.slides.inspect import inspect
from gigaseg.stitch.stitch import stitch
from gigaseg.tiles.grid import grid


@pytest.fixture
def slide(tmp_path):
    """A white picture of 400 x 300 px with 0.5 um pixels."""
    path = tmp_path / "white.tif"
    tifffile.imwrite(
        path,
        np.full((300, 400, 3), 255, np.uint8),
        photometric="rgb",
        tile=(64, 64),
        resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )
    info = inspect(path, slide="white")
    info.write(tmp_path / "slide.json")
    return tmp_path


def geojson(path, features):
    """Write (geometry, properties) as GeoJSON."""
    content = [{"type": "Feature", "geometry": json.loads(shapely.to_geojson(g)), "properties": p} for g, p in features]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": content}))
    return path


def run(folder, side_file, tile=128, overlap=32, pixels="annotations"):
    preset = Preset(segmenter=SegmenterConfig(name=pixels), tiles=TilesConfig(tile=tile, overlap=overlap))
    grid(folder / "slide.json", folder / "grid.parquet", folder / "fg.tif", preset=preset, side_files=[side_file])
    segment(
        folder / "slide.json",
        folder / "grid.parquet",
        0,
        folder / "instances" / "000.parquet",
        segmenter=preset.segmenter,
        annotations=side_file,
    )
    stitch([folder / "instances" / "000.parquet"], folder / "grid.parquet", folder / "instances.parquet")
    return read_instances(folder / "instances.parquet", stitched=True)[0]


SHAPES = [
    shapely.Point(130, 120).buffer(40),
    shapely.box(10, 10, 390, 60).difference(shapely.box(30, 20, 370, 50)),
    shapely.Polygon([(200, 100), (390, 290), (210, 280)]),
    shapely.MultiPolygon([shapely.box(20, 200, 60, 240), shapely.box(61, 241, 90, 290)]),
]


@pytest.mark.parametrize(("tile", "overlap"), [(64, 1), (64, 32), (128, 16), (256, 100), (512, 64)])
def test_each_polygon_comes_back_whole_for_any_tiles(slide, tile, overlap):
    side = geojson(slide / "shapes.geojson", [(g, {}) for g in SHAPES[:3]])
    found = run(slide, side, tile, overlap)
    assert len(found) == 3
    for shape in SHAPES[:3]:
        difference = shapely.area(shapely.symmetric_difference(found.geometry, shape))
        assert difference.min() < 1e-6 * shape.area


def test_parts_of_a_multipolygon_stay_one_instance_while_a_tile_sees_both(slide):
    side = geojson(slide / "shapes.geojson", [(SHAPES[3], {})])
    found = run(slide, side, tile=128, overlap=64)
    assert len(found) == 1
    assert found.geometry[0].symmetric_difference(SHAPES[3]).area < 1e-6


def test_classes_of_a_qupath_export_become_the_classes(slide):
    features = [
        (
            shapely.box(10, 10, 30, 30),
            {"objectType": "detection", "classification": {"name": "Tumor", "color": [1, 2, 3]}},
        ),
        (shapely.box(50, 10, 70, 30), {"objectType": "detection", "classification": {"name": "Stroma"}}),
        (shapely.box(90, 10, 99, 30), {"objectType": "detection"}),
    ]
    found = run(slide, geojson(slide / "q.geojson", features))
    assert found.classes == ("Stroma", "Tumor", "object")
    assert [found.classes[i] for i in found.class_index] == ["Tumor", "Stroma", "object"]


def test_a_geopackage_and_a_geoparquet_give_the_same_as_geojson(slide):
    frame = geopandas.GeoDataFrame({"class": ["a", "b"]}, geometry=[SHAPES[0], SHAPES[2]], crs=None)
    frame.to_file(slide / "s.gpkg")
    frame.to_parquet(slide / "s.parquet")
    tables = [run(slide, slide / name).to_arrow() for name in ("s.gpkg", "s.parquet")]
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows == 2


def test_our_own_instances_can_be_brought_back(slide):
    found = run(slide, geojson(slide / "s.geojson", [(g, {}) for g in SHAPES[:3]]))
    (slide / "instances.parquet").rename(slide / "mine.parquet")
    again = run(slide, slide / "mine.parquet", tile=64, overlap=8)
    assert len(again) == len(found)
    assert shapely.area(again.geometry).sum() == pytest.approx(shapely.area(found.geometry).sum(), rel=1e-9)


def test_invalid_polygons_are_repaired_and_polygons_are_clipped_to_the_slide(slide):
    bow_tie = shapely.Polygon([(10, 10), (60, 60), (60, 10), (10, 60)])
    over = shapely.box(350, 250, 500, 500)
    found = run(slide, geojson(slide / "s.geojson", [(bow_tie, {}), (over, {}), (shapely.Point(5, 5), {})]))
    assert shapely.is_valid(found.geometry).all()
    assert sorted(shapely.area(found.geometry)) == pytest.approx([1250, 50 * 50])


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([(shapely.Point(3, 3), {})], "1 features, none of them a polygon"),
        ([(shapely.box(900, 900, 950, 950), {})], "none of its 1 polygons lies on slide 'white'"),
    ],
)
def test_a_file_without_usable_polygons_is_told(slide, features, words):
    with pytest.raises(FormatError, match=r"s\.geojson") as caught:
        run(slide, geojson(slide / "s.geojson", features))
    assert words in str(caught.value)


def test_numbers_are_class_names_too(slide):
    features = [(shapely.box(10, 10, 30, 30), {"class": 2}), (shapely.box(50, 10, 70, 30), {"class": 1})]
    assert run(slide, geojson(slide / "n.geojson", features)).classes == ("1", "2")
    features.append((shapely.box(90, 10, 99, 30), {"class": None}))
    assert run(slide, geojson(slide / "gap.geojson", features)).classes == ("1", "2", "object")


def test_a_table_without_geometry_is_told(slide):
    (slide / "t.csv").write_text("class,x\na,1\n")
    with pytest.raises(FormatError, match=r"t\.csv: a table without geometry"):
        run(slide, slide / "t.csv")


def test_pixels_for_a_georeferenced_raster_are_told(data, tmp_path):
    inspect(data / "raster" / "town.tif", slide="town", unit="m").write(tmp_path / "slide.json")
    side = geojson(tmp_path / "pixels.geojson", [(shapely.box(100, 500, 300, 900), {})])
    with pytest.raises(FormatError, match=r"pixels\.geojson: .*pixels"):
        run(tmp_path, side)


def test_an_empty_shard_does_not_change_the_classes(slide):
    features = [(shapely.box(10, 10, 30, 30), {"class": "b"}), (shapely.box(12, 40, 30, 60), {"class": "a"})]
    side = geojson(slide / "s.geojson", features)
    preset = Preset(segmenter=SegmenterConfig(name="annotations"), tiles=TilesConfig(128, 32, tiles_per_shard=1))
    made = grid(slide / "slide.json", slide / "g.parquet", slide / "f.tif", preset=preset, side_files=[side])
    shards = [slide / "instances" / f"{k:03d}.parquet" for k in range(made.shards)]
    for k, path in enumerate(shards):
        segment(slide / "slide.json", slide / "g.parquet", k, path, segmenter=preset.segmenter, annotations=side)
    assert made.shards > len(made.row)
    stitch(shards, slide / "g.parquet", slide / "instances.parquet")
    found, _ = read_instances(slide / "instances.parquet", stitched=True)
    assert found.classes == ("a", "b")
    assert len(found) == 2


def test_a_missing_or_broken_file_is_told(slide):
    with pytest.raises(FormatError, match="no such file"):
        run(slide, slide / "none.geojson")
    (slide / "broken.geojson").write_text("{")
    with pytest.raises(FormatError, match=r"broken\.geojson: cannot be read as polygons"):
        run(slide, slide / "broken.geojson")


def test_without_a_file_the_segmenter_says_which_column_is_missing(slide):
    run(slide, geojson(slide / "s.geojson", [(SHAPES[0], {})]))
    with pytest.raises(SegmenterError, match="needs the column 'annotations'"):
        segment(
            slide / "slide.json",
            slide / "grid.parquet",
            0,
            slide / "x.parquet",
            segmenter=SegmenterConfig(name="annotations"),
        )


def test_buildings_of_a_raster_come_back_in_its_own_frame(data, tmp_path):
    info = inspect(data / "raster" / "town.tif", slide="town", unit="m")
    info.write(tmp_path / "slide.json")
    footprints = data / "raster" / "town_buildings.geojson"
    found = run(tmp_path, footprints, tile=256, overlap=40)
    assert len(found) == 107
    a, b, c, d, e, f = info.transform
    truth = geopandas.read_file(footprints).clip(
        shapely.transform(shapely.box(0, 0, info.width, info.height), lambda xy: xy @ [[a, d], [b, e]] + (c, f))
    )
    in_crs = shapely.transform(found.geometry, lambda xy: xy @ [[a, d], [b, e]] + (c, f))
    assert shapely.area(in_crs).sum() == pytest.approx(truth.area.sum(), rel=1e-6)
