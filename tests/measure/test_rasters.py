"""Rasters from their file to the summary: densities, coverage and regions on the ground."""

import json
import re
import shlex
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from pyproj import Geod
from rasterio.transform import Affine

from gigaseg.cli import main

WGS84 = Geod(ellps="WGS84")
NODATA = 0


def write_raster(path, shape, transform, crs, valid=slice(None)):
    """One band of noise with data in some columns only."""
    image = np.full(shape, NODATA, np.uint8)
    image[:, valid] = np.random.default_rng(0).integers(90, 110, shape, np.uint8)[:, valid]
    with rasterio.open(
        path, "w", driver="GTiff", height=shape[0], width=shape[1], count=1, dtype="uint8", crs=crs,
        transform=transform, nodata=NODATA, tiled=True, blockxsize=128, blockysize=128,
    ) as target:  # fmt: skip
        target.write(image, 1)


def run(folder, raster, houses, regions=None, name="r", options=()):
    """Summary of a raster whose instances are footprints, by the commands of every step."""
    out = folder / name
    out.mkdir()
    houses.to_file(out / "houses.gpkg")
    steps = [
        ["inspect", raster, "--slide=r", "--unit=m", f"--out={out}/slide.json"],
        ["grid", f"{out}/slide.json", f"--out={out}/grid.parquet", f"--foreground={out}/foreground.tif",
         "--segmenter=annotations", f"--side-file={out}/houses.gpkg"],
        ["segment", f"{out}/slide.json", f"{out}/grid.parquet", f"--out={out}/000.parquet", "--segmenter=annotations",
         f"--annotations={out}/houses.gpkg", "--overlaps=keep"],
        ["stitch", f"{out}/000.parquet", f"--grid={out}/grid.parquet", f"--info={out}/slide.json",
         f"--out={out}/instances.parquet"],
        ["measure", f"{out}/instances.parquet", f"--info={out}/slide.json", f"--foreground={out}/foreground.tif",
         f"--out={out}/measurements.parquet", f"--summary={out}/summary.json",
         *([f"--regions={regions}"] if regions else []), *options],
    ]  # fmt: skip
    for words in steps:
        assert main([str(word) for word in words]) == 0
    return json.loads((out / "summary.json").read_text())


def houses_at(places, transform, crs, side=12):
    """Square footprints of `side` px whose corners lie at places in px."""
    a, b, c, d, e, f = tuple(transform)[:6]
    boxes = [shapely.box(x, y, x + side, y + side) for x, y in places]
    drawn = shapely.transform(np.array(boxes, object), lambda xy: xy @ np.array([[a, d], [b, e]]) + (c, f))
    return geopandas.GeoDataFrame({"n": range(len(drawn))}, geometry=drawn, crs=crs)


def geodesic_areas(frame):
    return np.array([abs(WGS84.geometry_area_perimeter(shape)[0]) for shape in frame.to_crs(4326).geometry])


