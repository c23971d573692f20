"""The segment step with an expert's points: every tile is looked at, and has the points that it holds in its own px."""

import json

import numpy as np
import pytest
import tifffile
from rasterio.features import rasterize

from gigaseg.config import ForegroundConfig, MeasureConfig, Preset, SegmenterConfig, TilesConfig
from gigaseg.errors import FormatError
from gigaseg.instances.segment import segment
from gigaseg.instances.table import read_instances
from gigaseg.measure.measure import measure
from gigaseg.prompts.prompt import prompt
from gigaseg.slides.inspect import inspect
from gigaseg.stitch.stitch import stitch
from gigaseg.tiles.grid import Grid, grid
from gigaseg.tiles.store import tile
from hinted import HOLE, RADIUS

HEIGHT, WIDTH = 300, 420
POSITIVE = [(20.5, 30.0), (110.0, 60.0), (112.0, 118.0), (400.0, 290.0), (128.0, 200.0)]
NEGATIVE = [(205.0, 215.0), (262.0, 150.0)]
SQUARES = [(200, 210, 230, 240), (300, 20, 320, 40)]
"""xmin, ymin, xmax, ymax of what is dark; no point lies near the second."""


def preset(**tiles):
    return Preset(
        segmenter=SegmenterConfig(name="discs"),
        foreground=ForegroundConfig(method="all"),
        tiles=TilesConfig(**{"tile": 128, "overlap": 32, "tiles_per_shard": 8, **tiles}),
    )


def write_points(path, *extra):
    """The points as an export of QuPath has them, and more features."""
    features = [
        {
            "type": "Feature",
            "properties": {"objectType": "annotation", "classification": {"name": name}},
            "geometry": {"type": "MultiPoint", "coordinates": [list(xy) for xy in points]},
        }
        for name, points in (("Positive", POSITIVE), ("Negative", NEGATIVE))
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [*features, *extra]}))
    return path


@pytest.fixture
def slide(tmp_path, discs):
    """A white slide with two dark squares, its grid of two shards and its points."""
    image = np.full((HEIGHT, WIDTH, 3), 240, np.uint8)
    for x0, y0, x1, y1 in SQUARES:
        image[y0:y1, x0:x1] = 10
    tifffile.imwrite(tmp_path / "s.tif", image, photometric="rgb", tile=(64, 64))
    inspect(tmp_path / "s.tif", slide="s", pixel_size="px").write(tmp_path / "slide.json")
    off = {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [-3, 9]}}
    box = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}
    side = write_points(tmp_path / "p.geojson", off, {"type": "Feature", "properties": {}, "geometry": box})
    grid(*inputs(tmp_path), tmp_path / "fg.tif", preset=preset(), prompts=side)
    prompt(*inputs(tmp_path), tmp_path / "fg.tif", tmp_path / "p.parquet", prompts=side, every_tile=True)
    return tmp_path


def inputs(folder):
    return folder / "slide.json", folder / "grid.parquet"


def run(slide, out, shard=0, prompts="p.parquet", tiles=None, batch_size=3, workers=1, name="discs"):
    return segment(
        *inputs(slide), shard, out, segmenter=SegmenterConfig(name=name, batch_size=batch_size),
        prompts=slide / prompts if prompts else None, tiles=tiles, workers=workers,
    )  # fmt: skip


