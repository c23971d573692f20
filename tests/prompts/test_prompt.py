"""The prompt step: prompts.parquet holds each object once, in its tile, and says what was left out."""

import json
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from gigaseg.cli import main
from gigaseg.config import ForegroundConfig, Preset, SegmenterConfig, TilesConfig
from gigaseg.errors import FormatError, SegmenterError, UpstreamFailure
from gigaseg.files import write_failure
from gigaseg.instances.prompts import tile_prompts
from gigaseg.prompts.prompt import prompt
from gigaseg.prompts.table import PromptTable
from gigaseg.tiles.grid import grid
from glass import write_glass


@pytest.fixture
def slide(tmp_path):
    return write_glass(tmp_path, x=(100, 400), y=(100, 400))


def geojson(path, *features):
    content = [{"type": "Feature", "geometry": json.loads(shapely.to_geojson(g)), "properties": p} for g, p in features]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": content}))
    return path


def make_grid(folder, side, tile=100, overlap=20, working=1.0, method="auto"):
    preset = Preset(
        segmenter=SegmenterConfig(name="watershed"), tiles=TilesConfig(tile=tile, overlap=overlap),
        foreground=ForegroundConfig(method=method), working_resolution=working,
    )  # fmt: skip
    return grid(folder / "slide.json", folder / "grid.parquet", folder / "fg.tif", preset=preset, prompts=side)


def run(folder, *features, polygons_as="box", every_tile=False, **options):
    side = geojson(folder / "p.geojson", *features)
    made = make_grid(folder, side, **options)
    table = prompt(
        folder / "slide.json", folder / "grid.parquet", folder / "fg.tif", folder / "prompts.parquet",
        prompts=side, polygons_as=polygons_as, every_tile=every_tile, digest="d",
    )  # fmt: skip
    return made, table


def test_tiles_that_points_and_polygons_touch_are_kept_wherever_they_lie(slide):
    made, table = run(slide, (shapely.Point(950, 550), {}), (shapely.box(700, 10, 705, 15), {}))
    assert made.kept[6, 11]
    assert made.kept[0, 8]
    assert not made.kept[6, 8]
    assert list(zip(table.tile_row.tolist(), table.tile_col.tolist())) == [(0, 8), (6, 11)]


def test_rows_are_ordered_by_tile_then_object_and_survive_the_file(slide):
    features = [
        (shapely.Point(320, 320), {"class": "b"}),
        (shapely.Point(150, 150).buffer(8), {"class": "a"}),
        (shapely.MultiPoint([(330, 330), (340, 330)]), {"object": "x"}),
        (shapely.Point(350, 350), {"label": 0, "object": "x"}),
    ]
    _, table = run(slide, *features, polygons_as="mask")
    again, metadata = PromptTable.read(slide / "prompts.parquet")
    for name in ("tile_row", "tile_col", "object", "kind", "label", "class_index", "score", "feature"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name), strict=True)
    np.testing.assert_array_equal(again.xy, table.xy)
    np.testing.assert_array_equal(again.box, table.box)
    assert shapely.equals(again.geometry[0], table.geometry[0])
    assert [g is None for g in again.geometry] == [False, True, True, True, True]
    assert again.classes == ("a", "b", "object")
    assert again.feature.tolist() == [1, 0, 2, 2, 3]
    assert again.object.tolist() == [1, 0, 2, 2, 2]
    assert metadata["digest"] == "d"
    assert metadata["found"]["objects"] == 3
    columns = pq.read_table(slide / "prompts.parquet")
    assert columns.column_names == [
        "prompt", "tile_row", "tile_col", "object", "kind", "x", "y", "box", "label", "class", "score", "feature",
        "geometry",
    ]  # fmt: skip
    assert columns["prompt"].to_pylist() == [0, 1, 2, 3, 4]
    assert columns["kind"].to_pylist() == ["mask", "point", "point", "point", "point"]
    assert columns["box"].to_pylist()[1] is None
    assert columns["x"].to_pylist() == [None, 320, 330, 340, 350]


