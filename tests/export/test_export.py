import gzip
import json
import subprocess
import sys
import time
import uuid

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from gigaseg.errors import ConfigError, FormatError, UpstreamFailure
from gigaseg.export.export import export
from gigaseg.export.formats import FORMATS
from gigaseg.export.geojson import instance_id
from gigaseg.export.names import display_name
from gigaseg.export.vector import to_crs
from gigaseg.files import write_failure


def export_all(instances, measurements, info, formats, folder):
    paths = [folder / FORMATS[format].file for format in formats]
    for format, path in zip(formats, paths, strict=True):
        export(instances, measurements, info, format, path)
    return paths


ROTATED = (0.4, 0.3, 500000.0, 0.3, -0.4, 4000000.0)
"""Pixels of 0.5 m, turned by 36.87 degrees, y of the CRS up."""


def geometry_of(feature):
    return shapely.geometry.shape(feature["geometry"])


def test_geojson_holds_one_detection_an_instance_with_class_and_measurements(slide_files, tmp_path):
    centroid_x = np.array([20.0, 130, 215, 310.5])
    files = slide_files(classes=("tumour", "stroma"), measurements={"centroid_x_px": centroid_x})
    [path] = export_all(*files, ["geojson"], tmp_path / "export")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    assert len(content["features"]) == 4
    second = content["features"][1]
    assert set(second) == {"type", "id", "geometry", "properties"}
    assert second["properties"]["objectType"] == "detection"
    assert second["properties"]["classification"]["name"] == "stroma"
    assert all(0 <= value <= 255 for value in second["properties"]["classification"]["color"])
    assert second["properties"]["measurements"] == {
        "Instance": 2,
        "Score": pytest.approx(0.6666667),
        "Area µm^2": 725.0,
        "Centroid X px": 130.0,
    }


def test_geojson_gives_back_the_geometry_within_a_hundredth_of_a_pixel(slide_files, tmp_path):
    files = slide_files()
    [path] = export_all(*files, ["geojson"], tmp_path)
    read = [geometry_of(feature) for feature in json.loads(path.read_text())["features"]]
    written = geopandas.read_parquet(files[0]).geometry.to_numpy()
    assert all(shapely.equals_exact(np.array(read), written, tolerance=0.005))
    assert all(shapely.equals_exact(np.array(read[:3]), written[:3]))


def test_geojson_is_what_gdal_reads(slide_files, tmp_path):
    [path] = export_all(*slide_files(), ["geojson"], tmp_path)
    frame = geopandas.read_file(path)
    assert len(frame) == 4
    assert shapely.area(frame.geometry.to_numpy()) == pytest.approx([400, 2900, 150, 330.3], abs=0.2)


def test_geojson_has_one_feature_a_line_and_whole_numbers_without_point(slide_files, tmp_path):
    [path] = export_all(*slide_files(), ["geojson"], tmp_path)
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + 4 + 1
    assert "[10,20]" in lines[1]
    assert "300.12,300.5" in lines[4]
    assert all(json.loads(line.rstrip(","))["type"] == "Feature" for line in lines[1:-1])


def test_outline_that_rounding_would_break_keeps_its_coordinates(slide_files, tmp_path):
    # the spike is thinner than the precision: rounded, its two sides fall together
    spike = shapely.Polygon([(0, 0), (10, 0), (10, 5), (20, 5.001), (10, 5.002), (10, 10), (0, 10)])
    assert not shapely.is_valid(shapely.transform(spike, lambda xy: np.round(xy, 2)))
    [path] = export_all(*slide_files(np.array([spike])), ["geojson"], tmp_path)
    [feature] = json.loads(path.read_text())["features"]
    assert geometry_of(feature).equals(spike)


def test_ids_are_uuids_that_stay_and_differ_between_slides(slide_files, tmp_path):
    [path] = export_all(*slide_files(), ["geojson"], tmp_path)
    ids = [feature["id"] for feature in json.loads(path.read_text())["features"]]
    assert ids == [instance_id("case-1", i) for i in range(1, 5)]
    assert len({uuid.UUID(value) for value in ids} | {uuid.UUID(instance_id("case-2", 1))}) == 5


