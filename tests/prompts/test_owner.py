"""Each object belongs to the one kept tile in which it lies most centrally."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from gigaseg.prompts.owner import centrality, holders, owners, point_owners, seen_better
from gigaseg.tiles.tiling import Tiling


def every_tile(tiling):
    return tuple(axis.reshape(-1).astype(np.int32) for axis in np.indices((tiling.rows, tiling.cols)))


def owners_of_boxes(boxes, tiling, tiles=None):
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    return owners(boxes, shapely.box(*boxes.T), np.arange(len(boxes)), tiles or every_tile(tiling), tiling)


TILING = Tiling(100, 20, 340, 260, (1, 1), (1, 1), "px")  # 3 rows of 4 tiles, starts 0, 80, 160, 240


@pytest.mark.parametrize(
    ("box", "tile"),
    [
        ((1, 1, 5, 5), (0, 0)),  # the slide's edge is no inner border
        ((335, 1, 340, 5), (0, 3)),
        ((85, 40, 89, 44), (0, 0)),  # in the overlap 80..100, nearer to its left end
        ((92, 40, 96, 44), (0, 1)),
        ((88, 40, 92, 44), (0, 0)),  # in its middle: the first in the grid's order
        ((88, 92, 92, 96), (1, 0)),
        ((70, 40, 95, 44), (0, 0)),  # only one tile holds all of it
        ((60, 40, 190, 44), (0, 1)),  # larger than a tile: the tile around its middle
        ((0, 0, 340, 260), (1, 1)),
    ],
)
def test_the_most_central_tile_owns_a_box(box, tile):
    (owner,) = owners_of_boxes([box], TILING)
    assert divmod(int(owner), TILING.cols) == tile


def test_a_tile_without_a_point_of_the_object_does_not_own_it():
    """Two points far apart: the tile between them sees neither."""
    points = shapely.points([(10.0, 10.0), (330.0, 10.0)])
    (owner,) = owners(np.array([[10.0, 10, 330, 10]]), points, np.zeros(2, np.int64), every_tile(TILING), TILING)
    assert divmod(int(owner), TILING.cols) == (0, 0)


def test_only_kept_tiles_own_objects():
    kept = (np.array([0, 1], np.int32), np.array([1, 1], np.int32))
    assert owners_of_boxes([(85, 40, 89, 44), (10, 10, 20, 20)], TILING, kept).tolist() == [0, -1]
    none = (np.empty(0, np.int32), np.empty(0, np.int32))
    assert owners_of_boxes([(85, 40, 89, 44)], TILING, none).tolist() == [-1]


def test_without_overlap_a_point_on_a_seam_belongs_to_the_tile_whose_pixel_it_is():
    tiling = Tiling(100, 0, 300, 100, (1, 1), (1, 1), "px")
    xs = np.array([99.999, 100.0, 299.5])
    extent = np.column_stack([xs, xs * 0 + 5] * 2)
    found = owners(extent, shapely.points(extent[:, :2]), np.arange(3), every_tile(tiling), tiling)
    assert found.tolist() == [0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(
    tile=st.integers(32, 90), share=st.floats(0, 0.5), width=st.integers(20, 400), height=st.integers(20, 400),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_an_object_smaller_than_the_overlap_lies_whole_in_its_tile(tile, share, width, height, seed):
    """And as centrally as in any tile, looked at one by one."""
    overlap = int(tile * share)
    tiling = Tiling(tile, overlap, width, height, (1, 1), (1, 1), "px")
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.1, max(overlap, 1), (20, 2))
    low = rng.uniform(0, 1, (20, 2)) * np.maximum(np.array([width, height]) - size, 0)
    boxes = np.column_stack([low, np.minimum(low + size, [width, height])])
    found = owners_of_boxes(boxes, tiling)
    row, col = every_tile(tiling)
    for box, owner in zip(boxes, found):
        every = centrality(np.tile(box, (len(row), 1)), row, col, tiling)[:, 0]
        assert every[owner] == every.max()
        if overlap:
            bounds = tiling.bounds(int(row[owner]), int(col[owner]))
            assert bounds.xmin - 1e-9 <= box[0]
            assert box[2] <= bounds.xmax + 1e-9
            assert bounds.ymin - 1e-9 <= box[1]
            assert box[3] <= bounds.ymax + 1e-9


TILINGS = st.builds(
    lambda tile, share, width, height: Tiling(tile, int(share * tile), width, height, (1, 1), (1, 1), "px"),
    st.integers(16, 60), st.floats(0, 0.5), st.integers(1, 300), st.integers(1, 300),
)  # fmt: skip


def some_tiles(tiling, rng):
    row, col = every_tile(tiling)
    kept = rng.random(len(row)) < 0.7
    return row[kept], col[kept]


def some_points(tiling, rng):
    """Random ones, and some on borders."""
    xy = rng.uniform(0, [tiling.width, tiling.height], (200, 2))
    xy[::3] = np.round(xy[::3])
    xy[::7] = np.round(xy[::7] / tiling.stride) * tiling.stride
    return np.minimum(xy, np.nextafter([tiling.width, tiling.height], 0))


@given(TILINGS, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_points_have_the_owner_that_objects_of_one_point_have(tiling, seed):
    rng = np.random.default_rng(seed)
    tiles, xy = some_tiles(tiling, rng), some_points(tiling, rng)
    wanted = owners(np.tile(xy, 2), shapely.points(xy), np.arange(len(xy)), tiles, tiling)
    np.testing.assert_array_equal(point_owners(xy, tiles, tiling), wanted)


@given(TILINGS, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_every_place_of_kept_tiles_counts_in_one_of_them(tiling, seed):
    """And where it does not count, a neighbour has it three times as far from its border."""
    rng = np.random.default_rng(seed)
    tiles, xy = some_tiles(tiling, rng), some_points(tiling, rng)
    point, tile = holders(shapely.points(xy), tiles, tiling)
    place = (tiles[0][tile], tiles[1][tile])
    left_out = seen_better(xy[point], place, tiles, tiling)
    assert set(point[~left_out]) == set(point)
    distance = centrality(np.tile(xy[point], 2), *place, tiling)[:, 0]
    assert (distance[left_out] <= tiling.overlap / 4).all()
    if len(tiles[0]) == tiling.rows * tiling.cols:
        assert (distance[~left_out] >= tiling.overlap / 4).all()