def test_what_is_off_the_slide_the_foreground_or_larger_than_a_tile_is_reported_with_its_place(slide, caplog):
    features = [
        (shapely.Point(200, 200), {}),
        (shapely.Point(-5, 7), {}),
        (shapely.Point(900, 500), {}),
        (shapely.box(150, 150, 390, 200), {}),
    ]
    with caplog.at_level(logging.WARNING):
        _, table = run(slide, *features)
    assert sorted(table.feature.tolist()) == [0, 2, 3], "all but the one off the slide"
    _, metadata = PromptTable.read(slide / "prompts.parquet")
    found = metadata["found"]
    assert found["off_slide"] == {"count": 1, "first": [[-5, 7]]}
    assert found["off_foreground"] == {"count": 1, "first": [[900, 500]]}
    assert found["larger_than_tile"] == {"count": 1, "first": [[270, 175]]}
    assert found["off_tiles"]["count"] == 0
    assert "1 prompts lie off the slide and are left out; level-0 px of the first: -5, 7" in caplog.text
    assert "1 objects lie outside the foreground" in caplog.text


def test_objects_in_no_kept_tile_are_left_out_and_reported(slide):
    """The grid was made without the prompts, so that glass was not kept."""
    side = geojson(slide / "p.geojson", (shapely.Point(200, 200), {}), (shapely.Point(900, 20), {}))
    make_grid(slide, None)
    arguments = [slide / "slide.json", slide / "grid.parquet", slide / "fg.tif", slide / "prompts.parquet"]
    table = prompt(*arguments, prompts=side)
    assert table.feature.tolist() == [0]
    found = PromptTable.read(slide / "prompts.parquet")[1]["found"]
    assert found["off_tiles"] == {"count": 1, "first": [[900, 20]]}


def test_places_are_told_in_level0_pixels_whatever_the_working_resolution(slide):
    run(slide, (shapely.Point(900, 500), {}), working=2.0, tile=64, overlap=8)
    found = PromptTable.read(slide / "prompts.parquet")[1]["found"]
    assert found["off_foreground"] == {"count": 1, "first": [[900, 500]]}


def test_each_object_comes_to_exactly_one_tile_in_that_tiles_pixels(slide):
    rng = np.random.default_rng(1)
    xy = rng.uniform(0, (1000, 600), (80, 2))
    made, table = run(slide, *[(shapely.Point(p), {}) for p in xy], method="all")
    seen = {}
    for tile in made.tiles(0):
        mine = tile_prompts(table, tile)
        assert mine.boxes is None
        assert (mine.labels == 1).all()
        for id, at in zip(mine.id.tolist(), mine.points.reshape(-1, 2) + (tile.bounds.xmin, tile.bounds.ymin)):
            assert id not in seen
            seen[id] = at
    assert sorted(seen) == list(range(80))
    np.testing.assert_allclose([seen[i] for i in range(80)], xy[table.feature], atol=1e-3)


def test_prompts_of_one_object_are_one_row_padded_with_none(slide):
    features = [
        (shapely.MultiPoint([(130, 130), (136, 130)]), {"object": 1}),
        (shapely.Point(140, 140), {"object": 1, "label": 0}),
        (shapely.box(120, 120, 144, 148), {"object": 1}),
        (shapely.Point(133, 160), {"class": "c"}),
        (shapely.Point(150, 300), {"object": 1, "label": 0}),
    ]
    made, table = run(slide, *features)
    tile = made.tiling.get(int(table.tile_row[0]), int(table.tile_col[0]))
    mine = tile_prompts(table, tile)
    origin = np.array([tile.bounds.xmin, tile.bounds.ymin])
    assert mine.id.tolist() == [0, 5], "an object's id is its first prompt; 6 rows"
    np.testing.assert_array_equal(mine.labels, [[1, 1, 0], [1, -1, -1]])
    np.testing.assert_allclose(mine.points[0] + origin, [(130, 130), (136, 130), (140, 140)])
    assert np.isnan(mine.points[1, 1:]).all()
    np.testing.assert_allclose(mine.boxes[0] + np.tile(origin, 2), (120, 120, 144, 148))
    assert np.isnan(mine.boxes[1]).all()
    assert [table.classes[i] for i in mine.class_index] == ["object", "c"]


def test_boxes_and_outlines_are_clipped_to_the_tile(slide):
    big = shapely.box(110, 150, 390, 170)
    made, table = run(slide, (big, {}), polygons_as="mask")
    tile = made.tiling.get(int(table.tile_row[0]), int(table.tile_col[0]))
    mine = tile_prompts(table, tile)
    assert mine.boxes[0, [0, 2]].tolist() == [0, 100]
    assert mine.masks[0].bounds == (0, 150 - tile.bounds.ymin, 100, 170 - tile.bounds.ymin)