def test_measurements_that_are_not_finite_are_left_out(slide_files, tmp_path):
    odd = np.array([1.0, np.nan, np.inf, -np.inf])
    [path] = export_all(*slide_files(measurements={"nn_distance_um": odd}), ["geojson"], tmp_path)
    measured = [f["properties"]["measurements"] for f in json.loads(path.read_text())["features"]]
    assert [m.get("NN distance µm") for m in measured] == [1.0, None, None, None]


@pytest.mark.parametrize("format", [name for name in FORMATS if not FORMATS[name].folder])
def test_same_instances_give_the_same_bytes(slide_files, tmp_path, format):
    files = slide_files()
    [first] = export_all(*files, [format], tmp_path / "a")
    time.sleep(1.1)  # time stamps in gzip headers count seconds
    [second] = export_all(*files, [format], tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


def test_gzip_holds_the_same_text(slide_files, tmp_path):
    plain, packed = export_all(*slide_files(), ["geojson", "geojson.gz"], tmp_path)
    assert packed.name == "instances.geojson.gz"
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()


@pytest.mark.parametrize("n", [0, 1, 8191, 8192, 8193, 20000])
def test_every_instance_is_written_once_whatever_the_batches(slide_files, tmp_path, n):
    x = np.arange(n, dtype=float)
    paths = export_all(*slide_files(shapely.box(x, 0, x + 1, 2)), ["geojson", "gpkg"], tmp_path)
    features = json.loads(paths[0].read_text())["features"]
    assert [f["properties"]["measurements"]["Instance"] for f in features] == list(range(1, n + 1))
    frame = geopandas.read_file(paths[1], layer="instances")
    assert frame["instance"].to_list() == list(range(1, n + 1))
    assert frame.geometry.bounds["minx"].to_list() == x.tolist()


def test_geopackage_of_a_raster_lies_in_its_crs_through_a_rotated_transform(slide_files, tmp_path):
    crs = pyproj.CRS.from_epsg(32633)
    georeference = {"crs": crs.to_wkt(), "transform": ROTATED, "kind": "raster", "unit": "m"}
    files = slide_files(classes=("building", "shed"), **georeference)
    [path] = export_all(*files, ["gpkg"], tmp_path)
    frame = geopandas.read_file(path, layer="instances")
    level0 = geopandas.read_parquet(files[0])
    assert frame.crs == crs
    assert frame["class"].to_list() == ["building", "shed", "building", "shed"]
    assert frame["score"].to_numpy() == pytest.approx(level0["score"].to_numpy())
    assert frame["area_um2"].to_numpy() == pytest.approx(level0.area.to_numpy() * 0.25)
    # |determinant| = 0.25 m2 a pixel
    assert frame.area.to_numpy() == pytest.approx(level0.area.to_numpy() * 0.25)
    x, y = frame.geometry[0].geoms[0].exterior.coords.xy
    assert min(x) == pytest.approx(500000 + 0.4 * 10 + 0.3 * 20)
    assert min(y) == pytest.approx(4000000 + 0.3 * 10 - 0.4 * 40)
    assert set(frame.geom_type) == {"MultiPolygon"}


def test_geopackage_in_degrees_keeps_longitude_first(slide_files, tmp_path):
    transform = (1e-5, 0.0, 24.9, 0.0, -1e-5, 60.2)
    files = slide_files(crs=pyproj.CRS.from_epsg(4326).to_wkt(), transform=transform, kind="raster", unit="m")
    [path] = export_all(*files, ["gpkg"], tmp_path)
    frame = geopandas.read_file(path, layer="instances")
    assert frame.crs.to_epsg() == 4326
    assert frame.geometry[0].centroid.x == pytest.approx(24.9 + 20e-5)
    assert frame.geometry[0].centroid.y == pytest.approx(60.2 - 30e-5)


def test_geopackage_of_a_slide_without_crs_is_in_level_0_pixels(slide_files, tmp_path):
    files = slide_files()
    [path] = export_all(*files, ["gpkg"], tmp_path)
    frame = geopandas.read_file(path, layer="instances")
    written = geopandas.read_parquet(files[0])
    assert shapely.equals(frame.geometry.to_numpy(), written.geometry.to_numpy()).all()
    assert frame.geometry[0].bounds == (10, 20, 30, 40)
    assert "Undefined Cartesian" in pyogrio.read_info(path, layer="instances")["crs"]


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(*[st.floats(-10, 10)] * 4).filter(lambda t: abs(t[0] * t[3] - t[1] * t[2]) > 1e-3),
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
)
def test_transform_maps_points_and_scales_areas_by_its_determinant(linear, c, f):
    a, b, d, e = linear
    box = shapely.box(3, 5, 7, 6)
    [moved] = to_crs(np.array([box]), (a, b, c, d, e, f))
    expected = [(a * x + b * y + c, d * x + e * y + f) for x, y in box.exterior.coords]
    assert np.asarray(moved.exterior.coords) == pytest.approx(np.array(expected), abs=1e-6)
    # coordinates of 1e6 leave 1e-10 to a side
    assert moved.area == pytest.approx(4 * abs(a * e - b * d), rel=1e-3, abs=1e-6)