def expected(bounds, hinted=True):
    """What is segmented in a tile, as a mask of the slide."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x0, y0, x1, y1 in SQUARES:
        mask[y0:y1, x0:x1] = True
    y, x = np.indices(mask.shape) + 0.5
    for points, radius, value in ((POSITIVE, RADIUS, True), (NEGATIVE, HOLE, False)):
        for px, py in points if hinted else []:
            if bounds.xmin <= px < bounds.xmax and bounds.ymin <= py < bounds.ymax:
                mask[np.hypot(x - px, y - py) < radius] = value
    seen = np.zeros_like(mask)
    seen[int(bounds.ymin) : int(bounds.ymax), int(bounds.xmin) : int(bounds.xmax)] = True
    return mask & seen


@pytest.mark.parametrize("hinted", [True, False])
def test_each_tile_is_segmented_with_the_points_that_it_holds(slide, tmp_path, hinted):
    made = Grid.read(slide / "grid.parquet")
    for shard in range(2):
        run(slide, tmp_path / "i.parquet", shard, prompts="p.parquet" if hinted else None)
        found, metadata = read_instances(tmp_path / "i.parquet", stitched=False)
        assert (found.prompt == -1).all(), "an instance comes from no single point"
        assert found.classes == ("cell",)
        assert ("prompts" in metadata) == hinted
        for place in made.tiles(shard):
            mine = (found.tile_row == place.row) & (found.tile_col == place.col)
            wanted = expected(place.bounds, hinted)
            assert mine.sum() == wanted.any()
            if wanted.any():
                got = rasterize(found.geometry[mine].tolist(), out_shape=wanted.shape).astype(bool)
                np.testing.assert_array_equal(got, wanted)


def test_the_points_change_several_tiles_and_leave_others(slide):
    """So that the test above can fail."""
    made = Grid.read(slide / "grid.parquet")
    places = [place for shard in range(2) for place in made.tiles(shard)]
    differ = [(expected(p.bounds) != expected(p.bounds, hinted=False)).any() for p in places]
    alike = [expected(p.bounds).any() and not d for p, d in zip(places, differ)]
    assert len(places) == 15
    assert sum(differ) >= 8
    assert any(alike)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"tiles": True}, id="tiles from the store"),
        pytest.param({"batch_size": 1}, id="one tile a batch"),
        pytest.param({"batch_size": 8}, id="one batch"),
        pytest.param({"workers": 2, "batch_size": 1}, id="two processes"),
    ],
)
def test_where_tiles_come_from_and_how_they_are_batched_changes_no_byte(slide, tmp_path, how):
    if how.pop("tiles", False):
        how = {"tiles": tmp_path / "0.zarr.zip"}
        tile(*inputs(slide), 0, how["tiles"])
    run(slide, tmp_path / "usual.parquet")
    run(slide, tmp_path / "other.parquet", **how)
    assert (tmp_path / "usual.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()


def test_what_the_file_held_reaches_the_summary_and_no_fates_of_objects_do(slide, tmp_path):
    shards = [tmp_path / "instances" / f"{k:03d}.parquet" for k in range(2)]
    for k, path in enumerate(shards):
        run(slide, path, k)
    stitch(shards, slide / "grid.parquet", tmp_path / "instances.parquet")
    content = measure(
        tmp_path / "instances.parquet", slide / "slide.json", slide / "fg.tif", tmp_path / "m.parquet",
        tmp_path / "summary.json", config=MeasureConfig(intensity=False, spatial=False),
    )  # fmt: skip
    told = {"positive": 6, "negative": 2, "other_features": 1, "off_slide": 1, "off_tiles": 0}
    assert content["prompts"] == {"file": told}
    assert "1 prompts lie off the slide or in no tile" in content["flags"]
    assert not [flag for flag in content["flags"] if "prompted objects" in flag]


def test_points_of_another_grid_or_slide_are_told(slide, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    inspect(slide / "s.tif", slide="other", pixel_size="px").write(other / "slide.json")
    grid(*inputs(other), other / "fg.tif", preset=preset())
    prompt(*inputs(other), other / "fg.tif", slide / "o.parquet", prompts=slide / "p.geojson", every_tile=True)
    with pytest.raises(FormatError, match=r"o\.parquet: made for slide 'other', expected 's'"):
        run(slide, tmp_path / "i.parquet", prompts="o.parquet")
    inspect(slide / "s.tif", slide="s", pixel_size="px").write(other / "slide.json")
    grid(*inputs(other), other / "fg.tif", preset=preset(overlap=16))
    prompt(*inputs(other), other / "fg.tif", slide / "o.parquet", prompts=slide / "p.geojson", every_tile=True)
    with pytest.raises(FormatError, match=r"o\.parquet: made for another grid; run prompt again"):
        run(slide, tmp_path / "i.parquet", prompts="o.parquet")


def test_prompts_made_for_the_other_kind_of_segmenter_are_told(slide, tmp_path):
    """A point would else have no say in all but one of its tiles, or be decoded in each of them."""
    with pytest.raises(FormatError, match="'prompted' takes prompts made without --every-tile; run prompt again"):
        run(slide, tmp_path / "i.parquet", name="prompted")
    prompt(*inputs(slide), slide / "fg.tif", slide / "objects.parquet", prompts=slide / "p.geojson")
    with pytest.raises(FormatError, match="'discs' takes prompts made with --every-tile; run prompt again"):
        run(slide, tmp_path / "i.parquet", prompts="objects.parquet")


def test_a_file_without_points_is_as_good_as_none(slide, tmp_path):
    (slide / "none.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    files = [*inputs(slide), slide / "fg.tif"]
    prompt(*files, slide / "none.parquet", prompts=slide / "none.geojson", every_tile=True)
    rows = []
    for name in ("none.parquet", None):
        run(slide, tmp_path / "i.parquet", 1, prompts=name)
        rows.append(read_instances(tmp_path / "i.parquet", stitched=False)[0])
    assert len(rows[0]) == len(rows[1]) > 0
    assert all(a.equals(b) for a, b in zip(rows[0].geometry, rows[1].geometry))
