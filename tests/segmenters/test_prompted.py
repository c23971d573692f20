"""Segmenter `prompted` gives what SAM's own predictor gives, object by object, and tells the prompt of each mask."""

import numpy as np
import pytest
import shapely
import torch

from gigaseg.errors import CheckpointError, SegmenterError
from gigaseg.sam.checkpoints import write_state
from gigaseg.segmenters.base import NO_PROMPTS, Context, Prompts, TileBatch
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.prompted import MASK_LOGIT, mask_prompts
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.testing import ArraySlide
from gigaseg.tiles.tiling import Tiling
from samples import write_random_sam

SIDE = 128
TILING = Tiling(SIDE, 32, 500, 128, (1.0, 1.0), (1.0, 1.0), "px")
NAN = float("nan")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tmp_path_factory.mktemp("weights") / "random.safetensors"


@pytest.fixture(scope="module")
def model(checkpoint):
    return write_random_sam(checkpoint)


@pytest.fixture(autouse=True)
def _written(model):
    """The checkpoint is there."""


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.integers(0, 256, (3, 3, 16, 16)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, SIDE, mode="bicubic").clamp(0, 255).to(torch.uint8)


def load(checkpoint, *, classes=(), **options):
    card = read_card("prompted")
    info = ArraySlide(np.zeros((128, 500, 3), np.uint8)).info
    context = Context(info, TILING, checkpoint=checkpoint, classes=classes, options=card.complete(options))
    return load_segmenter("prompted", context)


def prompts(points=None, labels=None, boxes=None, ids=None, **more):
    n = len(points if points is not None else boxes)
    points = np.empty((n, 0, 2)) if points is None else np.asarray(points)
    labels = np.ones(points.shape[:2]) if labels is None else np.asarray(labels)
    return Prompts(
        id=np.asarray(ids if ids is not None else np.arange(n), np.int64),
        points=points.astype(np.float32),
        labels=labels.astype(np.int8),
        boxes=None if boxes is None else np.asarray(boxes, np.float32),
        **more,
    )


def run(segmenter, images, *of_tiles):
    tiles = [TILING.get(0, i) for i in range(len(of_tiles))]
    return segmenter.segment(TileBatch(images[: len(of_tiles)], tiles, list(of_tiles)))


def full(instances, i):
    """Mask i of a tile's instances in the tile."""
    found = np.zeros((SIDE, SIDE), bool)
    x0, y0, x1, y1 = instances.boxes[i].tolist()
    found[y0:y1, x0:x1] = instances.masks[i].numpy()
    return found


def reference(model, image, **prompt):
    """Masks, predicted IoU and stability of segment-anything's predictor."""
    from segment_anything import SamPredictor

    predictor = SamPredictor(model)
    predictor.set_image(image.permute(1, 2, 0).numpy())
    return predictor.predict(**prompt)[:2]


@pytest.mark.parametrize("multimask", [False, True])
def test_a_point_gives_the_masks_of_the_reference_predictor(checkpoint, model, images, multimask):
    (found,) = run(load(checkpoint, multimask=multimask), images, prompts([[[100.0, 60.0]]]))
    arguments = {"point_coords": np.array([[100.0, 60.0]]) - 0.5, "point_labels": np.array([1])}
    masks, quality = reference(model, images[0], multimask_output=multimask, **arguments)
    chosen = quality.argmax()
    assert 0.01 < masks[chosen].mean() < 0.99, "the reference is no trivial mask"
    assert (full(found, 0) != masks[chosen]).sum() <= 3, "at most pixels on the very edge"
    assert float(found.scores[0]) == pytest.approx(float(np.clip(quality[chosen], 0, 1)), abs=1e-4)


@pytest.mark.parametrize("count", [0, 2])
def test_a_box_with_and_without_points_gives_the_mask_of_the_reference_predictor(checkpoint, model, images, count):
    points, labels = [[[90.0, 70.0], [30.0, 20.0]]], [[1, 0]]
    boxes = [[40.0, 30.0, 110.0, 100.0]]
    given = prompts(points, labels, boxes) if count else prompts(boxes=boxes)
    (found,) = run(load(checkpoint), images, given)
    arguments = {"point_coords": np.array(points[0]) - 0.5, "point_labels": np.array(labels[0])} if count else {}
    masks, _ = reference(model, images[0], box=np.array(boxes[0]), multimask_output=False, **arguments)
    assert (full(found, 0) != masks[0]).sum() <= 3


def test_an_outline_gives_the_mask_of_its_mask_prompt(checkpoint, model, images):
    disc = shapely.Point(70, 60).buffer(40)
    outlines = np.array([disc], dtype=object)
    given = prompts(boxes=[disc.bounds], masks=outlines)
    (found,) = run(load(checkpoint), images, given)
    logits = mask_prompts(outlines, (SIDE, SIDE), (64, 64))
    masks, _ = reference(
        model, images[0], box=np.array(disc.bounds), mask_input=logits[0].numpy(), multimask_output=False
    )
    assert (full(found, 0) != masks[0]).sum() <= 3


