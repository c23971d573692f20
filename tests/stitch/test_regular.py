"""Regular outlines are made of whole objects: what tiles cut has its right angles back."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import CRS
from rasterio.features import rasterize
from shapely.affinity import rotate

from gigaseg.cli import main
from gigaseg.errors import ConfigError
from gigaseg.instances.polygons import polygons_from_labels
from gigaseg.instances.table import Instances, read_instances
from gigaseg.slides.ground import areas_of, ground_of
from gigaseg.stitch.stitch import stitch
from gigaseg.testing.array_slide import ArraySlide
from stitching import full_grid, oracle, write_shards

SIZE = (0.5, 0.4)
"""Metres of a working pixel, which is no square; of level-0 px there are 2 x 4 in it."""

SCALE = (2.0, 4.0)

TRUTH = [
    rotate(shapely.box(20, 15, 60, 40), 20),
    rotate(shapely.box(90, 20, 112, 70), -35),
    rotate(shapely.Polygon([(20, 60), (60, 60), (60, 75), (38, 75), (38, 90), (20, 90)]), 10),
    shapely.Polygon(shapely.box(75, 75, 115, 95).exterior, [shapely.box(85, 80, 105, 90).exterior]),
    shapely.Point(64, 52).buffer(7),
]
"""In metres; the last is round."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The buildings as pixels in tiles of 64 px, 8 shared, which cut nearly all of them."""
    shape = (260, 250)
    drawn = [shapely.transform(building, lambda xy: xy / SIZE) for building in TRUTH]
    labels = rasterize([(shape_, i) for i, shape_ in enumerate(drawn, 1)], out_shape=shape, dtype=np.int32)
    grid = full_grid(shape, 64, 8)
    grid = replace(grid, tiling=replace(grid.tiling, scale=SCALE, pixel_size=SIZE, unit="m"))
    folder = tmp_path_factory.mktemp("shards")
    paths = write_shards(folder, oracle(labels, grid), grid)
    _, traced = polygons_from_labels(labels)
    np.save(folder / "traced.npy", shapely.to_wkb(shapely.transform(traced, lambda xy: xy * SIZE)))
    return paths


def stitched(shards, name, **options):
    out = shards[0].parent / name
    stitch(shards, shards[0].parent / "grid.parquet", out, **options)
    return out


def in_metres(path):
    found, metadata = read_instances(path, stitched=True)
    size = np.divide(SIZE, SCALE)
    return found, shapely.transform(found.geometry, lambda xy: xy * size), metadata


def test_buildings_that_tiles_cut_have_their_corners_back(shards):
    found, outlines, metadata = in_metres(stitched(shards, "regular.parquet", tolerance=1.0))
    assert metadata["regularise"] == 1.0
    assert metadata["outlines"] == "vector"
    assert metadata["stitch"]["unions"] >= 3
    corners = []
    for truth in TRUTH:
        best = max(outlines, key=lambda outline, truth=truth: outline.intersection(truth).area)
        assert best.intersection(truth).area / best.union(truth).area > 0.95
        assert best.area == pytest.approx(truth.area, rel=0.03)
        corners.append([len(ring.coords) - 1 for ring in shapely.get_rings(best)])
    assert corners[:4] == [[4], [4], [6], [4, 4]]
    assert corners[4][0] > 8
    box = pq.read_table(shards[0].parent / "regular.parquet", columns=["bbox"])["bbox"].to_pylist()
    np.testing.assert_allclose([tuple(row.values()) for row in box], shapely.bounds(found.geometry), rtol=0, atol=1e-9)


def test_everything_but_outlines_is_as_without_and_null_is_as_before(shards):
    plain = stitched(shards, "plain.parquet")
    regular = stitched(shards, "regular.parquet", tolerance=1.0)
    assert stitched(shards, "none.parquet", tolerance=None).read_bytes() == plain.read_bytes()
    before, after = (pq.read_table(path) for path in (plain, regular))
    assert before.schema == after.schema.with_metadata(before.schema.metadata)
    kept = [name for name in before.column_names if name not in ("geometry", "bbox")]
    assert before.select(kept).equals(after.select(kept))
    _, outlines, metadata = in_metres(plain)
    assert metadata["outlines"] == "pixels"
    assert "regularise" not in metadata
    traced = shapely.from_wkb(np.load(shards[0].parent / "traced.npy", allow_pickle=True))
    assert sorted(shapely.area(outlines).round(9)) == sorted(shapely.area(traced).round(9))


