"""Which of the first pass's objects become exemplars, and how SAM is asked about them."""

import numpy as np
import pytest
import torch

from gigaseg.sam.backend import Backend
from gigaseg.sam.encoder import Encoded
from gigaseg.sam.masks import best, crop_masks
from gigaseg.sam.prompting import PromptSets, point_sets
from gigaseg.segmenters.persense.base import Exemplar, Scene
from gigaseg.segmenters.persense.exemplars import Refined, choose, exemplars_of, refine_points
from sam_models import TINY, random_model

SCENE = Scene(np.zeros((64, 64, 3), np.uint8))


def apart(n):
    return np.array([[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(n)])


def refined(scores, areas=None, boxes=None):
    n = len(scores)
    areas = np.full(n, 100.0) if areas is None else np.array(areas, float)
    return Refined(apart(n) if boxes is None else np.array(boxes, float), np.array(scores), areas)


def shown(box=(200, 0, 210, 10), area=100.0):
    return Exemplar(SCENE, np.array(box, float), 1.0, area)


def test_the_papers_rule_takes_the_best_scores_the_earlier_first():
    assert choose(refined([0.2, 0.9, 0.5, 0.9]), keep_first=False) == [1, 3, 2, 0]


def test_the_codes_rule_keeps_what_was_shown():
    candidates = refined([0.2, 0.9, 0.5, 0.9])
    assert choose(candidates, [shown()]) == [1, 3, 2]
    assert choose(candidates, [shown()], 2) == [1]
    assert choose(candidates, [shown()], 1) == []


def test_what_is_unlike_the_first_is_left_out():
    candidates = refined([0.9, 0.8, 0.7, 0.6, 0.5], [49, 50, 201, 0, 200])
    assert choose(candidates, [shown()], 9) == [1, 4]
    assert choose(candidates, [shown()], 9, alike=False) == [0, 1, 2, 3, 4]


def test_the_same_object_counts_once():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 11], [200, 0, 210, 10], [0, 0, 20, 10]]
    assert choose(refined([0.9, 0.8, 0.7, 0.6], boxes=boxes), [shown()]) == [0, 3]


def test_empty_masks_are_no_exemplars():
    found = exemplars_of(SCENE, refined([0.9, 0.8], [0, 5]), [0, 1])
    assert [exemplar.area for exemplar in found] == [5]


@pytest.fixture(scope="module")
def backend():
    return Backend.from_model(random_model(TINY), TINY, {}, "cpu", precision="fp32")


@pytest.fixture(scope="module")
def features(backend):
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, 3, 96, 96), dtype=np.uint8))
    return backend.encode(image).embedding[0]


def test_the_cascade_is_what_three_calls_by_hand_give(backend, features):
    xy, shape = np.array([[20.5, 30.5], [70.5, 60.5]]), (96, 96)
    sets = point_sets(torch.zeros(2, dtype=torch.int64), torch.from_numpy(xy))
    encoded = Encoded(features[None])
    with torch.inference_mode():
        first = best(backend.decode(encoded, sets, shape, multimask=True))
        again = PromptSets(sets.image, sets.points, sets.labels, None, first.logits)
        second = crop_masks(best(backend.decode(encoded, again, shape, multimask=True)), shape, shape)
        boxed = PromptSets(sets.image, sets.points, sets.labels, second.boxes.float(), first.logits)
        third = crop_masks(best(backend.decode(encoded, boxed, shape, multimask=True)), shape, shape)
    two, three, final = (
        refine_points(backend, features, xy, shape, **options)
        for options in ({}, {"third": True}, {"third": True, "final_box": True})
    )
    assert two.boxes == pytest.approx(second.boxes.numpy())
    assert two.scores == pytest.approx(second.scores.numpy(), abs=1e-5)
    assert two.areas == pytest.approx(second.pixels().numpy())
    assert three.boxes == pytest.approx(second.boxes.numpy())
    assert three.scores == pytest.approx(third.scores.numpy(), abs=1e-4)
    assert final.boxes == pytest.approx(third.boxes.numpy())


def test_points_do_not_depend_on_each_other(backend, features):
    xy = np.random.default_rng(1).uniform(5, 90, (70, 2))
    together = refine_points(backend, features, xy, (96, 96), window=6)
    alone = refine_points(backend, features, xy[66:67], (96, 96), window=6)
    assert together.boxes[66] == pytest.approx(alone.boxes[0])
    assert together.scores[66] == pytest.approx(alone.scores[0], abs=1e-5)


def test_no_points_give_nothing(backend, features):
    found = refine_points(backend, features, np.empty((0, 2)), (96, 96))
    assert found.boxes.shape == (0, 4)


def test_a_window_that_holds_all_is_the_whole(backend, features):
    xy = np.array([[48.5, 48.5]])
    whole, window = (refine_points(backend, features, xy, (96, 96), window=size) for size in (None, 12))
    assert window.boxes == pytest.approx(whole.boxes)
