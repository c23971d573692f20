"""Stitching gives back the untiled label image, whatever the tiles."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize

from gigaseg.instances.polygons import polygons_from_labels
from gigaseg.instances.table import Instances
from gigaseg.stitch.stitch import stitch_instances
from gigaseg.testing.labels import LABEL_KINDS, label_image
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tiling
from stitching import full_grid, make, oracle, painted, same_partition, scenes, steady, usual_scenes


@steady(120)
@given(scenes())
def test_an_oracle_gives_back_the_untiled_label_image(scene):
    labels, tile, overlap = scene
    grid = full_grid(labels.shape, tile, overlap)
    found, counts = stitch_instances(Instances.concat(oracle(labels, grid)), grid)
    ids, truth = polygons_from_labels(labels)
    assert len(found) == len(ids)
    assert shapely.is_valid(found.geometry).all()
    assert same_partition(painted(found, labels.shape), labels)
    assert counts.skipped == 0
    assert counts.cut == counts.unmatched == 0
    assert counts.conflicts == counts.dropped == 0
    assert sorted(shapely.area(found.geometry)) == sorted(shapely.area(truth))


@pytest.mark.parametrize("kind", LABEL_KINDS)
@pytest.mark.parametrize(("tile", "overlap"), [(64, 1), (96, 48), (256, 3), (512, 256), (1024, 64)])
def test_tiles_of_usual_sizes_give_back_the_untiled_label_image(kind, tile, overlap):
    labels = label_image(kind, (3 * tile // 2 + 150, 300), tile)
    grid = full_grid(labels.shape, tile, overlap)
    found, counts = stitch_instances(Instances.concat(oracle(labels, grid)), grid)
    assert len(found) == labels.max()
    assert counts.tile_instances > len(found)
    assert same_partition(painted(found, labels.shape), labels)
    assert counts.skipped == counts.cut == counts.conflicts == 0


@steady(150)
@given(usual_scenes())
def test_tiles_of_64_to_1024_px_give_back_the_untiled_label_image(scene):
    labels, tile, overlap = scene
    grid = full_grid(labels.shape, tile, overlap)
    found, counts = stitch_instances(Instances.concat(oracle(labels, grid)), grid)
    assert len(found) == labels.max()
    assert shapely.is_valid(found.geometry).all()
    assert same_partition(painted(found, labels.shape), labels)
    assert counts.skipped == counts.cut == counts.conflicts == counts.dropped == 0


@steady(40)
@given(usual_scenes(), usual_scenes())
def test_the_grid_does_not_matter(scene, other):
    labels, tile, overlap = scene
    outlines = []
    for size, common in ((tile, overlap), other[1:]):
        grid = full_grid(labels.shape, size, common)
        found, _ = stitch_instances(Instances.concat(oracle(labels, grid)), grid)
        outlines.append(sorted(shapely.to_wkb(shapely.normalize(found.geometry))))
    assert outlines[0] == outlines[1]


@steady(40)
@given(scenes(), st.randoms(use_true_random=False))
def test_the_order_of_tiles_does_not_matter(scene, random):
    labels, tile, overlap = scene
    grid = full_grid(labels.shape, tile, overlap)
    parts = oracle(labels, grid)
    straight, _ = stitch_instances(Instances.concat(parts), grid)
    random.shuffle(parts)
    shuffled, _ = stitch_instances(Instances.concat(parts), grid)
    assert shapely.to_wkb(straight.geometry).tolist() == shapely.to_wkb(shuffled.geometry).tolist()
    assert straight.to_arrow().equals(shuffled.to_arrow())


@steady(60)
@given(scenes(), st.integers(0, 10**6))
def test_kept_tiles_hold_every_pixel_of_theirs_exactly_once(scene, seed):
    labels, tile, overlap = scene

    def kept(tiling):
        return np.random.default_rng(seed).random((tiling.rows, tiling.cols)) < 0.7

    grid = full_grid(labels.shape, tile, overlap, kept)
    if not len(grid.row):
        return
    seen = np.zeros(labels.shape, bool)
    for row, col in zip(grid.row, grid.col):
        y, x = int(row) * grid.tiling.stride, int(col) * grid.tiling.stride
        seen[y : y + tile, x : x + tile] = True
    found, _ = stitch_instances(Instances.concat(oracle(labels, grid)), grid)
    image = np.zeros(labels.shape, np.int32)
    times = np.zeros(labels.shape, np.int32)
    for geometry in found.geometry:
        mask = rasterize([geometry], out_shape=labels.shape).astype(bool)
        assert len(np.unique(labels[mask])) == 1, "an instance holds pixels of two objects"
        image[mask] = labels[mask]
        times += mask
    assert (times[seen & (labels > 0)] == 1).all()
    assert np.array_equal(image, np.where(seen, labels, 0))


def test_an_object_that_runs_through_an_unkept_tile_and_comes_back_is_kept_on_both_sides():
    # a U whose bend lies in a row of tiles that was not kept: both tiles see its left arm, one sees the right arm
    labels = np.zeros((112, 112), np.int32)
    labels[40:100, 45:52] = labels[20:100, 70:76] = labels[90:100, 45:76] = 1
    grid = full_grid(labels.shape, 64, 16, lambda tiling: np.arange(tiling.rows)[:, None] == [0, 0])
    found, _ = stitch_instances(Instances.concat(oracle(labels, grid)), grid)
    seen = np.where(np.arange(112)[:, None] < 64, labels, 0)
    assert np.array_equal(painted(found, labels.shape), seen)


@steady(30)
@given(scenes(min_overlap=0).filter(lambda scene: scene[0].max() > 0))
def test_without_overlap_nothing_is_lost_or_doubled(scene):
    labels, tile, _ = scene
    grid = full_grid(labels.shape, tile, 0)
    found, counts = stitch_instances(Instances.concat(oracle(labels, grid)), grid)
    times = np.zeros(labels.shape, np.int32)
    for geometry in found.geometry:
        times += rasterize([geometry], out_shape=labels.shape)
    assert np.array_equal(times, (labels > 0).astype(np.int32))
    assert counts.unconfirmed == counts.joined


def test_pieces_with_coinciding_edges_join_without_overlap():
    labels = np.zeros((64, 128), np.int32)
    labels[10:20, 50:80] = 1
    labels[30:40, 64:80] = 2
    grid = full_grid(labels.shape, 64, 0)
    found, counts = stitch_instances(Instances.concat(oracle(labels, grid)), grid)
    assert [g.bounds for g in found.geometry] == [(50, 10, 80, 20), (64, 30, 80, 40)]
    assert (counts.unconfirmed, counts.unions) == (1, 1)


def test_an_instance_on_the_corner_of_four_tiles_is_counted_once():
    labels = np.zeros((112, 112), np.int32)
    labels[50:62, 50:62] = 1
    grid = full_grid(labels.shape, 64, 16)
    parts = oracle(labels, grid)
    assert [len(part) for part in parts][:2] == [1, 1]
    found, counts = stitch_instances(Instances.concat(parts), grid)
    assert [g.bounds for g in found.geometry] == [(50, 50, 62, 62)]
    assert counts.joined == counts.tile_instances - 1
    assert found.members.tolist() == [counts.tile_instances]


def test_an_object_larger_than_a_tile_becomes_the_union_of_its_pieces():
    labels = np.zeros((200, 200), np.int32)
    labels[5:195, 5:195] = 1
    labels[60:140, 60:140] = 0
    grid = full_grid(labels.shape, 64, 8)
    found, counts = stitch_instances(Instances.concat(oracle(labels, grid)), grid)
    assert len(found) == counts.unions == 1
    assert found.geometry[0].equals(shapely.box(5, 5, 195, 195).difference(shapely.box(60, 60, 140, 140)))
    assert shapely.get_num_coordinates(found.geometry[0]) == 10


def test_neighbours_that_touch_are_never_merged():
    labels = np.zeros((64, 112), np.int32)
    labels[10:40, 40:56] = 1
    labels[10:40, 56:70] = 2
    grid = full_grid(labels.shape, 64, 16)
    found, _ = stitch_instances(Instances.concat(oracle(labels, grid)), grid)
    assert [g.bounds for g in found.geometry] == [(40, 10, 56, 40), (56, 10, 70, 40)]


def test_the_most_central_whole_instance_represents_an_object_that_two_tiles_drew_differently():
    # tiles [0, 64) and [48, 112): both see the object whole, the left tile nearer to its border
    left, right = shapely.box(50, 10, 63, 20), shapely.box(49, 10, 61, 20)
    both = make([left, right], [0, 0], [0, 1], [0, 0])
    found, counts = stitch_instances(both, full_grid((64, 112), 64, 16))
    assert found.geometry[0].equals(left), "both are 1 px from an open border: the first tile wins"
    assert counts.joined == 1
    right = shapely.box(51, 10, 61, 20)
    found, _ = stitch_instances(make([left, right], [0, 0], [0, 1], [0, 0]), full_grid((64, 112), 64, 16))
    assert found.geometry[0].equals(right)


def test_a_cut_piece_joins_the_partner_that_covers_it_best():
    # the left tile cuts the object at x = 64, the right tile sees all of it and draws it larger
    piece, object_, other = (
        shapely.box(60, 10, 64, 20),
        shapely.box(56, 0, 80, 21),
        shapely.box(60, 21, 70, 40),
    )
    found, _ = stitch_instances(
        make([piece, object_, other], [0, 0, 0], [0, 1, 1], [4, 0, 0]), full_grid((64, 112), 64, 16)
    )
    assert len(found) == 2
    assert found.geometry[0].equals(object_)


def test_two_whole_instances_of_one_tile_are_never_put_together():
    # the left tile drew one object over what the right tile, which sees both whole, drew as two
    one = shapely.box(50, 10, 64, 30)
    top, bottom = shapely.box(50, 10, 70, 21), shapely.box(50, 21, 70, 30)
    scene = make([one, top, bottom], [0, 0, 0], [0, 1, 1], [4, 0, 0])
    found, counts = stitch_instances(scene, full_grid((64, 112), 64, 16), agreement=0.4)
    assert counts.skipped == 1
    assert sorted(g.bounds for g in found.geometry) == [(50, 10, 70, 21), (50, 21, 70, 30)]


def test_an_instance_at_a_tile_border_without_a_kept_neighbour_stays_and_is_counted():
    labels = np.zeros((64, 160), np.int32)
    labels[10:20, 50:90] = 1
    grid = full_grid(labels.shape, 64, 16, lambda tiling: np.arange(tiling.cols)[None] == 0)
    found, counts = stitch_instances(Instances.concat(oracle(labels, grid)), grid)
    assert [g.bounds for g in found.geometry] == [(50, 10, 64, 20)]
    assert counts.cut == 1
    assert found.cut.tolist() == [4]


def test_an_instance_cut_at_a_seam_whose_continuation_was_missed_or_answers_another_prompt_is_counted():
    left, right = shapely.box(0, 10, 64, 20), shapely.box(48, 10, 112, 20)
    grid = full_grid((64, 112), 64, 16)
    both = replace(make([left, right], [0, 0], [0, 1], [4, 1]), prompt=np.array([1, 2]))
    found, counts = stitch_instances(both, grid)
    assert (len(found), counts.unmatched, counts.cut) == (2, 2, 0)
    found, counts = stitch_instances(both.take([0]), grid)
    assert (len(found), counts.unmatched, counts.cut) == (1, 1, 0)
    assert found.cut.tolist() == [0]
    _, counts = stitch_instances(replace(both, prompt=np.array([1, 1])), grid)
    assert (counts.unions, counts.unmatched) == (1, 0)


def test_score_and_class_of_a_union_are_weighted_by_area():
    scene = Instances(
        geometry=np.array(
            [shapely.box(0, 0, 64, 10), shapely.box(48, 0, 112, 10), shapely.box(96, 0, 144, 10)], object
        ),
        score=np.array([1.0, 0.5, 0.5], np.float32),
        class_index=np.array([0, 1, 1], np.int32),
        class_prob=np.array([[0.9, 0.1], [0.2, 0.8], [0.0, 1.0]], np.float32),
        tile_row=np.zeros(3, np.int32),
        tile_col=np.arange(3, dtype=np.int32),
        cut=np.array([4, 5, 1], np.uint8),
        prompt=np.full(3, -1),
        classes=("small", "large"),
    )
    found, _ = stitch_instances(scene, full_grid((64, 144), 64, 16))
    assert len(found) == 1
    weights = np.array([640, 640, 480]) / 1760
    assert found.score[0] == pytest.approx(weights @ scene.score)
    assert found.class_prob[0] == pytest.approx(weights @ scene.class_prob)
    assert found.class_index[0] == 1


def test_level0_geometry_is_working_geometry_times_scale():
    tiling = Tiling(64, 16, 100, 60, (2.0, 4.0), (1.0, 1.0), "um")
    grid = Grid(
        tiling,
        "s",
        np.zeros(1, np.int32),
        np.zeros(1, np.int32),
        np.ones(1, np.float32),
        np.zeros(1, np.int32),
        1,
    )
    found, _ = stitch_instances(make([shapely.box(1, 2, 3, 5)], [0], [0], [0]), grid)
    assert found.geometry[0].bounds == (2, 8, 6, 20)


def test_no_instances_stitch_to_none():
    found, counts = stitch_instances(Instances.empty(["object"]), full_grid((100, 100), 64, 16))
    assert len(found) == counts.instances == 0
    assert found.to_arrow().num_rows == 0
