"""The grid step keeps the tiles worth segmenting, and only those."""

import json

import numpy as np
import pytest
import shapely
import tifffile

from gigaseg.config import ForegroundConfig, Preset, TilesConfig
from gigaseg.errors import FormatError, SlideError
from gigaseg.slides.inspect import inspect
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.grid import Grid, grid
from gigaseg.tiles.tiling import BOTTOM, LEFT, RIGHT, TOP, Tiling
from glass import write_glass

PRESET = Preset(tiles=TilesConfig(tile=100, overlap=0), foreground=ForegroundConfig(min_fraction=0.01))


@pytest.fixture
def slide(tmp_path):
    return write_glass(tmp_path, x=(300, 500), y=(300, 400))


def make(folder, preset=PRESET, side_files=(), **keys):
    preset = Preset(**{**{k: getattr(preset, k) for k in ("tiles", "foreground")}, "working_resolution": 1.0, **keys})
    return grid(folder / "slide.json", folder / "g.parquet", folder / "f.tif", preset=preset, side_files=side_files)


def test_tiles_with_foreground_and_their_neighbours_are_kept(slide):
    found = make(slide)
    fractions = {(r, c): f for r, c, f in zip(found.row.tolist(), found.col.tolist(), found.foreground.tolist())}
    inner = {(3, 3), (3, 4)}
    assert inner <= set(fractions)
    assert all(fractions[tile] > 0.9 for tile in inner)
    around = {(r, c) for r in range(2, 5) for c in range(2, 6)}
    assert around <= set(fractions)
    far = {(r, c) for r, c in fractions if r < 1 or c < 1 or c > 7}
    assert not far


def test_a_neighbour_is_kept_with_foreground_of_its_own_alone(slide):
    found = make(slide, foreground=ForegroundConfig(min_fraction=0.9))
    assert (found.foreground > 0).all()
    assert (found.foreground < 0.9).any()


def test_all_keeps_everything_and_glass_keeps_nothing(slide):
    assert make(slide, foreground=ForegroundConfig(method="all")).kept.all()
    tifffile.imwrite(
        slide / "s.tif", np.full((600, 1000, 3), 245, np.uint8), photometric="rgb", resolution=(1e4, 1e4),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    inspect(slide / "s.tif", slide="s").write(slide / "slide.json")
    empty = make(slide, tiles=TilesConfig(tile=100, overlap=0, tiles_per_shard=7))
    assert len(empty.row) == 0
    assert empty.shards == 9
    assert empty.tiles(8) == []
    assert Foreground.read(slide / "f.tif").area_px() == 0


@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 33), (100, 100), (1500, 3)])
def test_a_slide_smaller_than_a_tile_is_kept(tmp_path, width, height):
    tifffile.imwrite(
        tmp_path / "s.tif", np.full((height, width, 3), 245, np.uint8), photometric="rgb", resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    inspect(tmp_path / "s.tif", slide="s").write(tmp_path / "slide.json")
    every = make(tmp_path, tiles=TilesConfig(), foreground=ForegroundConfig(method="all"), working_resolution=0.5)
    assert every.kept.all()
    assert every.foreground.tolist() == [1.0] * len(every.row)


def test_tiles_that_polygons_touch_are_kept_wherever_they_lie(slide):
    square = json.loads(shapely.to_geojson(shapely.box(910, 10, 930, 30)))
    features = [{"type": "Feature", "properties": {}, "geometry": square}]
    (slide / "p.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = make(slide, side_files=[slide / "p.geojson"])
    assert found.kept[0, 9]
    assert not found.kept[0, 7]


def test_shards_are_contiguous_runs_of_kept_tiles(slide):
    found = make(slide, tiles=TilesConfig(tile=100, overlap=0, tiles_per_shard=8))
    assert found.shards == 8
    assert [len(found.tiles(k)) for k in range(8)] == [8, len(found.row) - 8, *[0] * 6], "full shards first"
    assert (np.diff(found.shard) >= 0).all()
    assert sum(len(found.tiles(k)) for k in range(3)) == len(found.row)
    assert [(t.row, t.col) for k in range(3) for t in found.tiles(k)] == sorted(zip(found.row, found.col))


def test_the_grid_on_disk_has_the_columns_and_attributes_of_the_design(slide):
    import pyarrow.parquet as pq

    made = make(slide)
    table = pq.read_table(slide / "g.parquet")
    assert table.column_names == ["row", "col", "x", "y", "foreground", "shard"]
    assert table["x"].to_pylist() == [100 * c for c in made.col.tolist()]
    attributes = json.loads(table.schema.metadata[b"gigaseg"])["grid"]
    assert attributes["rows"] == 6
    assert attributes["cols"] == 10
    assert attributes["unit"] == "um"


def test_a_preset_that_does_not_fit_the_slide_is_told(slide):
    with pytest.raises(SlideError, match="slide 's': pixel size is 1 um and the working resolution"):
        make(slide, working_resolution=0.01)


def test_a_foreign_file_is_no_grid(slide):
    with pytest.raises(FormatError, match=r"slide\.json"):
        Grid.read(slide / "slide.json")


def test_a_border_is_open_where_any_tile_beyond_it_was_kept():
    tiling = Tiling(64, 16, 160, 160, (1, 1), (1, 1), "px")
    kept = [(0, 0), (0, 1), (1, 2)]
    row, col = (np.array(axis, np.int32) for axis in zip(*kept))
    found = Grid(tiling, "s", row, col, np.ones(3, np.float32), np.zeros(3, np.int32), 1)
    assert found.open_sides(row, col).tolist() == [RIGHT, LEFT | RIGHT | BOTTOM, LEFT | TOP]
