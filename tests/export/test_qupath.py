"""GeoJSON for QuPath where its frame or its files are not the slide's own."""

import json
import zipfile

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile

from export_files import export_one, outlines
from gigaseg.cli import main
from gigaseg.slides.base import SlideInfo
from gigaseg.tiles.tiling import Tiling

SCN = """<?xml version="1.0" encoding="utf-8"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection sizeX="500000" sizeY="400000">
<image><pixels sizeX="100" sizeY="80"><dimension sizeX="100" sizeY="80" r="0" ifd="0"/></pixels>
<view sizeX="500000" sizeY="400000" offsetX="0" offsetY="0" spacingZ="0"/><scanSettings><objectiveSettings>
<objective>1</objective></objectiveSettings><illuminationSettings><illuminationSource>brightfield</illuminationSource>
</illuminationSettings></scanSettings></image>
<image><pixels sizeX="600" sizeY="400"><dimension sizeX="600" sizeY="400" r="0" ifd="1"/></pixels>
<view sizeX="300000" sizeY="200000" offsetX="100000" offsetY="50000" spacingZ="0"/><scanSettings><objectiveSettings>
<objective>20</objective></objectiveSettings><illuminationSettings><illuminationSource>brightfield</illuminationSource>
</illuminationSettings></scanSettings></image></collection></scn>"""
"""Header of a Leica slide: 600 x 400 px were scanned, from (200, 100) on, of a glass of 1000 x 800 px of 0.5 µm.

OpenSlide tells the scanned area of it by the same properties as of a MIRAX slide.
"""

CORNER = (200, 100)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """Folder of a slide of which a part was scanned, with a dark square at (300..340, 150..190) of level 0."""
    folder = tmp_path_factory.mktemp("scanned")
    pixels = np.full((400, 600, 3), 240, np.uint8)
    pixels[50:90, 100:140] = (90, 40, 120)
    settings = {"photometric": "rgb", "tile": (256, 256), "resolutionunit": "CENTIMETER", "metadata": None}
    with tifffile.TiffWriter(folder / "s.scn", bigtiff=True) as file:
        file.write(np.full((80, 100, 3), 240, np.uint8), description=SCN, resolution=(2000, 2000), **settings)
        file.write(pixels, resolution=(20000, 20000), **settings)
    assert main(["inspect", str(folder / "s.scn"), "--slide", "s", "--out", str(folder / "slide.json")]) == 0
    return folder


def test_the_scanned_area_is_kept_in_slide_json(scanned):
    info = SlideInfo.read(scanned / "slide.json")
    assert (info.reader, info.width, info.height) == ("openslide", 1000, 800)
    assert info.bounds == (*CORNER, 600, 400)
    assert info.pixel_size == (0.5, 0.5)


@pytest.mark.parametrize("format", ["geojson", "geojson.gz", "geojson-regions"])
def test_geojson_counts_from_the_corner_of_the_scanned_area(slide_files, scanned, tmp_path, format):
    square = shapely.box(300, 150, 340, 190)
    instances, measurements, _ = slide_files(np.array([square]), slide="s")
    path = export_one((instances, measurements, scanned / "slide.json"), format, tmp_path)
    [found] = outlines(path)
    # the square's place in the picture that QuPath shows
    assert found.equals(shapely.box(100, 50, 140, 90))


def test_other_formats_of_such_a_slide_are_in_level_0_pixels(slide_files, scanned, tmp_path):
    square = shapely.box(300, 150, 340, 190)
    instances, measurements, _ = slide_files(np.array([square]), slide="s")
    files = (instances, measurements, scanned / "slide.json")
    assert geopandas.read_parquet(export_one(files, "parquet", tmp_path)).geometry[0].equals(square)
    coco = json.loads(export_one(files, "coco", tmp_path).read_text())
    assert coco["annotations"][0]["bbox"] == [300, 150, 40, 40]


def test_what_qupath_drew_on_such_a_slide_is_read_in_its_place(scanned, tmp_path):
    from gigaseg.sidefiles import read_polygons

    info = SlideInfo.read(scanned / "slide.json")
    tiling = Tiling(256, 64, 1000, 800, (1.0, 1.0), (0.5, 0.5), "um")
    drawn = geopandas.GeoDataFrame({"classification": ["a"]}, geometry=[shapely.box(100, 50, 140, 90)])
    (tmp_path / "drawn.geojson").write_text(drawn.to_json())
    [found] = read_polygons(tmp_path / "drawn.geojson", info, tiling).geometry
    assert found.equals(shapely.box(300, 150, 340, 190))
    drawn.to_parquet(tmp_path / "drawn.parquet")
    [found] = read_polygons(tmp_path / "drawn.parquet", info, tiling).geometry
    assert found.equals(shapely.box(100, 50, 140, 90)), "only GeoJSON is QuPath's"


def test_our_geojson_of_such_a_slide_scores_as_the_instances_it_was_made_of(slide_files, scanned, tmp_path):
    from gigaseg.metrics.evaluate import evaluate

    instances, measurements, _ = slide_files(np.array([shapely.box(300, 150, 340, 190)]), slide="s")
    truth = export_one((instances, measurements, scanned / "slide.json"), "geojson", tmp_path / "export")
    report = evaluate(instances, truth, slide=scanned / "slide.json", bootstrap=0)
    assert report.figures["aji"].value == 1


def test_slide_json_from_before_says_what_to_do(scanned, tmp_path):
    from gigaseg.errors import FormatError

    content = json.loads((scanned / "slide.json").read_text())
    del content["bounds"]
    (tmp_path / "slide.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match=r"slide.json: field 'bounds' is missing or wrong; run inspect again"):
        SlideInfo.read(tmp_path / "slide.json")


def test_split_by_region_every_instance_is_in_the_file_of_its_region(measured, tmp_path):
    files = (measured / "instances.parquet", measured / "measurements.parquet", measured / "slide.json")
    path = export_one(files, "geojson-regions", tmp_path)
    table = pq.read_table(files[1], columns=["instance", "region"]).to_pandas().fillna("")
    expected = table.groupby("region")["instance"].apply(set).to_dict()
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["outside.geojson", "tumour.geojson", "tumour_core.geojson"]
        for region, member in {"": "outside", "tumour": "tumour", "tumour/core": "tumour_core"}.items():
            features = json.loads(archive.read(f"{member}.geojson"))["features"]
            found = {feature["properties"]["measurements"]["Instance"] for feature in features}
            assert found == expected[region]
            assert len(found) > 3


def test_without_regions_all_instances_lie_outside_and_without_instances_there_is_no_file(slide_files, tmp_path):
    with zipfile.ZipFile(export_one(slide_files(), "geojson-regions", tmp_path / "a")) as archive:
        assert archive.namelist() == ["outside.geojson"]
    with zipfile.ZipFile(export_one(slide_files(np.empty(0, object)), "geojson-regions", tmp_path / "b")) as archive:
        assert archive.namelist() == []


def test_regions_whose_names_make_one_file_name_get_two_files(slide_files, tmp_path):
    regions = np.array(["a/b", "a:b", "..", None], dtype=object)
    with zipfile.ZipFile(export_one(slide_files(measurements={"region": regions}), "geojson-regions", tmp_path)) as zip:
        assert sorted(zip.namelist()) == ["_.geojson", "a_b-2.geojson", "a_b.geojson", "outside.geojson"]
