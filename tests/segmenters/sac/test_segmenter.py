"""Segmenter `sac` on tiles of bright discs, with a tiny model that has learnt them."""

import numpy as np
import pytest
import torch

from gigaseg.errors import CheckpointError, SegmenterError
from gigaseg.sam.checkpoints import read_state, write_delta, write_state
from gigaseg.sam.encoder import normalise
from gigaseg.segmenters.base import NO_PROMPTS, Context, Prompts, TileBatch
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.segmenters.sac.checkpoint import open_sac
from gigaseg.segmenters.sac.model import prompt_maps
from gigaseg.segmenters.sac.points import select_points
from gigaseg.segmenters.sac.segmenter import Sac
from gigaseg.testing import ArraySlide
from gigaseg.tiles.tiling import Tiling
from sac_models import SIDE, scene, write_learnt_sac

APART = [(30, 30), (96, 40), (60, 100)]
TOUCHING = [(38, 60), (64, 60), (100, 105)]
TILING = Tiling(SIDE, 32, 500, SIDE, (1.0, 1.0), (1.0, 1.0), "px")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_learnt_sac(tmp_path_factory.mktemp("sac"))


def load(checkpoint, **options):
    card = read_card("sac")
    info = ArraySlide(np.zeros((SIDE, 500, 3), np.uint8)).info
    context = Context(info, TILING, checkpoint=checkpoint, options=card.complete(options))
    return load_segmenter("sac", context)


def batch(*images, prompts=()):
    tiles = [TILING.get(0, i % TILING.cols) for i in range(len(images))]
    return TileBatch(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), tiles, list(prompts))


def painted(found, side=SIDE):
    canvas = np.zeros((side, side), np.int32)
    for number, (box, mask) in enumerate(zip(found.boxes.tolist(), found.masks), 1):
        canvas[box[1] : box[3], box[0] : box[2]][mask.numpy()] = number
    return canvas


def same(one, two):
    return torch.equal(one.boxes, two.boxes) and all(torch.equal(a, b) for a, b in zip(one.masks, two.masks))


def expert(points, labels):
    n = len(points)
    xy = np.array(points, np.float32).reshape(n, 1, 2)
    return Prompts(np.arange(n), xy, np.array(labels, np.int8).reshape(n, 1))


def test_each_disc_is_one_instance_with_its_box_score_and_class(checkpoint):
    image, labels = scene(APART)
    (found,) = load(checkpoint).segment(batch(image))
    canvas = painted(found)
    assert len(found.boxes) == 3
    assert found.class_prob.tolist() == [[1.0]] * 3
    assert ((found.scores > 0.5) & (found.scores <= 1)).all()
    for number in (1, 2, 3):
        truth = labels == number
        mask = canvas == np.bincount(canvas[truth]).argmax()
        assert (mask & truth).sum() / (mask | truth).sum() > 0.75


def test_touching_discs_are_two_with_watershed_and_one_as_components(checkpoint):
    image, _ = scene(TOUCHING)
    assert len(load(checkpoint).segment(batch(image))[0].boxes) == 3
    assert len(load(checkpoint, instances="components").segment(batch(image))[0].boxes) == 2


def test_a_tile_s_instances_do_not_depend_on_its_batch_nor_on_the_run(checkpoint):
    images = [scene(centres)[0] for centres in (APART, TOUCHING, [])]
    for options in ({}, {"rule": "random", "pairs": 5}, {"pairs": 0}):
        together = load(checkpoint, **options).segment(batch(*images))
        for image, found in zip(images, together):
            assert same(load(checkpoint, **options).segment(batch(image))[0], found)
        # on a CPU tiles go one by one, on a GPU together
        segmenter, pixels = load(checkpoint, **options), batch(*images).images
        apart = torch.cat([segmenter.probability(one[None]) for one in pixels])
        assert torch.allclose(segmenter.probability(pixels), apart, atol=1e-5)


def test_empty_glass_yields_nothing(checkpoint):
    for grey in (0, 25, 255):
        (found,) = load(checkpoint).segment(batch(np.full((SIDE, SIDE, 3), grey, np.uint8)))
        assert len(found.boxes) == len(found.masks) == len(found.scores) == 0


def test_what_hardly_stands_out_is_left_out(checkpoint):
    image, _ = scene(APART)
    assert len(load(checkpoint, min_contrast=60.0).segment(batch(image))[0].boxes) == 3
    assert len(load(checkpoint, min_contrast=200.0).segment(batch(image))[0].boxes) == 0


