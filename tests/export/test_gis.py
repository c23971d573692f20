"""FlatGeobuf, GeoParquet, CSV and the style in GeoPackage, read by geopandas, pyogrio, pandas and sqlite3."""

import sqlite3
from contextlib import closing
from xml.etree import ElementTree

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import shapely

from export_files import export_one
from gigaseg.export.export import export

ROTATED = (0.4, 0.3, 500000.0, 0.3, -0.4, 4000000.0)

READ = {"fgb": geopandas.read_file, "parquet": geopandas.read_parquet}


def files_of(folder):
    return folder / "instances.parquet", folder / "measurements.parquet", folder / "slide.json"


def by_number(frame):
    return frame.sort_values("instance").reset_index(drop=True)


@pytest.mark.parametrize("format", READ)
def test_a_raster_lies_in_its_crs_with_classes_scores_and_measurements(slide_files, tmp_path, format):
    crs = pyproj.CRS.from_epsg(32633)
    files = slide_files(classes=("house", "shed"), crs=crs.to_wkt(), transform=ROTATED, kind="raster", unit="m")
    frame = by_number(READ[format](export_one(files, format, tmp_path)))
    level0 = geopandas.read_parquet(files[0])
    assert frame.crs == crs
    assert frame["instance"].to_list() == [1, 2, 3, 4]
    assert frame["class"].to_list() == ["house", "shed", "house", "shed"]
    assert frame["score"].to_numpy() == pytest.approx(level0["score"].to_numpy())
    assert frame["area_um2"].to_numpy() == pytest.approx(level0.area.to_numpy() * 0.25)
    # |determinant| = 0.25 m2 a pixel
    assert frame.area.to_numpy() == pytest.approx(level0.area.to_numpy() * 0.25)
    minx, miny, *_ = frame.geometry[0].bounds
    assert (minx, miny) == pytest.approx((500000 + 0.4 * 10 + 0.3 * 20, 4000000 + 0.3 * 10 - 0.4 * 40))


@pytest.mark.parametrize("format", READ)
def test_a_slide_is_in_level_0_pixels_without_a_crs_and_holes_stay(measured, slide_files, tmp_path, format):
    frame = by_number(READ[format](export_one(slide_files(), format, tmp_path)))
    written = geopandas.read_parquet(slide_files()[0])
    assert frame.crs is None
    assert shapely.equals(frame.geometry.to_numpy(), written.geometry.to_numpy()).all()
    real = by_number(READ[format](export_one(files_of(measured), format, tmp_path / "real")))
    instances = geopandas.read_parquet(files_of(measured)[0])
    assert len(real) == len(instances) > 50
    assert shapely.equals(real.geometry.to_numpy(), instances.geometry.to_numpy()).all()
    table = pq.read_table(files_of(measured)[1]).to_pandas()
    for name in table.columns.drop("class"):
        pd.testing.assert_series_equal(real[name], table[name], check_dtype=False)


@pytest.mark.parametrize("format", READ)
def test_a_part_is_found_by_the_spatial_index(slide_files, tmp_path, format):
    x, y = (axis.ravel() * 20.0 for axis in np.meshgrid(np.arange(150), np.arange(120)))
    path = export_one(slide_files(shapely.box(x, y, x + 5, y + 5)), format, tmp_path)
    part = READ[format](path, bbox=(1001, 1001, 1044, 1044))
    assert sorted(part.geometry.bounds["minx"].unique()) == [1000, 1020, 1040]
    assert len(part) == 9
    if format == "fgb":
        assert pyogrio.read_info(path)["capabilities"]["fast_spatial_filter"]
    else:
        covering = pq.ParquetFile(path)
        boxes = [covering.metadata.row_group(k).column(covering.schema.names.index("ymin")) for k in range(3)]
        assert [box.statistics.min for box in boxes] == sorted({box.statistics.min for box in boxes})


def test_geoparquet_says_pixel_size_and_unit(slide_files, tmp_path):
    from gigaseg.export.parquet import MEASURED_FORMAT
    from gigaseg.files import read_metadata

    found = read_metadata(export_one(slide_files(), "parquet", tmp_path), MEASURED_FORMAT)
    assert (found["slide"], found["pixel_size"], found["unit"]) == ("case-1", [0.5, 0.5], "um")


@pytest.mark.parametrize("format", READ)
def test_no_instances_are_an_empty_table(slide_files, tmp_path, format):
    frame = READ[format](export_one(slide_files(np.empty(0, object)), format, tmp_path))
    assert len(frame) == 0
    assert "area_um2" in frame.columns


def test_csv_holds_the_measurements_as_they_are(measured, tmp_path):
    table = pq.read_table(files_of(measured)[1]).to_pandas()
    found = pd.read_csv(export_one(files_of(measured), "csv", tmp_path))
    assert list(found.columns[:3]) == ["instance", "class", "score"]
    for name in table.columns.drop("class"):
        pd.testing.assert_series_equal(found[name], table[name], check_dtype=False, rtol=1e-6)


def test_csv_quotes_what_needs_it_and_leaves_missing_values_empty(slide_files, tmp_path):
    odd = np.array([1.5, np.nan, 2, np.nan])
    files = slide_files(classes=('a "b", c', "ö"), measurements={"nn_distance_um": odd})
    found = pd.read_csv(export_one(files, "csv", tmp_path))
    assert found["class"].to_list() == ['a "b", c', "ö"] * 2
    assert found["nn_distance_um"].isna().to_list() == [False, True, False, True]


def test_qgis_finds_the_colours_of_the_classes_in_the_geopackage(slide_files, tmp_path):
    path = tmp_path / "instances.gpkg"
    export(*slide_files(classes=("tumour", "a <b>")), "gpkg", path, class_colors={"tumour": "#ff8000"})
    with closing(sqlite3.connect(path)) as base:
        [row] = base.execute("SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles")
        listed = dict(base.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall())
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert row[:3] == ("instances", "geometry", 1)
    assert listed == {"instances": "features", "layer_styles": "attributes"}
    style = ElementTree.fromstring(row[3])
    renderer = style.find("renderer-v2")
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "class")
    symbols = {symbol.get("name"): symbol for symbol in renderer.iter("symbol")}
    colors = {
        category.get("value"): symbols[category.get("symbol")].find("layer/Option/Option[@name='outline_color']")
        for category in renderer.iter("category")
    }
    assert {name: option.get("value") for name, option in colors.items()} == {
        "tumour": "255,128,0,255",
        "a <b>": "240,228,66,255",
    }
    assert len(geopandas.read_file(path, layer="instances")) == 4
