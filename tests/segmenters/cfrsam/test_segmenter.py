"""Segmenter `cfrsam`, with a model that has learnt nothing: which prompt became what, and what became of the rest."""

import numpy as np
import pytest
import torch

from cfrsam_models import write_random_cfrsam
from gigaseg.sam.packed import PackedMasks
from gigaseg.segmenters.base import NO_PROMPTS, Context, Prompts, TileBatch
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.cfrsam.checkpoint import open_cfrsam
from gigaseg.segmenters.cfrsam.segmenter import CfrSam
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.segmenters.whole import segment_objects
from gigaseg.testing import ArraySlide
from gigaseg.tiles.tiling import Tiling
from sac_models import SIDE, scene

TILING = Tiling(SIDE, 32, 500, SIDE, (1.0, 1.0), (1.0, 1.0), "px")
ALL = {"min_contrast": 0.0, "nms": 1.0, "crop": 0}
"""Options with which only empty masks are left out."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_random_cfrsam(tmp_path_factory.mktemp("cfrsam"), base="coarse")


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return open_cfrsam(checkpoint)


def batch(*images, prompts=()):
    tiles = [TILING.get(0, i % TILING.cols) for i in range(len(images))]
    return TileBatch(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), tiles, list(prompts))


def points(xy, ids=None, prob=None):
    n = len(xy)
    xy = np.asarray(xy, np.float32).reshape(n, 1, 2)
    prob = np.random.default_rng(1).dirichlet((1, 1), n).astype(np.float32) if prob is None else prob
    ids = np.arange(n) + 10 if ids is None else np.asarray(ids)
    return Prompts(ids, xy, np.ones((n, 1), np.int8), class_prob=prob)


def drawn(n, seed, side=SIDE):
    return np.random.default_rng(seed).uniform(2, side - 2, (n, 2))


IMAGE = scene([(30, 30), (96, 40), (60, 100)])[0]


def canvas(found, i, side=SIDE):
    x0, y0, x1, y1 = found.boxes[i].tolist()
    whole = np.zeros((side, side), bool)
    whole[y0:y1, x0:x1] = found.masks[i].numpy()
    return whole


def by_prompt(found, side=SIDE):
    return {int(k): (canvas(found, i, side), found.class_prob[i].tolist()) for i, k in enumerate(found.prompt)}


def same(one, two, share=1e-3):
    """Masks and classes by prompt; rounding may move a pixel."""
    assert one.keys() == two.keys()
    for k, (mask, prob) in one.items():
        assert prob == two[k][1]
        assert (mask ^ two[k][0]).sum() <= share * mask.size


def test_each_prompt_is_an_instance_with_its_class_or_left_out(loaded):
    prompts = [points(drawn(6, 0)), points(drawn(3, 1)), NO_PROMPTS]
    for options in (ALL, {"crop": 0}, {}, {"crop": 48, "local": 0}, {"window": 4, "min_quality": 0.5}):
        found = CfrSam.of(loaded, options).segment(batch(IMAGE, IMAGE[::-1].copy(), IMAGE, prompts=prompts))
        for one, mine in zip(found, prompts, strict=True):
            assert len(one.boxes) == len(one.masks) == len(one.scores) == len(one.prompt)
            assert len(one.boxes) + sum(one.left_out.values()) == len(mine.id)
            assert list(one.prompt) == sorted(set(one.prompt) & set(mine.id))
            rows = np.searchsorted(mine.id, one.prompt)
            if len(rows):
                np.testing.assert_array_equal(one.class_prob, mine.class_prob[rows])
            assert ((one.scores >= 0) & (one.scores <= 1)).all()
            for box, mask in zip(one.boxes.tolist(), one.masks):
                assert 0 <= box[0] < box[2] <= SIDE
                assert 0 <= box[1] < box[3] <= SIDE
                assert mask.shape == (box[3] - box[1], box[2] - box[0])
                assert mask.any()
        assert found[2].class_prob.shape == (0, 2)
    assert len(CfrSam.of(loaded, ALL).segment(batch(IMAGE, prompts=prompts[:1]))[0].boxes) > 2, "or nothing was tested"


def test_no_prompts_give_no_instances_and_no_tiles_nothing(loaded):
    segmenter = CfrSam.of(loaded)
    (found,) = segmenter.segment(batch(IMAGE, prompts=[NO_PROMPTS]))
    assert len(found.boxes) == len(found.masks) == len(found.prompt) == 0
    assert found.left_out == {}
    (found,) = segmenter.segment(batch(IMAGE, prompts=[points(np.empty((0, 2)))]))
    assert len(found.boxes) == 0


@pytest.mark.parametrize("options", [ALL, {**ALL, "crop": 64}, {**ALL, "window": 6}])
def test_a_tile_gives_the_same_in_any_batch(loaded, options):
    images = [IMAGE, IMAGE[:, ::-1].copy(), IMAGE.transpose(1, 0, 2).copy()]
    prompts = [points(drawn(n, n)) for n in (3, 2, 4)]
    segmenter = CfrSam.of(loaded, options)
    together = segmenter.segment(batch(*images, prompts=prompts))
    proposed = segmenter.propose(batch(*images))
    for i, image in enumerate(images):
        (alone,) = segmenter.segment(batch(image, prompts=[prompts[i]]))
        assert torch.equal(alone.boxes, together[i].boxes)
        assert all(torch.equal(one, two) for one, two in zip(alone.masks, together[i].masks))
        assert torch.equal(alone.scores, together[i].scores)
        (points_alone,) = segmenter.propose(batch(image))
        np.testing.assert_array_equal(points_alone.xy, proposed[i].xy)


@pytest.mark.parametrize("options", [ALL, {**ALL, "crop": 64}, {**ALL, "nms": 0.3}])
def test_permuted_prompts_give_the_same_masks_and_classes(loaded, options):
    segmenter = CfrSam.of(loaded, options)
    prompts = points(drawn(7, 3))
    order = np.random.default_rng(0).permutation(7)
    other = Prompts(
        prompts.id[order], prompts.points[order], prompts.labels[order], class_prob=prompts.class_prob[order]
    )
    (one,) = segmenter.segment(batch(IMAGE, prompts=[prompts]))
    (two,) = segmenter.segment(batch(IMAGE, prompts=[other]))
    assert by_prompt(one)
    same(by_prompt(one), by_prompt(two))


def test_prompts_of_windows_are_seen_in_them_alone_and_masks_lie_in_the_tile(loaded):
    """As if the window were a tile of its own."""
    segmenter = CfrSam.of(loaded, {**ALL, "crop": 64})
    prompts = points([(20, 20), (70, 20), (70, 100), (126, 126), (40, 60)])
    corners = [(0, 0), (40, 0), (40, 64), (64, 64), (0, 40)]  # windows start at 0, 40 and 64
    (found,) = segmenter.segment(batch(IMAGE, prompts=[prompts]))
    masks = by_prompt(found)
    whole = CfrSam.of(loaded, ALL)
    for k, (x, y) in enumerate(corners):
        part = IMAGE[y : y + 64, x : x + 64].copy()
        (alone,) = whole.segment(batch(part, prompts=[points(prompts.points[k] - (x, y), [k])]))
        assert (len(alone.boxes) == 1) == (k + 10 in masks)
        if len(alone.boxes):
            expected = np.zeros((SIDE, SIDE), bool)
            expected[y : y + 64, x : x + 64] = canvas(alone, 0, 64)
            assert (masks[k + 10][0] ^ expected).mean() < 1e-3
    assert masks


def test_windows_are_as_large_as_the_training_s_crops_unless_objects_have_their_own(loaded, tmp_path_factory):
    assert CfrSam.of(loaded)._window_side() == 48
    assert CfrSam.of(loaded, {"crop": 0})._window_side() == 0
    assert CfrSam.of(loaded, {"crop": 100})._window_side() == 100
    windowed = open_cfrsam(write_random_cfrsam(tmp_path_factory.mktemp("windowed"), window=6))
    assert CfrSam.of(windowed)._window_side() == 0


def rectangles(*boxes, scores, bits=None):
    area = torch.tensor([(b[2] - b[0]) * (b[3] - b[1]) for b in boxes])
    bits = torch.ones(int(area.sum()), dtype=torch.bool) if bits is None else bits
    return PackedMasks(torch.tensor(boxes, dtype=torch.int32), bits, area.cumsum(0) - area, torch.tensor(scores))


def test_of_two_identical_masks_the_likelier_stays(loaded):
    segmenter = CfrSam.of(loaded, {"min_contrast": 0.0})
    masks = rectangles((5, 5, 20, 25), (5, 5, 20, 25), (60, 60, 70, 70), scores=(0.8, 0.9, 0.5))
    prompts = points(np.zeros((3, 2)))
    found = segmenter._instances(masks, np.arange(3), prompts, torch.zeros(3, SIDE, SIDE))
    assert found.prompt.tolist() == [11, 12]
    assert found.boxes.tolist() == [[5, 5, 20, 25], [60, 60, 70, 70]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])
    np.testing.assert_array_equal(found.class_prob, prompts.class_prob[1:])
    assert found.left_out == {"empty": 0, "below_min_score": 0, "faint": 0, "repeats": 1}


def test_what_is_left_out_is_counted_by_its_reason(loaded):
    segmenter = CfrSam.of(loaded, {"min_quality": 0.3, "min_contrast": 5.0})
    image = torch.zeros(3, SIDE, SIDE)
    image[:, 40:60, 40:60] = 100
    masks = rectangles(
        (40, 40, 60, 60), (0, 0, 0, 0), (40, 40, 60, 59), (90, 90, 99, 99), (42, 42, 50, 50),
        scores=(0.9, 0.9, 0.8, 0.9, 0.1),
    )  # fmt: skip
    at = np.array([3, 0, 1, 4, 2])  # in the order of their windows
    found = segmenter._instances(masks, at, points(np.zeros((5, 2))), image)
    assert found.prompt.tolist() == [13]
    assert found.left_out == {"empty": 1, "below_min_score": 1, "faint": 1, "repeats": 1}


def test_what_comes_after_the_decoder_mirrors_with_the_image(loaded):
    segmenter = CfrSam.of(loaded, {"min_contrast": 2.0})
    rng = np.random.default_rng(0)
    low = rng.integers(0, SIDE - 41, (30, 2))
    boxes = np.concatenate([low, low + rng.integers(8, 40, (30, 2))], 1)
    area = int((boxes[:, 2:] - boxes[:, :2]).prod(1).sum())
    masks = rectangles(*boxes.tolist(), scores=rng.random(30).tolist(), bits=torch.from_numpy(rng.random(area) < 0.9))
    flipped = boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (SIDE, 0, SIDE, 0)
    bits = torch.cat([mask.flip(1).flatten() for mask in masks.unpack()])
    other = rectangles(*flipped.tolist(), scores=masks.scores.tolist(), bits=bits)
    image = torch.from_numpy(IMAGE.copy()).permute(2, 0, 1).float()
    prompts = points(np.zeros((30, 2)))
    one = segmenter._instances(masks, np.arange(30), prompts, image)
    two = segmenter._instances(other, np.arange(30), prompts, image.flip(2))
    assert 3 < len(one.boxes) < 30
    assert one.left_out == two.left_out
    assert one.prompt.tolist() == two.prompt.tolist()
    for i in range(len(one.boxes)):
        np.testing.assert_array_equal(canvas(one, i)[:, ::-1], canvas(two, i))


def test_points_are_proposed_in_the_tile_by_their_scores_and_merged_by_distance(loaded):
    segmenter = CfrSam.of(loaded, {"radius": 6.0})
    assert segmenter.threshold == 0.3, "the card's"
    assert CfrSam.of(loaded, {"threshold": 0.9}).threshold == 0.9
    assert segmenter.card.classes == ("round", "square")
    (found,) = segmenter.propose(batch(IMAGE))
    assert len(found.xy) > 3
    assert ((found.xy > 0) & (found.xy < SIDE)).all()
    assert (found.score > 0.3).all()
    assert found.class_prob.shape == (len(found.xy), 2)
    distance = np.hypot(*(found.xy[:, None] - found.xy[None]).transpose(2, 0, 1))
    assert (distance[np.triu_indices(len(distance), 1)] > 6).all()
    assert segmenter.merge(found).tolist() == list(range(len(found.xy)))
    kept = CfrSam.of(loaded, {"radius": 30.0}).merge(found)
    assert 0 < len(kept) < len(found.xy)
    assert found.score.argmax() in kept
    strict = CfrSam.of(loaded, {"radius": 6.0, "threshold": float(np.median(found.score))}).propose(batch(IMAGE))[0]
    assert 0 < len(strict.xy) < len(found.xy)


@pytest.mark.parametrize("options", [ALL, {**ALL, "crop": 64}], ids=["tiles", "windows"])
def test_an_image_is_segmented_point_by_point_each_in_one_tile(loaded, options):
    segmenter = CfrSam.of(loaded, {**options, "radius": 20.0})
    image = np.concatenate([IMAGE, IMAGE[:, :72]], 1)
    seen, made, lost = [], [], 0
    segment = segmenter.segment

    def watched(some):
        nonlocal lost
        found = segment(some)
        seen.extend(i for p in some.prompts for i in p.id.tolist())
        made.extend(i for one in found for i in one.prompt.tolist())
        lost += sum(sum(one.left_out.values()) for one in found)
        return found

    segmenter.segment = watched
    found = segment_objects(segmenter, image, tile=96, overlap=32, step=None)
    assert found.labels.shape == image.shape[:2]
    assert sorted(seen) == list(range(len(seen)))
    assert len(seen) > 5
    assert len(made) + lost == len(seen)
    assert 0 < found.labels.max() <= len(made)
    assert len(found.class_index) == found.labels.max()
    assert set(found.class_index) <= {0, 1}


def test_it_is_loaded_by_its_name(checkpoint, loaded):
    card = read_card("cfrsam")
    info = ArraySlide(np.zeros((SIDE, 500, 3), np.uint8)).info
    made = load_segmenter("cfrsam", Context(info, TILING, checkpoint=checkpoint, options=card.complete(ALL)))
    prompts = [points(drawn(4, 5))]
    (one,), (two,) = (s.segment(batch(IMAGE, prompts=prompts)) for s in (made, CfrSam.of(loaded, ALL)))
    assert torch.equal(one.boxes, two.boxes)
    assert card.proposes