def test_small_objects_are_left_out_where_wanted(checkpoint):
    image, _ = scene(APART)
    assert len(load(checkpoint, min_diameter=1.6).segment(batch(image))[0].boxes) == 0


def test_points_of_an_expert_in_the_places_of_the_u_net_s_are_the_same_to_sam(checkpoint):
    """So the expert's coordinates are in tile px, x first, and the labels mean the same."""
    image, _ = scene(APART)
    loaded = open_sac(checkpoint)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.no_grad():
        maps = prompt_maps(loaded.unet, normalise(pixels, loaded.backend.config), 2)[0]
    points = select_points(maps[0].sigmoid().numpy(), 3)
    given = [expert(points.xy * 2, points.labels)]
    own = Sac.of(loaded, {"pairs": 3}).probability(pixels)
    none = Sac.of(loaded, {"pairs": 0})
    assert torch.allclose(none.probability(pixels, given), own, atol=1e-5)
    assert not torch.allclose(none.probability(pixels), own, atol=1e-3)


def test_an_expert_s_points_are_seen_beside_the_u_net_s_and_in_their_own_tile_only(checkpoint):
    image, _ = scene(APART)
    segmenter = load(checkpoint)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].repeat(3, 1, 1, 1)
    prompts = [NO_PROMPTS, expert([(30, 30), (96, 40)], [0, 0]), expert([(60, 100)], [1])]
    plain = segmenter.probability(pixels[:1])
    together = segmenter.probability(pixels, prompts)
    for i in range(3):
        alone = segmenter.probability(pixels[:1], prompts[i : i + 1])
        assert torch.allclose(together[i], alone[0], atol=1e-5)
    assert torch.equal(segmenter.probability(pixels[:1], [NO_PROMPTS]), plain)
    assert not torch.allclose(together[1], plain[0], atol=1e-4)
    padding = expert([(5, 5)], [-1])
    assert torch.equal(segmenter.probability(pixels[:1], [padding]), plain)


def test_a_tile_may_be_seen_at_another_size(checkpoint):
    image, labels = scene(APART)
    large = np.repeat(np.repeat(image, 2, 0), 2, 1)
    segmenter = load(checkpoint, input_size=SIDE)
    probability = segmenter.probability(torch.from_numpy(large).permute(2, 0, 1)[None])
    assert probability.shape == (1, 2 * SIDE, 2 * SIDE)
    inside = probability[0, ::2, ::2].numpy() > 0.5
    assert (inside & (labels > 0)).sum() / (inside | (labels > 0)).sum() > 0.75


def test_wrong_options_and_foreign_or_damaged_checkpoints_are_refused(checkpoint, tmp_path):
    with pytest.raises(SegmenterError, match="option 'rule' is 'worst'"):
        load(checkpoint, rule="worst")
    base = checkpoint.with_name("sam.safetensors")
    with pytest.raises(CheckpointError, match="weights of a SAM model, expected those that `gigaseg train sac` writes"):
        open_sac(base)
    state, card = read_state(checkpoint)
    whole = {**read_state(base)[0], **state}
    card.pop("base")
    wrong = {
        "rank": ({**card["sac"], "rank": 5}, "does not fit the LoRA"),
        "width": ({**card["sac"], "width": 9}, "does not fit the U-Net"),
        "negative": ({**card["sac"], "pairs": -1}, "sac: pairs is '-1', accepted: an integer from 0 to 4096"),
        "rule": ({**card["sac"], "rule": "x"}, "sac: rule is 'x', accepted: centroid, random"),
        "field": ({**card["sac"], "depth": 3}, "accepted: an object of"),
        "kind": ([1], "accepted: an object of"),
        "classes": ({**card["sac"], "classes": []}, "accepted: one name"),
        "number": ({**card["sac"], "classes": 5}, "accepted: one name"),
        "text": ({**card["sac"], "classes": "n"}, "accepted: one name"),
        "reduction": ({**card["sac"], "reduction": 3}, "sac: reduction is 3, accepted: divisors of SAM's patch, 8 px"),
        "alpha": ({**card["sac"], "alpha": -1}, "accepted: a number above 0, or null"),
    }
    for name, (sac, message) in wrong.items():
        path = tmp_path / f"{name}.safetensors"
        write_delta(path, whole, base, {**card, "sac": sac})
        with pytest.raises(CheckpointError, match=message):
            open_sac(path)
    missing = {name: tensor for name, tensor in whole.items() if name != "unet.head.bias"}
    write_state(tmp_path / "missing.safetensors", missing, card)
    with pytest.raises(CheckpointError, match=r"head\.bias is missing"):
        open_sac(tmp_path / "missing.safetensors")
