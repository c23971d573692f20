"""Tile arithmetic is exact for any size, overlap and working resolution."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigaseg.config import Preset, TilesConfig
from gigaseg.errors import ConfigError, SlideError
from gigaseg.segmenters.card import Card
from gigaseg.slides.base import Level
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tiling
from gigaseg.tiles.working import shards_of, working_tiling


@st.composite
def tilings(draw):
    tile = draw(st.integers(2, 40))
    return Tiling(
        tile,
        draw(st.integers(0, tile // 2)),
        draw(st.integers(1, 200)),
        draw(st.integers(1, 200)),
        (1, 1),
        (1, 1),
        "px",
    )


@settings(deadline=None)
@given(tilings())
def test_tiles_cover_the_slide_and_neighbours_share_exactly_the_overlap(tiling):
    seen = np.zeros((tiling.height, tiling.width), int)
    for row in range(tiling.rows):
        for col in range(tiling.cols):
            bounds = tiling.bounds(row, col)
            assert bounds.xmin < tiling.width
            assert bounds.ymin < tiling.height
            seen[int(bounds.ymin) : int(bounds.ymax), int(bounds.xmin) : int(bounds.xmax)] += 1
            if col:
                assert tiling.bounds(row, col - 1).xmax - bounds.xmin == tiling.overlap
    assert seen.min() >= 1
    assert tiling.bounds(tiling.rows - 1, tiling.cols - 1).xmax >= tiling.width
    if tiling.cols > 1:
        assert tiling.bounds(0, tiling.cols - 2).xmax < tiling.width, "the last column is needed"


@settings(deadline=None)
@given(tilings())
def test_cores_partition_the_slide(tiling):
    area = 0.0
    for row in range(tiling.rows):
        for col in range(tiling.cols):
            core = tiling.get(row, col).core
            area += core.width * core.height
    last = tiling.bounds(tiling.rows - 1, tiling.cols - 1)
    assert area == last.xmax * last.ymax


def test_a_slide_smaller_than_a_tile_is_one_tile():
    tiling = Tiling(1024, 64, 300, 200, (1, 1), (1, 1), "px")
    assert (tiling.rows, tiling.cols) == (1, 1)


def test_a_tile_outside_the_grid_is_an_error():
    with pytest.raises(IndexError):
        Tiling(64, 8, 100, 100, (1, 1), (1, 1), "px").get(0, 2)


def card(**changes):
    values = {
        "name": "x", "summary": "", "tile": 1024, "overlap": 64, "pixel_size": 0.5, "unit": "um",
        "object_diameter": 16.0, "classes": ("a",), "needs_gpu": False, "needs_prompts": False,
        "needs_annotations": False, "outlines": "pixels", "checkpoint": None, "revision": 1, "options": {},
    }  # fmt: skip
    return Card(**{**values, **changes})


def levels(width, height, *downsamples):
    return [Level(round(width / d), round(height / d), d, d) for d in (1.0, *downsamples)]


def scale_of(size, preset=None, unit="um", downsamples=(4.0,), **changes):
    found = working_tiling(
        8000, 6000, levels(8000, 6000, *downsamples), size, unit, preset or Preset(), card(**changes), "s"
    )
    assert found.width == int(np.ceil(8000 / found.scale[0] - 1e-6))
    assert found.pixel_size == (size[0] * found.scale[0], size[1] * found.scale[1])
    return found.scale


def test_the_card_decides_the_working_resolution_and_the_preset_overrides_it():
    assert scale_of((0.2, 0.2)) == (2.5, 2.5)
    assert scale_of((0.25, 0.25), Preset(working_resolution=1.5)) == (6.0, 6.0)
    assert scale_of((0.25, 0.25), Preset(object_diameter=12.0)) == (3.0, 3.0)


def test_a_level_close_to_the_working_resolution_is_taken_as_it_is():
    assert scale_of((0.499, 0.499)) == (1.0, 1.0)
    assert scale_of((0.1264, 0.1264), downsamples=(4.0003,)) == (4.0003, 4.0003)
    assert scale_of((0.45, 0.45)) == (0.5 / 0.45, 0.5 / 0.45)


def test_pixels_that_are_not_square_get_a_scale_each():
    assert scale_of((0.25, 0.2)) == (2.0, 2.5)


def test_slides_in_pixels_and_cards_of_another_unit_work_at_level_0():
    assert scale_of((1.0, 1.0), unit="px") == (1.0, 1.0)
    assert scale_of((0.25, 0.25), pixel_size=None, unit="um") == (1.0, 1.0)
    assert scale_of((0.15, 0.15), Preset(unit="m"), unit="m") == (1.0, 1.0)


def test_an_absurd_enlargement_is_refused_with_both_sizes():
    with pytest.raises(SlideError, match=r"pixel size is 149000 um and the working resolution 0\.5 um"):
        scale_of((149000.0, 149000.0))


def test_an_overlap_of_more_than_half_a_tile_is_refused():
    with pytest.raises(ConfigError, match="overlap is 100"):
        scale_of((0.5, 0.5), Preset(tiles=TilesConfig(tile=128, overlap=100)))


def test_shards_come_from_the_bounding_grid():
    tiling = Tiling(64, 0, 640, 640, (1, 1), (1, 1), "px")
    assert [shards_of(tiling.rows * tiling.cols, n) for n in (1, 30, 99, 100, 1000)] == [100, 4, 2, 1, 1]


def test_a_grid_survives_its_file_and_hands_out_every_tile_once(tmp_path):
    tiling = Tiling(64, 16, 300, 200, (2.0, 2.5), (0.5, 0.5), "um")
    row, col = np.nonzero(np.ones((tiling.rows, tiling.cols), bool))
    n = len(row)
    grid = Grid(
        tiling, "s", row.astype("i4"), col.astype("i4"), np.ones(n, "f4"), (np.arange(n) * 3 // n).astype("i4"), 3
    )
    grid.write(tmp_path / "grid.parquet", "abc")
    again = Grid.read(tmp_path / "grid.parquet")
    assert again.tiling == tiling
    tiles = [(tile.row, tile.col) for shard in range(3) for tile in again.tiles(shard)]
    assert tiles == list(zip(row, col))