def test_a_tall_raster_in_degrees_has_geodesic_areas_and_density_at_its_top_too(tmp_path):
    # 54 to 60 degrees north: the central pixel is 8 % too narrow at the bottom, 8 % too wide at the top
    transform = Affine(0.005, 0, 5, 0, -0.005, 60)
    write_raster(tmp_path / "tall.tif", (1200, 600), transform, 4326)
    houses = houses_at([(20, 5), (400, 580), (200, 1180)], transform, 4326, side=4)
    summary = run(tmp_path, tmp_path / "tall.tif", houses)
    table = pq.read_table(tmp_path / "r" / "measurements.parquet").to_pandas()
    assert sorted(table["area_m2"]) == pytest.approx(sorted(geodesic_areas(houses)), rel=1e-4)
    ring = shapely.box(5, 54, 8, 60).segmentize(0.01)  # parallels are no geodesics
    area = abs(WGS84.geometry_area_perimeter(ring)[0]) / 1e6
    assert summary["foreground_km2"] == pytest.approx(area, rel=1e-5)
    assert summary["density_per_km2"] == pytest.approx(3 / area, rel=1e-5)
    assert summary["coverage"] == pytest.approx(geodesic_areas(houses).sum() / 1e6 / area, rel=1e-3)
    centre = shapely.get_coordinates(shapely.centroid(houses.geometry.to_numpy()))
    apart = [WGS84.inv(*centre[i], *centre[j])[2] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert table["nn_distance_m"].min() == pytest.approx(min(apart), rel=1e-3)


@pytest.mark.parametrize("crs", [4326, 3857, 32633])
def test_a_raster_half_without_data_has_the_density_of_its_valid_half(tmp_path, crs):
    pixel, x, y = {4326: (5e-6, 15.0, 60.0), 3857: (0.5, 1.67e6, 8.4e6), 32633: (0.5, 5e5, 6.65e6)}[crs]
    transform = Affine(pixel, 0, x, 0, -pixel, y)
    write_raster(tmp_path / "half.tif", (512, 1024), transform, crs, valid=slice(0, 512))
    write_raster(tmp_path / "whole.tif", (512, 512), transform, crs)
    rng = np.random.default_rng(0)
    houses = houses_at(rng.uniform(0, 490, (30, 2)), transform, crs)
    half = run(tmp_path, tmp_path / "half.tif", houses, name="half")
    whole = run(tmp_path, tmp_path / "whole.tif", houses, name="whole")
    assert half["instances"] == whole["instances"] == 30
    for key in ("foreground_km2", "density_per_km2", "coverage", "covered_m2_per_km2"):
        assert half[key] == pytest.approx(whole[key], rel=1e-6), key
    built = geodesic_areas(geopandas.GeoDataFrame(geometry=[houses.union_all()], crs=crs))[0]
    assert whole["covered_m2_per_km2"] * whole["foreground_km2"] == pytest.approx(built, rel=3e-3)
    assert whole["coverage"] * 1e6 == pytest.approx(whole["covered_m2_per_km2"])


@pytest.fixture(scope="module")
def districts(tmp_path_factory):
    """A raster in web mercator, the right quarter without data, and districts in another CRS, some of them off it."""
    folder = tmp_path_factory.mktemp("districts")
    transform = Affine(0.5, 0, 1.67e6, 0, -0.5, 8.4e6)
    write_raster(folder / "r.tif", (512, 1024), transform, 3857, valid=slice(0, 768))
    houses = houses_at([(20 + 40 * i, 40 + 100 * j) for i in range(18) for j in range(4)], transform, 3857)
    boxes = {"west": (0, 0, 512, 512), "north": (0, 0, 1024, 256), "empty": (800, 0, 900, 400), "far": (5e3, 0, 6e3, 9)}
    drawn = [shapely.box(*box) for box in boxes.values()]
    frame = geopandas.GeoDataFrame(
        {"district": list(boxes), "name": "one"},
        geometry=shapely.transform(np.array(drawn, object), lambda xy: xy * (0.5, -0.5) + (1.67e6, 8.4e6)), crs=3857,
    ).to_crs(32633)  # fmt: skip
    frame.to_file(folder / "districts.gpkg")
    options = ("--region-name=district",)
    summary = run(folder, folder / "r.tif", houses, folder / "districts.gpkg", options=options)
    return folder, summary, frame


def test_regions_of_another_crs_overlap_and_have_their_own_ground(districts):
    _, summary, frame = districts
    found = summary["regions"]
    assert list(found) == ["empty", "north", "west"]
    assert {name: region["instances"] for name, region in found.items()} == {
        "empty": 0,
        "north": 36 + 18,
        "west": 48 + 4,
    }
    areas = dict(zip(frame["district"], geodesic_areas(frame) / 1e6))
    assert found["west"]["foreground_km2"] == pytest.approx(areas["west"], rel=1e-3)
    assert found["north"]["foreground_km2"] == pytest.approx(0.75 * areas["north"], rel=5e-3)
    assert found["empty"]["foreground_km2"] == 0
    assert found["empty"]["coverage"] is None
    assert found["north"]["coverage"] == pytest.approx(54 * 144 / (768 * 256), rel=1e-2)


def test_the_map_of_regions_has_every_polygon_its_numbers_and_its_crs(districts):
    folder, summary, frame = districts
    words = [
        "regions",
        f"{folder}/r/summary.json",
        f"--info={folder}/r/slide.json",
        f"--regions={folder}/districts.gpkg",
        "--region-name=district",
    ]
    for name in ("one.gpkg", "two.gpkg"):
        assert main([*words, f"--out={folder}/{name}"]) == 0
    assert (folder / "one.gpkg").read_bytes() == (folder / "two.gpkg").read_bytes()
    found = geopandas.read_file(folder / "one.gpkg", layer="regions").set_index("region")
    assert found.crs == frame.crs
    assert sorted(found.index) == sorted(frame["district"])
    before = frame.set_index("district").geometry.loc[found.index]
    assert found.geometry.symmetric_difference(before).area.max() < 1e-3
    west = summary["regions"]["west"]
    assert found.loc["west", "instances"] == west["instances"]
    assert found.loc["west", "area_m2_sum"] == pytest.approx(
        west["measurements"]["area_m2"]["mean"] * west["instances"]
    )
    assert found.loc["west", "area_m2_median"] == west["measurements"]["area_m2"]["q50"]
    assert found.loc["far", "instances"] == 0
    assert pd.isna(found.loc["far", "density_per_km2"])


def test_a_property_that_no_polygon_has_is_told_with_those_there_are(districts, capsys):
    folder, *_ = districts
    r = folder / "r"
    words = ["measure", r / "instances.parquet", f"--info={r}/slide.json", f"--foreground={r}/foreground.tif"]
    words += [f"--out={r}/x.parquet", f"--summary={r}/x.json", f"--regions={folder}/districts.gpkg"]
    assert main([*map(str, words), "--region-name=distrct"]) == 2
    told = capsys.readouterr().err
    assert "districts.gpkg: unknown property 'distrct'" in told
    assert "district, name" in told


def test_the_commands_of_the_page_on_buildings_work(districts, tmp_path, monkeypatch):
    folder, summary, _ = districts
    page = Path(__file__).parents[2] / "docs" / "buildings.md"
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert {words[1] for words in commands} == {"inspect", "grid", "segment", "stitch", "measure", "regions"}
    (tmp_path / "town.tif").symlink_to(folder / "r.tif")
    (tmp_path / "districts.gpkg").symlink_to(folder / "districts.gpkg")
    geopandas.read_file(folder / "r" / "houses.gpkg").to_file(tmp_path / "town_buildings.geojson")
    monkeypatch.chdir(tmp_path)
    for words in commands:
        assert main(words[1:]) == 0
    found = json.loads(Path("summary.json").read_text())
    assert found["regions"]["west"]["instances"] == summary["regions"]["west"]["instances"]
    assert len(geopandas.read_file("regions.gpkg")) == 4