@pytest.mark.parametrize("options", [{"workers": 2}, {"workers": 2, "scheduler": "processes"}, {"block": 1}], ids=str)
def test_workers_and_blocks_do_not_matter(shards, options):
    expected = stitched(shards, "one.parquet", tolerance=1.0).read_bytes()
    assert stitched(shards, "other.parquet", tolerance=1.0, **options).read_bytes() == expected


def test_a_slide_without_instances_has_none(tmp_path):
    grid = full_grid((64, 64), 64, 0)
    paths = write_shards(tmp_path, [Instances.empty(["object"])], grid, 1)
    assert len(in_metres(stitched(paths, "none.parquet", tolerance=1.0))[0]) == 0


def test_the_command_takes_the_tolerance(shards, capsys):
    folder = shards[0].parent
    expected = stitched(shards, "expected.parquet", tolerance=1.0).read_bytes()
    words = ["stitch", *map(str, shards), "--grid", str(folder / "grid.parquet"), "--out", str(folder / "cli.parquet")]
    assert main([*words, "--regularise", "1.0"]) == 0
    assert (folder / "cli.parquet").read_bytes() == expected
    assert main([*words, "--regularise", "0"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gigaseg ")]
    assert line == "gigaseg stitch: --regularise is 0.0, accepted: a number >= 1e-09 or null"


def test_a_tolerance_that_is_no_length_is_told(shards):
    for tolerance in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"--regularise is .*, accepted: a number above 0"):
            stitched(shards, "wrong.parquet", tolerance=tolerance)


def test_simplified_outlines_lie_within_the_tolerance_on_the_ground(shards):
    _, before, _ = in_metres(stitched(shards, "plain.parquet"))
    found, after, metadata = in_metres(stitched(shards, "simple.parquet", simplify=0.7))
    assert metadata["simplify"] == 0.7
    assert metadata["outlines"] == "vector"
    assert "regularise" not in metadata
    assert len(after) == len(before)
    assert shapely.hausdorff_distance(shapely.boundary(before), shapely.boundary(after), densify=0.02).max() <= 0.7001
    assert shapely.get_num_coordinates(after).sum() < 0.4 * shapely.get_num_coordinates(before).sum()
    box = pq.read_table(shards[0].parent / "simple.parquet", columns=["bbox"])["bbox"].to_pylist()
    np.testing.assert_allclose([tuple(row.values()) for row in box], shapely.bounds(found.geometry), rtol=0, atol=1e-9)


def test_the_tolerance_is_that_of_the_place_and_not_of_the_middle_of_the_raster(shards):
    # far north in web mercator, where a metre of the map is less than half a metre on the ground
    info = replace(
        ArraySlide(np.zeros((1, 1, 3), np.uint8)).info, slide="s", unit="m", pixel_size_source="metadata",
        crs=CRS(3857).to_wkt(), transform=(0.5, 0, 1e6, 0, -0.5, 9_000_000),
    )  # fmt: skip
    info.write(shards[0].parent / "slide.json")
    factor = np.sqrt(areas_of(ground_of(info).stretch(np.zeros((1, 2)))))[0]
    found, _, _ = in_metres(stitched(shards, "there.parquet", simplify=0.7, info=shards[0].parent / "slide.json"))
    before, _, _ = in_metres(stitched(shards, "plain.parquet"))
    apart = shapely.hausdorff_distance(
        shapely.boundary(before.geometry), shapely.boundary(found.geometry), densify=0.02
    )
    assert 0.5 * 0.7 < apart.max() * factor <= 0.7001


def test_right_angles_and_fewer_corners_exclude_each_other(shards):
    with pytest.raises(ConfigError, match="--regularise and --simplify are both given, accepted: one of them"):
        stitched(shards, "wrong.parquet", tolerance=1.0, simplify=1.0)