def test_a_tile_without_prompts_has_none(slide):
    made, table = run(slide, (shapely.Point(200, 200), {}))
    other = made.tiling.get(0, 0)
    assert len(tile_prompts(table, other).id) == 0


def test_without_a_file_the_column_of_the_sheet_is_named(slide):
    make_grid(slide, None)
    with pytest.raises(SegmenterError, match="slide 's': its segmenter needs the column 'prompts' of the sample sheet"):
        prompt(slide / "slide.json", slide / "grid.parquet", slide / "fg.tif", slide / "x.parquet", prompts=None)


def test_a_failed_grid_is_passed_on_by_the_command_as_a_record(slide):
    run(slide, (shapely.Point(200, 200), {}))
    write_failure(slide / "grid.parquet", "grid", "no data")
    command = ["prompt", str(slide / "slide.json"), str(slide / "grid.parquet"), "--foreground", str(slide / "fg.tif")]
    command += ["--prompts", str(slide / "p.geojson"), "--out", str(slide / "prompts.parquet")]
    assert main(command) == 2
    assert main([*command, "--record-failure"]) == 0
    with pytest.raises(UpstreamFailure, match="step 'grid' failed before: no data"):
        PromptTable.read(slide / "prompts.parquet")


def test_a_foreign_file_is_no_prompt_table(slide):
    run(slide, (shapely.Point(200, 200), {}))
    with pytest.raises(FormatError, match="expected 'gigaseg/prompts/1'"):
        PromptTable.read(slide / "grid.parquet")


def test_a_file_of_prompts_that_cannot_be_read_fails_the_grid_in_one_line(slide):
    (slide / "broken.geojson").write_text("{")
    with pytest.raises(FormatError, match=r"broken\.geojson: cannot be read as polygons or points"):
        make_grid(slide, slide / "broken.geojson")


@pytest.mark.parametrize(
    ("xy", "tiles"),
    [
        pytest.param((50, 50), [(0, 0)], id="one tile"),
        pytest.param((90, 50), [(0, 0), (0, 1)], id="overlap of two, side by side"),
        pytest.param((50, 90), [(0, 0), (1, 0)], id="overlap of two, one below the other"),
        pytest.param((90, 170), [(1, 0), (1, 1), (2, 0), (2, 1)], id="overlap of four"),
        pytest.param((80, 50), [(0, 0), (0, 1)], id="the first pixel of the next tile is its own"),
        pytest.param((100, 50), [(0, 1)], id="the end of a tile is not its own"),
        pytest.param((100, 100), [(1, 1)], id="nor is its corner"),
        pytest.param((999.9, 599.9), [(7, 12)], id="the slide's last pixel"),
    ],
)
def test_a_hint_goes_to_every_tile_that_holds_it(slide, xy, tiles):
    """Tiles of 100 px begin every 80 px."""
    made, table = run(slide, (shapely.Point(xy), {}), method="all", every_tile=True)
    assert list(zip(table.tile_row.tolist(), table.tile_col.tolist())) == tiles
    for row, col in tiles:
        tile = made.tiling.get(row, col)
        hints = tile_prompts(table, tile)
        assert hints.points.shape == (1, 1, 2)
        np.testing.assert_allclose(hints.points[0, 0], xy - np.array([80 * col, 80 * row]), atol=1e-4)
        assert hints.labels.tolist() == [[1]]


def test_hints_are_points_each_by_itself_with_its_sign(slide):
    features = [
        (shapely.MultiPoint([(10, 10), (90, 10)]), {"object": "a", "class": "tumour"}),
        (shapely.Point(20, 20), {"label": "negative", "object": "a"}),
        (shapely.Point(30, 30), {"classification": {"name": "Negative"}}),
        (shapely.Point(40, 40), {"classification": {"name": "Positive"}}),
    ]
    made, table = run(slide, *features, method="all", every_tile=True)
    assert table.object.tolist() == [0, 1, 2, 3, 4, 1]
    assert table.feature.tolist() == [0, 0, 1, 2, 3, 0]
    assert table.classes == ("object",)
    hints = tile_prompts(table, made.tiling.get(0, 0))
    assert hints.id.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(hints.points[:, 0], [(10, 10), (90, 10), (20, 20), (30, 30), (40, 40)])
    assert hints.labels.tolist() == [[1], [1], [0], [0], [1]]
    assert (hints.points.dtype, hints.labels.dtype) == (np.float32, np.int8)
    assert len(tile_prompts(table, made.tiling.get(3, 3)).id) == 0
    _, metadata = PromptTable.read(slide / "prompts.parquet")
    assert metadata["every_tile"] is True
    assert (metadata["found"]["positive"], metadata["found"]["negative"]) == (3, 2)


