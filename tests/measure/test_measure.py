"""measure end to end: columns, regions, summaries, memory."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from scipy.spatial import Delaunay
from scipy.spatial.distance import cdist

from gigaseg.config import MeasureConfig
from gigaseg.errors import FormatError, SlideError
from gigaseg.measure import measure as step
from gigaseg.measure.measure import measure
from gigaseg.measure.regions import Regions
from gigaseg.measure.spatial import delaunay_degree, spatial
from gigaseg.testing.labels import label_image
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.tiling import Tiling
from measured import instances_of, write_instances

EVERYWHERE = Foreground(np.ones((10, 10), bool), (100.0, 100.0), "all")


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


def test_batches_of_any_size_give_the_same_rows(slide_files, monkeypatch):
    labels = label_image("giants", (220, 260), 4)
    labels[labels == 0] = (label_image("nuclei", (220, 260), 5) + labels.max() * 1)[labels == 0]
    files = slide_files(image_of(labels), labels, classes=("a", "b", "c"))
    measure(*files.inputs)
    whole, summary = pq.read_table(files.measurements), files.summary.read_bytes()
    for batch in (1, 7):
        monkeypatch.setattr(step, "InstanceStream", lambda path, size=batch: stream_of(path, size))
        measure(*files.inputs)
        assert pq.read_table(files.measurements).equals(whole)
        assert files.summary.read_bytes() == summary


def stream_of(path, size):
    from gigaseg.measure.stream import InstanceStream

    return InstanceStream(path, size)


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


def test_the_area_of_a_region_is_that_of_polygon_and_foreground():
    rng = np.random.default_rng(0)
    mask = rng.random((300, 40)) < 0.5
    foreground = Foreground(mask, (10.0, 7.0), "tissue")
    shapes = np.array([shapely.Point(180, 1000).buffer(150), shapely.box(3, 5, 390, 2090), shapely.box(9, 1, 11, 3)])
    rows, cols = np.nonzero(mask)
    union = shapely.union_all(shapely.box(cols * 10, rows * 7, cols * 10 + 10, rows * 7 + 7))
    found = Regions(("a", "b", "c"), shapes).areas_px(foreground)
    assert found == pytest.approx(shapely.area(shapely.intersection(shapes, union)), rel=1e-3, abs=1)


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


@pytest.mark.parametrize("n", [0, 1, 2, 3, 40, 700])
def test_neighbourhoods_are_those_of_all_pairs(n):
    rng = np.random.default_rng(n)
    centroid = rng.uniform(0, 1000, (n, 2))
    found = spatial(centroid, (0.5, 0.25), "um", 30.0, EVERYWHERE)
    distance = cdist(*[centroid * (0.5, 0.25)] * 2)
    np.fill_diagonal(distance, np.inf)
    expected = distance.min(1, initial=np.inf)
    assert found["nn_distance_um"] == pytest.approx(np.where(np.isinf(expected), np.nan, expected), nan_ok=True)
    assert found["neighbours_within_30um"].tolist() == (distance <= 30).sum(1).tolist()
    assert list(found) == ["nn_distance_um", "neighbours_within_30um", "local_density_per_mm2", "delaunay_degree"]
    if n >= 3:
        pairs = np.concatenate([Delaunay(centroid * (0.5, 0.25)).simplices[:, [i, (i + 1) % 3]] for i in range(3)])
        edges = np.unique(np.sort(pairs, axis=1), axis=0)
        assert found["delaunay_degree"].tolist() == np.bincount(edges.ravel(), minlength=n).tolist()


def test_the_density_of_an_even_lattice_is_its_own_also_at_the_slides_border():
    y, x = np.mgrid[5:1000:10, 5:1000:10]
    found = spatial(np.column_stack([x.ravel(), y.ravel()]), (1.0, 1.0), "um", 80.0, EVERYWHERE)
    density = found["local_density_per_mm2"].reshape(100, 100)
    assert density[10:-10, 10:-10] == pytest.approx(1e4, rel=0.03)
    assert density[0, 10:-10] == pytest.approx(1e4, rel=0.15)


def test_points_on_a_line_have_no_triangulation():
    assert np.isnan(delaunay_degree(np.column_stack([np.arange(5.0), np.arange(5.0)]))).all()
