"""What becomes of instances that two tiles drew differently is defined and counted (docs/stitching.md)."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from gigaseg.instances.table import Instances
from gigaseg.stitch.stitch import stitch_instances
from gigaseg.testing.labels import label_image
from stitching import NOISE, disturb, full_grid, make, noisy, oracle, scenes, steady

OUTCOME = {
    "one outline moved": ("the left one, more central", {"matched": 1, "joined": 1}),
    "split by the less central tile": ("the left one", {"single": 3, "conflicts": 2, "dropped": 2}),
    "merged by the less central tile": ("the two right ones", {"single": 3, "conflicts": 2, "dropped": 1}),
    "half of a merged one agrees": ("the two right ones", {"matched": 1, "joined": 1, "single": 1}),
    "missed by one tile": ("the left one", {"single": 1}),
    "drawn short of the border": ("the union", {"matched": 1, "joined": 1, "unions": 1}),
    "a sliver that moved": ("the right one", {"single": 2, "conflicts": 1, "dropped": 1}),
    "nested, and both tiles say so": ("the two left ones", {"matched": 2, "joined": 2}),
    "a speck in a large piece": ("both", {"single": 2, "conflicts": 1, "unmatched": 1}),
}


def expected(name):
    left, right = NOISE[name]
    union = [shapely.union_all([*left, *right])]
    return {"both": [*left, *right], "the union": union}.get(
        OUTCOME[name][0], left if "left" in OUTCOME[name][0] else right
    )


@pytest.mark.parametrize("name", NOISE)
def test_noise_has_a_defined_outcome_that_is_counted(name):
    found, counts = stitch_instances(*noisy(name))
    wanted = expected(name)
    assert len(found) == len(wanted)
    assert all(any(g.equals(w) for w in wanted) for g in found.geometry)
    told = {key: value for key, value in counts.__dict__.items() if value and "instances" not in key}
    assert told == OUTCOME[name][1]


def test_a_tile_that_misses_everything_costs_nothing_that_its_neighbours_saw():
    labels = label_image("nuclei", (160, 160), 5)
    grid = full_grid(labels.shape, 64, 32)
    parts = oracle(labels, grid)
    blind = [part.take(np.arange(0)) if k == 5 else part for k, part in enumerate(parts)]
    found, counts = stitch_instances(Instances.concat(blind), grid)
    tile = shapely.box(*grid.tiling.bounds(*divmod(5, grid.tiling.cols)))
    everything, _ = stitch_instances(Instances.concat(parts), grid)
    outside = everything.take(~shapely.intersects(everything.geometry, tile))
    assert len(outside) > 10
    kept = set(shapely.to_wkb(shapely.normalize(found.geometry)).tolist())
    assert set(shapely.to_wkb(shapely.normalize(outside.geometry)).tolist()) <= kept
    assert counts.dropped == 0


@steady(50)
@given(scenes(), st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_noise_is_accounted_for_and_stitched_alike_in_any_order(scene, seed, random):
    labels, tile, overlap = scene
    grid = full_grid(labels.shape, tile, overlap)
    parts = disturb(labels, grid, seed)
    found, counts = stitch_instances(Instances.concat(parts), grid)
    assert counts.instances == len(found) == counts.tile_instances - counts.joined - counts.dropped
    assert found.members.sum() <= counts.tile_instances
    assert shapely.is_valid(found.geometry).all()
    assert (found.cut > 0).sum() == counts.cut
    random.shuffle(parts)
    again, same = stitch_instances(Instances.concat(parts), grid)
    assert again.to_arrow().equals(found.to_arrow())
    assert same == counts


@pytest.mark.parametrize("kind", ["nuclei", "buildings", "crowd"])
def test_noise_costs_few_of_the_pixels_that_were_drawn_and_draws_few_twice(kind):
    labels = label_image(kind, (400, 400), 1)
    grid = full_grid(labels.shape, 128, 32)
    parts = disturb(labels, grid, 1)
    together = Instances.concat(parts)
    drawn = shapely.union_all(together.geometry).area
    found, _ = stitch_instances(together, grid)
    kept = shapely.union_all(found.geometry).area
    assert kept > 0.93 * drawn
    # the moves alone make neighbours overlap a little
    assert shapely.area(found.geometry).sum() < 1.1 * kept
    assert shapely.area(together.geometry).sum() > 1.3 * drawn


@pytest.mark.parametrize("same", [True, False])
def test_answers_to_different_prompts_stay_apart_even_where_they_are_alike(same):
    square = shapely.box(50, 20, 60, 30)
    parts = make([square, square], [0, 0], [0, 1], [0, 0])
    parts = replace(parts, prompt=np.array([7, 7 if same else 8]))
    found, counts = stitch_instances(parts, full_grid((64, 112), 64, 16))
    assert found.prompt.tolist() == ([7] if same else [7, 8])
    assert counts.conflicts == counts.dropped == 0
