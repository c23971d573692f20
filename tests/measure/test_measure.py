"""measure end to end: columns, regions, summaries, memory."""

import json
from dataclasses import replace

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from clusters import cluster_that_loses_a_worker
from gigaseg.config import MeasureConfig
from gigaseg.errors import ConfigError, FormatError, SlideError
from gigaseg.files import with_metadata
from gigaseg.measure.measure import measure
from gigaseg.measure.regions_map import regions_map
from gigaseg.testing.labels import label_image
from gigaseg.tiles.tiling import Tiling
from measured import instances_of, write_instances, write_slide


def image_of(labels, seed=0):
    noise = np.random.default_rng(seed).integers(0, 40, (*labels.shape, 3))
    return np.where(labels[..., None] > 0, (90, 60, 140), (240, 235, 240)).astype(np.uint8) - noise.astype(np.uint8)


def features(folder, *pairs, **properties):
    """A GeoJSON of (name, polygon)."""
    content = [
        {"type": "Feature", "properties": {"name": name, **properties}, "geometry": json.loads(shapely.to_geojson(p))}
        for name, p in pairs
    ]
    path = folder / "regions.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": content}))
    return path


def test_columns_are_named_with_their_unit(slide_files):
    labels = label_image("nuclei", (150, 150), 1)
    files = slide_files(image_of(labels), labels)
    summary = measure(*files.inputs, config=MeasureConfig(texture=True))
    names = pq.read_schema(files.measurements).names
    assert names[:2] == ["instance", "class"]
    for name in (
        "area_um2", "perimeter_um", "orientation_deg", "centroid_x_px", "haematoxylin_od_mean", "eosin_od_sd",
        "dab_od_q50", "texture_entropy", "nn_distance_um", "neighbours_within_50um", "local_density_per_mm2",
        "delaunay_degree",
    ):  # fmt: skip
        assert name in names
    assert set(summary["measurements"]) == {
        name for name in names if not name.startswith("centroid") and name not in ("instance", "class")
    }
    assert "region" not in names


def test_what_is_switched_off_is_left_out_and_needs_no_slide(slide_files):
    labels = label_image("nuclei", (100, 100), 1)
    files = slide_files(image_of(labels), labels)
    files.slide.unlink()
    measure(*files.inputs, config=MeasureConfig(intensity=False, spatial=False))
    assert pq.read_schema(files.measurements).names[-2:] == ["centroid_x_px", "centroid_y_px"]
    with pytest.raises(SlideError, match="no such file"):
        measure(*files.inputs)


@pytest.fixture(scope="module")
def wide_slide(tmp_path_factory):
    """Six windows of 2048 px and less, with objects larger than any of them and nuclei between, of three classes."""
    labels = np.zeros((2200, 4300), np.int32)
    for i, (y, x) in enumerate(np.ndindex(8, 16)):
        top, left = 20 + 256 * y, 15 + 266 * x
        labels[top : top + 9 + 3 * i % 100, left : left + 9 + 5 * i % 200] = i + 1
    labels[2040:2060, 100:4200] = labels.max() + 1
    labels[30:2190, 2030:2050] = labels.max() + 1
    image = np.tile(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8), (44, 86, 1))
    files = write_slide(tmp_path_factory.mktemp("wide"), image, labels, classes=("a", "b", "c"))
    files.regions = features(
        files.folder, ("left", shapely.box(0, 0, 1000, 2200)), ("top", shapely.box(0, 0, 4300, 900))
    )
    return files


def measured(files, **options):
    """The bytes of both outputs."""
    measure(*files.inputs, regions=files.regions, config=MeasureConfig(texture=True), **options)
    return files.measurements.read_bytes(), files.summary.read_bytes()


def test_blocks_of_any_size_give_the_same_rows(wide_slide):
    measured(wide_slide)
    whole = pq.read_table(wide_slide.measurements)
    for block in (1, 50):
        measured(wide_slide, block=block)
        found = pq.read_table(wide_slide.measurements)
        assert found.column_names == whole.column_names
        for name in found.column_names:
            if name.endswith(("_mean", "_sd")):  # sums are added up in another order
                assert found[name].to_numpy() == pytest.approx(whole[name].to_numpy(), rel=1e-5, abs=1e-6, nan_ok=True)
            else:
                assert found[name].equals(whole[name]), name


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_any_number_of_workers_gives_the_same_bytes(wide_slide, scheduler):
    expected = measured(wide_slide, block=20)
    assert measured(wide_slide, block=20, workers=2, scheduler=scheduler) == expected


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(wide_slide):
    from distributed import LocalCluster

    expected = measured(wide_slide, block=20)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        assert measured(wide_slide, block=20, scheduler=cluster.scheduler_address) == expected


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_same_bytes(wide_slide):
    expected = measured(wide_slide, block=1)
    with cluster_that_loses_a_worker() as address:
        found = measured(wide_slide, block=1, scheduler=address)
    assert found == expected


