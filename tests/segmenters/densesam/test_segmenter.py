"""Segmenter `densesam` on tiles of bright discs, with a tiny model that has learnt them."""

import numpy as np
import pytest
import torch

from densesam_models import write_learnt_densesam
from gigaseg.errors import CheckpointError, SegmenterError
from gigaseg.sam.checkpoints import read_checkpoint, read_state, write_state
from gigaseg.segmenters.base import Context, TileBatch
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.densesam.checkpoint import open_densesam
from gigaseg.segmenters.densesam.segmenter import DenseSam
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.testing import ArraySlide
from gigaseg.tiles.tiling import Tiling
from sac_models import SIDE, scene

APART = [(30, 30), (96, 40), (60, 100)]
TILING = Tiling(SIDE, 32, 500, SIDE, (1.0, 1.0), (1.0, 1.0), "px")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_learnt_densesam(tmp_path_factory.mktemp("densesam"))


@pytest.fixture(scope="module")
def semantic(tmp_path_factory):
    return write_learnt_densesam(tmp_path_factory.mktemp("semantic"), heads=1, classes=("building",))


def load(checkpoint, **options):
    card = read_card("densesam")
    info = ArraySlide(np.zeros((SIDE, 500, 3), np.uint8)).info
    return load_segmenter("densesam", Context(info, TILING, checkpoint=checkpoint, options=card.complete(options)))


def batch(*images):
    tiles = [TILING.get(0, i % TILING.cols) for i in range(len(images))]
    return TileBatch(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), tiles)


def painted(found, side=SIDE):
    canvas = np.zeros((side, side), np.int32)
    for number, (box, mask) in enumerate(zip(found.boxes.tolist(), found.masks), 1):
        canvas[box[1] : box[3], box[0] : box[2]][mask.numpy()] = number
    return canvas


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
        assert (mask & truth).sum() / (mask | truth).sum() > 0.6


def test_a_tile_s_instances_do_not_depend_on_its_batch(checkpoint):
    images = [scene(centres)[0] for centres in (APART, [(40, 60)], [])]
    segmenter = load(checkpoint)
    stack = batch(*images).images
    alone = torch.cat([segmenter.probability(stack[i : i + 1]) for i in range(len(images))])
    assert torch.allclose(segmenter.probability(stack), alone, atol=1e-5)
    together = segmenter.segment(batch(*images))
    for image, found in zip(images, together):
        (alone,) = segmenter.segment(batch(image))
        assert torch.equal(alone.boxes, found.boxes)
        assert all(torch.equal(one, two) for one, two in zip(alone.masks, found.masks))
    assert len(together[2].boxes) == 0


def test_tiles_without_anything_yield_nothing(checkpoint, semantic):
    for level in (0, 25):
        flat = np.full((SIDE, SIDE, 3), level, np.uint8)
        for segmenter in (load(checkpoint), load(semantic), load(checkpoint, instances="paper")):
            assert len(segmenter.segment(batch(flat))[0].boxes) == 0


def test_one_head_yields_components_of_its_class(semantic):
    segmenter = load(semantic)
    assert segmenter.card.classes == ("building",)
    image, _ = scene(APART)
    maps = segmenter.probability(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert maps.shape == (1, 1, SIDE, SIDE)
    assert len(segmenter.segment(batch(image))[0].boxes) == 3
    with pytest.raises(SegmenterError, match="option 'instances' is 'robust', accepted with these weights"):
        load(semantic, instances="robust")


def test_options_do_what_they_say(checkpoint):
    image, _ = scene([*APART, (100, 100)])
    area = {t: (painted(load(checkpoint, threshold=t).segment(batch(image))[0]) > 0).sum() for t in (0.2, 0.5, 0.8)}
    assert area[0.2] > area[0.5] > area[0.8]
    assert len(load(checkpoint, min_diameter=2.0).segment(batch(image))[0].boxes) == 0
    assert len(load(checkpoint, min_contrast=255.0).segment(batch(image))[0].boxes) == 0


def test_the_input_may_be_resized(checkpoint):
    image, _ = scene(APART)
    found = load(checkpoint, input_size=256).probability(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert found.shape == (1, 2, SIDE, SIDE)


def test_the_iou_token_comes_from_the_checkpoint(tmp_path_factory):
    path = write_learnt_densesam(tmp_path_factory.mktemp("random"), steps=1, iou_token="random")
    state, _ = read_state(path)
    loaded = open_densesam(path)
    assert torch.equal(loaded.dense.iou_token, state["densesam.iou_token"].float())
    assert not torch.equal(loaded.dense.iou_token, loaded.backend.model.mask_decoder.iou_token.weight)


def test_a_checkpoint_that_does_not_fit_is_told(checkpoint, tmp_path):
    _, state, card = read_checkpoint(checkpoint)
    card = {name: value for name, value in card.items() if name != "base"}
    path = tmp_path / "wrong.safetensors"
    for changes, message in (
        ({"densesam": {**card["densesam"], "inner_idx": [0, 9]}}, r"inner_idx is \[0, 9\], accepted with this SAM"),
        ({"densesam": {**card["densesam"], "heads": 1}}, "densesam.boundaries|boundaries"),
        ({"densesam": {**card["densesam"], "site": "nowhere"}}, "site is 'nowhere', accepted: before, after, end"),
    ):
        write_state(path, state, {**card, **changes})
        with pytest.raises(CheckpointError, match=message):
            open_densesam(path)
    with pytest.raises(CheckpointError, match="expected those that `gigaseg train densesam` writes"):
        open_densesam("small-v1")


def test_it_is_built_from_models_that_are_there(checkpoint):
    image, _ = scene(APART)
    own = DenseSam.of(open_densesam(checkpoint))
    assert torch.equal(own.segment(batch(image))[0].boxes, load(checkpoint).segment(batch(image))[0].boxes)