def test_negative_hints_alone_are_accepted(slide):
    _, table = run(slide, (shapely.Point(90, 90), {"label": 0}), method="all", every_tile=True)
    assert table.label.tolist() == [0] * 4


def test_a_label_that_is_neither_is_told_for_hints_too(slide):
    with pytest.raises(FormatError, match=r"label of point feature 0 is 'maybe', accepted: positive, negative, 1, 0"):
        run(slide, (shapely.Point(90, 90), {"label": "maybe"}), method="all", every_tile=True)


def test_what_is_no_point_is_left_out_of_the_hints_and_counted(slide, caplog):
    features = [
        (shapely.box(10, 10, 30, 30), {}),
        (shapely.Point(50, 50), {}),
        (shapely.Point(70, 70).buffer(9), {"label": "maybe"}),
        (shapely.LineString([(0, 0), (9, 9)]), {}),
    ]
    _, table = run(slide, *features, method="all", every_tile=True)
    assert table.feature.tolist() == [1]
    assert PromptTable.read(slide / "prompts.parquet")[1]["found"]["other_features"] == 3
    assert "3 features of other kinds than points are left out" in caplog.text


@pytest.mark.parametrize("features", [[], [(shapely.box(10, 10, 30, 30), {})]], ids=["nothing", "a box"])
def test_a_file_without_points_gives_no_hints_and_a_warning(slide, features, caplog):
    run(slide, *features, every_tile=True)
    table, metadata = PromptTable.read(slide / "prompts.parquet")
    assert len(table) == 0
    assert metadata["found"]["positive"] == metadata["found"]["negative"] == 0
    assert "holds no point; the slide is segmented without hints" in caplog.text


def test_hints_off_the_slide_or_in_no_kept_tile_are_left_out_and_told_with_their_place(slide, caplog):
    """The grid was made without the points, so that glass was not kept. Level-0 px are half a working px."""
    places = [(200, 200), (900, 20), (-5, 7), (1000, 300)]
    side = geojson(slide / "p.geojson", *[(shapely.Point(xy), {"label": i % 2}) for i, xy in enumerate(places)])
    make_grid(slide, None, working=2.0, tile=64, overlap=8)
    arguments = [slide / "slide.json", slide / "grid.parquet", slide / "fg.tif", slide / "prompts.parquet"]
    table = prompt(*arguments, prompts=side, every_tile=True)
    assert table.xy.tolist() == [[100, 100]]
    assert PromptTable.read(slide / "prompts.parquet")[1]["found"] == {
        "positive": 2,
        "negative": 2,
        "other_features": 0,
        "off_slide": {"count": 2, "first": [[-5, 7], [1000, 300]]},
        "off_tiles": {"count": 1, "first": [[900, 20]]},
    }
    assert "2 points lie off the slide and are left out; level-0 px of the first: -5, 7; 1000, 300" in caplog.text


def test_hints_that_all_lie_off_the_slide_are_an_error(slide):
    with pytest.raises(FormatError, match=r"none of its 2 points lies on slide 's'; wrong CRS or slide\?"):
        run(slide, (shapely.MultiPoint([(-5, 7), (1001, 300)]), {}), method="all", every_tile=True)


def test_a_hint_just_before_the_end_of_a_tile_stays_in_it_as_float32(slide):
    made, table = run(slide, (shapely.Point(100 - 1e-7, 50), {}), method="all", every_tile=True)
    hints = tile_prompts(table, made.tiling.get(0, 0))
    assert 99.99 < hints.points[0, 0, 0] < 100


def test_tiles_of_hints_are_kept_wherever_they_lie_those_of_polygons_are_not(slide, discs):
    side = geojson(slide / "p.geojson", (shapely.Point(950, 550), {}), (shapely.box(700, 10, 705, 15), {}))
    preset = Preset(segmenter=SegmenterConfig(name="discs"), tiles=TilesConfig(tile=100, overlap=20))
    made = grid(slide / "slide.json", slide / "grid.parquet", slide / "fg.tif", preset=preset, prompts=side)
    assert made.kept[6, 11]
    assert not made.kept[0, 8]