def test_the_median_is_always_there_and_cuts_without_a_counterpart_are_flagged(slide_files):
    labels = label_image("nuclei", (100, 100), 1)
    files = slide_files(image_of(labels), labels)
    table = pq.read_table(files.instances)
    metadata = {**json.loads(table.schema.metadata[b"gigaseg"]), "stitch": {"unmatched": len(table)}}
    pq.write_table(with_metadata(table, metadata), files.instances)
    summary = measure(*files.inputs, config=MeasureConfig(quantiles=(0.1,)))
    assert list(summary["measurements"]["area_um2"]) == ["mean", "sd", "q10", "q50"]
    assert any("at a seam" in flag for flag in summary["flags"])


def test_an_instance_beyond_the_slide_has_a_shape_and_no_pixels(slide_files):
    labels = label_image("nuclei", (100, 100), 1)
    files = slide_files(image_of(labels), labels)
    found = instances_of(labels)
    found = replace(found, geometry=shapely.transform(found.geometry, lambda xy: xy + (90, -40)))
    write_instances(files.instances, found, Tiling(256, 64, 100, 100, (1.0, 1.0), (0.5, 0.5), "um"))
    measure(*files.inputs)
    table = pq.read_table(files.measurements)
    assert table["area_um2"].to_numpy() == pytest.approx(shapely.area(found.geometry) / 4)
    beyond = shapely.bounds(found.geometry)[:, 0] >= 100
    assert beyond.any()
    assert np.isnan(table["haematoxylin_od_mean"].to_numpy()[beyond]).all()


def test_nothing_is_left_beside_the_outputs(slide_files):
    labels = label_image("nuclei", (64, 64), 1)
    files = slide_files(image_of(labels), labels)
    inputs = set(files.folder.iterdir())
    measure(*files.inputs)
    assert set(files.folder.iterdir()) - inputs == {files.measurements, files.summary}
    files.measurements.unlink()
    files.slide.write_bytes(b"")
    with pytest.raises(SlideError):
        measure(*files.inputs, workers=2)
    assert set(files.folder.iterdir()) - inputs == {files.summary}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scheduler": "cluster"}, "--scheduler is 'cluster', accepted: threads, processes, tcp://HOST:PORT"),
        ({"workers": 0}, "--workers is 0, accepted: a whole number >= 1"),
        ({"block": 0}, "--block is 0, accepted: a whole number >= 1"),
    ],
)
def test_wrong_options_are_told(slide_files, options, told):
    labels = label_image("nuclei", (64, 64), 1)
    with pytest.raises(ConfigError, match=told):
        measure(*slide_files(image_of(labels), labels).inputs, **options)


def test_two_runs_are_the_same_bytes(slide_files):
    labels = label_image("crowd", (120, 120), 2)
    files = slide_files(image_of(labels), labels)
    first = [measure(*files.inputs), files.measurements.read_bytes(), files.summary.read_bytes()]
    assert [measure(*files.inputs), files.measurements.read_bytes(), files.summary.read_bytes()] == first


def test_a_slide_without_instances_has_all_columns(slide_files):
    labels = np.zeros((64, 64), np.int32)
    files = slide_files(image_of(labels), labels, classes=("a", "b"))
    regions = features(files.folder, ("left", shapely.box(0, 0, 32, 64)))
    summary = measure(*files.inputs, regions=regions)
    table = pq.read_table(files.measurements)
    assert len(table) == 0
    assert {"haematoxylin_od_mean", "nn_distance_um", "region"} <= set(table.column_names)
    assert summary["instances"] == summary["regions"]["left"]["instances"] == 0
    assert summary["measurements"]["area_um2"]["mean"] is None
    assert "no instances" in summary["flags"]