def test_a_mask_prompt_is_positive_inside_and_covers_the_outlines_area():
    ring = shapely.Point(60, 40).buffer(30).difference(shapely.Point(60, 40).buffer(12))
    logits = mask_prompts(np.array([ring], dtype=object), (128, 256), (64, 128))
    assert logits.shape == (1, 1, 64, 128)
    assert logits[0, 0, 20, 30] == -MASK_LOGIT, "the hole"
    assert logits[0, 0, 20, 40] == MASK_LOGIT
    area = ((logits / MASK_LOGIT + 1) / 2).sum() * 4
    assert float(area) == pytest.approx(ring.area, rel=0.01)


def test_what_an_object_yields_does_not_depend_on_the_others_or_the_batch(checkpoint, images):
    segmenter = load(checkpoint)
    mixed = prompts(
        [[[50.0, 50.0], [NAN, NAN]], [[100.0, 100.0], [110.0, 90.0]], [[NAN, NAN], [NAN, NAN]]],
        [[1, -1], [1, 0], [-1, -1]],
        [[NAN] * 4, [NAN] * 4, [20.0, 20.0, 90.0, 80.0]],
        ids=[4, 6, 9],
    )
    first, none, last = run(segmenter, images, mixed, NO_PROMPTS, mixed)
    assert first.prompt.tolist() == [4, 6, 9]
    assert len(none.boxes) == 0
    assert none.prompt is None or len(none.prompt) == 0
    alone = [
        prompts([[[50.0, 50.0]]]),
        prompts([[[100.0, 100.0], [110.0, 90.0]]], [[1, 0]]),
        prompts(boxes=[[20.0, 20.0, 90.0, 80.0]]),
    ]
    for i, single in enumerate(alone):
        (found,) = run(segmenter, images, single)
        assert (full(found, 0) != full(first, i)).sum() <= 3
    (again,) = segmenter.segment(TileBatch(images[2:3], [TILING.get(0, 2)], [mixed]))
    assert [m.tolist() for m in again.masks] == [m.tolist() for m in last.masks]
    assert [m.tolist() for m in again.masks] != [m.tolist() for m in first.masks], "another image, other masks"


def test_instances_have_the_class_of_their_prompt(checkpoint, images):
    given = prompts([[[50.0, 50.0]], [[90.0, 90.0]]], class_index=np.array([1, 0], np.int32))
    segmenter = load(checkpoint, classes=("roof", "tree"))
    (found,) = run(segmenter, images, given)
    assert segmenter.card.classes == ("roof", "tree")
    assert found.class_prob.tolist() == [[0, 1], [1, 0]]


def test_low_scores_are_left_out_and_the_ids_stay_right(checkpoint, images):
    given = prompts(np.random.default_rng(1).uniform(10, 118, (12, 1, 2)), ids=np.arange(100, 112))
    (every,) = run(load(checkpoint), images, given)
    limit = float(every.scores.median())
    (some,) = run(load(checkpoint, min_score=limit), images, given)
    assert some.prompt.tolist() == every.prompt[every.scores.numpy() >= limit].tolist()
    assert 0 < len(some.prompt) < len(every.prompt)


def test_a_negative_predicted_iou_is_a_score_of_zero_and_stays(images, tmp_path):
    write_random_sam(tmp_path / "unsure.safetensors", quality=(-2.0, -1.9))
    given = prompts([[[50.0, 50.0]], [[90.0, 90.0]]])
    (found,) = run(load(tmp_path / "unsure.safetensors"), images, given)
    assert found.scores.tolist() == [0, 0]
    assert found.prompt.tolist() == [0, 1]


def test_a_tile_resized_to_the_input_gives_masks_in_tile_pixels(checkpoint, images):
    given = prompts(boxes=[[40.0, 30.0, 110.0, 100.0]])
    (found,) = run(load(checkpoint, input_size=64), images, given)
    assert 64 < found.boxes.max() <= SIDE
    assert full(found, 0).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"input_size": 100}, "input size is 100 px"), ({"precision": "fp8"}, "'fp8', accepted: auto, fp32")],
)
def test_wrong_options_are_told(checkpoint, options, words):
    with pytest.raises(SegmenterError, match=words):
        load(checkpoint, **options)


def test_a_checkpoint_of_another_model_is_told(tmp_path):
    write_state(tmp_path / "other.safetensors", {"weight": torch.zeros(3)}, {})
    with pytest.raises(CheckpointError, match=r"other\.safetensors: .*no known configuration"):
        load(tmp_path / "other.safetensors")