def test_names_of_measurements_are_words_with_units():
    assert display_name("area_um2") == "Area µm^2"
    assert display_name("perimeter_m") == "Perimeter m"
    assert display_name("haematoxylin_od_mean") == "Haematoxylin OD mean"
    assert display_name("eccentricity") == "Eccentricity"


def test_unknown_format_is_named_with_what_is_accepted_and_nothing_is_written(slide_files, tmp_path):
    expected = r"unknown format 'geojsn'; accepted: geojson, .*did you mean 'geojson'"
    with pytest.raises(ConfigError, match=expected):
        export(*slide_files(), "geojsn", tmp_path / "export" / "instances.geojson")
    assert not (tmp_path / "export").exists()


def test_measurements_of_other_instances_are_refused(slide_files, tmp_path):
    _, measurements, _ = slide_files(shapes_of(5))
    kept = measurements.read_bytes()
    files = slide_files(shapes_of(3))
    measurements.write_bytes(kept)
    with pytest.raises(FormatError, match=r"measurements.parquet: has 5 rows, but .* has 3; run measure"):
        export_all(*files, ["geojson"], tmp_path)


def test_failed_step_before_passes_on(slide_files, tmp_path):
    files = slide_files()
    write_failure(files[0], "segment", "no such checkpoint")
    with pytest.raises(UpstreamFailure, match="no such checkpoint"):
        export_all(*files, ["geojson"], tmp_path)


def test_partial_table_leaves_no_file_behind(slide_files, tmp_path):
    files = slide_files(shapes_of(20000))
    raw = bytearray(files[0].read_bytes())
    raw[2000:6000] = bytes(4000)
    files[0].write_bytes(raw)
    with pytest.raises(FormatError, match=r"instances.parquet: damaged Parquet file"):
        export_all(*files, ["geojson"], tmp_path / "export")
    assert list((tmp_path / "export").iterdir()) == []


def test_names_of_formats_load_no_geometry_library():
    heavy = ("torch", "shapely", "pyogrio", "pyarrow")
    code = f"import sys, gigaseg.export.formats; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def shapes_of(n):
    x = np.arange(n, dtype=float)
    return shapely.box(x, 0, x + 1, 2)


def test_a_geopackage_is_made_in_the_temporary_folder_since_network_file_systems_may_not_lock(
    slide_files, tmp_path, monkeypatch
):
    from gigaseg.export import gpkg
    from gigaseg.export.measured import MeasuredInstances

    local, out = tmp_path / "local", tmp_path / "out"
    local.mkdir()
    out.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(local))
    seen = []

    class Watched(MeasuredInstances):
        def __iter__(self):
            for batch in super().__iter__():
                yield batch
                seen.append((list(out.iterdir()), [path.name for path in local.rglob("*.gpkg")]))

    monkeypatch.setattr("gigaseg.export.export.MeasuredInstances", Watched)
    export_all(*slide_files(), ["gpkg"], out)
    assert seen == [([], ["instances.gpkg"])], "while rows are written"
    assert [path.name for path in out.iterdir()] == ["instances.gpkg"]
    assert list(local.iterdir()) == []
    assert len(geopandas.read_file(out / "instances.gpkg", layer=gpkg.LAYER)) == 4