def test_classes_have_counts_fractions_densities_ratios_and_distributions(slide_files):
    labels = np.zeros((100, 100), np.int32)
    for i in range(9):
        labels[10 * i + 1 : 10 * i + 3 + i // 3, 5:9] = i + 1
    mask = np.zeros((10, 10), bool)
    mask[:5] = True
    files = slide_files(image_of(labels), labels, classes=("a", "b"), mask=mask)
    summary = measure(*files.inputs)
    area = 100 * 50 * 0.25 / 1e6
    assert summary["foreground_mm2"] == pytest.approx(area)
    assert summary["density_per_mm2"] == pytest.approx(9 / area)
    a = summary["classes"]["a"]
    assert (a["instances"], a["fraction"]) == (5, 5 / 9)
    assert a["density_per_mm2"] == pytest.approx(5 / area)
    assert summary["ratios"] == {"a/b": 5 / 4}
    table = pq.read_table(files.measurements).to_pandas()
    expected = table[table["class"] == "a"]["area_um2"]
    assert a["measurements"]["area_um2"]["mean"] == pytest.approx(expected.mean())
    assert a["measurements"]["area_um2"]["q25"] == pytest.approx(expected.quantile(0.25))


def test_regions_count_what_lies_in_them_over_their_own_foreground(slide_files):
    labels = np.zeros((100, 100), np.int32)
    for i, (y, x) in enumerate([(10, 10), (10, 30), (60, 10), (60, 60), (80, 80)]):
        labels[y : y + 4, x : x + 4] = i + 1
    mask = np.ones((10, 10), bool)
    mask[:, :2] = False
    files = slide_files(image_of(labels), labels, mask=mask)
    regions = features(
        files.folder,
        ("top", shapely.box(0, 0, 100, 50)),
        ("low", shapely.box(0, 50, 45, 100)),
        ("low", shapely.box(75, 75, 100, 100)),
        ("inner", shapely.box(5, 5, 20, 20)),
    )
    summary = measure(*files.inputs, regions=regions)
    found = summary["regions"]
    assert {name: region["instances"] for name, region in found.items()} == {"inner": 1, "low": 2, "top": 2}
    pixel = 0.25e-6
    assert found["top"]["foreground_mm2"] == pytest.approx(80 * 50 * pixel)
    assert found["low"]["foreground_mm2"] == pytest.approx((25 * 50 + 25 * 25) * pixel, rel=0.005)
    assert found["inner"]["density_per_mm2"] is None
    assert found["low"]["measurements"]["area_um2"]["mean"] == 4
    assert pq.read_table(files.measurements)["region"].to_pylist() == ["inner", "top", "low", None, "low"]
    regions_map(files.summary, files.info, regions, files.folder / "regions.gpkg")
    drawn = geopandas.read_file(files.folder / "regions.gpkg")
    assert not drawn.crs.is_geographic  # pixels, though GeoJSON without a word is in degrees
    assert drawn["instances"].tolist() == [1, 2, 2]
    assert drawn.total_bounds.tolist() == [0, 0, 100, 100]


def test_classes_of_a_region_have_counts_densities_and_distributions_of_their_own(slide_files):
    labels = np.zeros((100, 100), np.int32)
    for i in range(9):
        labels[10 * i + 1 : 10 * i + 3 + i // 3, 5:9] = i + 1
    files = slide_files(image_of(labels), labels, classes=("a", "b"))
    summary = measure(*files.inputs, regions=features(files.folder, ("top", shapely.box(0, 0, 100, 50))))
    region = summary["regions"]["top"]
    assert [region["classes"][name]["instances"] for name in "ab"] == [3, 2]
    assert region["ratios"] == {"a/b": 1.5}
    assert region["classes"]["a"]["density_per_mm2"] == pytest.approx(3 / region["foreground_mm2"])
    table = pq.read_table(files.measurements).to_pandas().iloc[:5]
    expected = table[table["class"] == "b"]["area_um2"]
    assert region["classes"]["b"]["measurements"]["area_um2"]["mean"] == pytest.approx(expected.mean())
    assert region["classes"]["b"]["measurements"]["area_um2"]["q75"] == pytest.approx(expected.quantile(0.75))


def test_regions_off_the_slide_are_a_users_mistake(slide_files):
    labels = label_image("nuclei", (64, 64), 1)
    files = slide_files(image_of(labels), labels)
    with pytest.raises(FormatError, match="none of its 1 polygons lies on slide"):
        measure(*files.inputs, regions=features(files.folder, ("x", shapely.box(500, 500, 600, 600))))


def test_free_outlines_are_measured_too(slide_files):
    labels = label_image("nuclei", (128, 128), 6)
    files = slide_files(image_of(labels), labels)
    measure(*files.inputs)
    exact = pq.read_table(files.measurements)
    found = instances_of(labels)
    write_instances(files.instances, found, Tiling(256, 64, 128, 128, (1.0, 1.0), (0.5, 0.5), "um"), "polygons")
    measure(*files.inputs)
    free = pq.read_table(files.measurements)
    assert free["haematoxylin_od_mean"].equals(exact["haematoxylin_od_mean"])
    assert np.all(free["perimeter_um"].to_numpy() >= exact["perimeter_um"].to_numpy())
