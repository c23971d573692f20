"""A backend takes tiles and prompts in tile px and gives back packed masks."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gigaseg.errors import CheckpointError, SegmenterError
from gigaseg.sam.automatic import generate_masks, grid_points
from gigaseg.sam.backend import Backend, reaches_edge
from gigaseg.sam.checkpoints import write_state
from gigaseg.sam.decoder import Decoded
from gigaseg.sam.model import build
from gigaseg.sam.prompting import box_sets, point_sets
from gigaseg.segmenters.base import Prompts
from sam_reference import TINY, decoder_of, reference


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny model whose decoder has opinions."""
    torch.manual_seed(0)
    model = build(TINY)
    model.mask_decoder.load_state_dict(decoder_of("tiny").mask_decoder.state_dict())
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_state(path, model.state_dict(), {"config": TINY.as_dict()})
    return path


@pytest.fixture(scope="module")
def backend(checkpoint):
    return Backend.open(checkpoint, "cpu")


def tiles(number=2, side=64):
    return torch.randint(0, 256, (number, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def full_size(masks, side):
    full = torch.zeros(len(masks), side, side, dtype=torch.bool)
    for i, (mask, box) in enumerate(zip(masks.unpack(), masks.boxes.tolist())):
        full[i, box[1] : box[3], box[0] : box[2]] = mask
    return full


def test_the_input_is_the_tile_rounded_up_to_patches_or_the_size_asked_for(backend, checkpoint):
    assert backend.input_shape((64, 64)) == (64, 64)
    assert backend.input_shape((60, 60)) == (64, 64)
    assert backend.input_shape((32, 64)) == (32, 64)
    sized = Backend.open(checkpoint, input_size=128)
    assert sized.input_shape((60, 60)) == (128, 128)
    assert sized.encode(tiles(1, 60)).embedding.shape == (1, 32, 16, 16)
    with pytest.raises(ValueError, match="whole number"):
        backend.input_shape((20, 60))


def test_wrong_options_are_told_in_one_line(checkpoint):
    with pytest.raises(SegmenterError, match="unknown precision 'fp61'; accepted: auto, fp32, bf16"):
        Backend.open(checkpoint, precision="fp61")
    with pytest.raises(SegmenterError, match="input size is 100 px, accepted: positive multiples of 8 px"):
        Backend.open(checkpoint, input_size=100)
    with pytest.raises(CheckpointError, match="no-such-model"):
        Backend.open("no-such-model")


def test_masks_equal_the_reference_with_its_own_post_processing(backend):
    sized = dataclasses.replace(backend, input_size=128)
    encoded = sized.encode(tiles(2, 60))
    places = torch.rand(8, 2, generator=torch.Generator().manual_seed(1)) * 60
    sets = point_sets(torch.arange(2).repeat_interleave(4), places)
    with torch.no_grad():
        scaled = dataclasses.replace(sets, points=sets.points * 128 / 60 - 0.5)
        logits, quality = reference(backend.model, encoded.embedding, scaled)
    expected = F.interpolate(F.interpolate(logits, (128, 128), mode="bilinear"), (60, 60), mode="bilinear")[:, 0] > 0
    found = sized.masks(encoded, sets, (60, 60))
    assert (full_size(found, 60) != expected).float().mean() < 1e-3
    assert 0.02 < expected.float().mean() < 0.98
    assert torch.allclose(found.scores, quality[:, 0], atol=1e-5)


def test_a_single_point_takes_the_best_of_three_masks_and_a_box_the_single_one(backend):
    encoded = backend.encode(tiles())
    places = torch.tensor([[20.0, 30.0], [40.0, 11.0]])
    image = torch.tensor([0, 1])
    with torch.no_grad():
        named = point_sets(image, places - 0.5)  # SAM names a pixel where we give a place
        quality = reference(backend.model, encoded.embedding, named, multimask=True)[1]
        boxes = box_sets(image, torch.cat([places - 8, places + 8], 1))
        single = reference(backend.model, encoded.embedding, boxes)[1]
    found = backend.masks(encoded, point_sets(image, places), (64, 64), multimask=True)
    assert torch.allclose(found.scores, quality.amax(1), atol=1e-5)
    found = backend.masks(encoded, boxes, (64, 64), multimask=True)
    assert torch.allclose(found.scores, single[:, 0], atol=1e-5)


def test_prompts_of_tiles_become_flat_sets_that_do_not_disturb_each_other(backend):
    nan = np.nan
    first = Prompts(
        np.array([4, 7]),
        np.array([[[20, 20], [nan, nan]], [[30, 30], [50, 50]]], np.float32),
        np.array([[1, -1], [1, 0]], np.int8),
    )
    second = Prompts(
        np.array([9]),
        np.zeros((1, 0, 2), np.float32),
        np.zeros((1, 0), np.int8),
        np.array([[10, 10, 40, 30]], np.float32),
    )
    sets = backend.sets([first, second])
    assert sets.image.tolist() == [0, 0, 1]
    assert sets.labels.tolist() == [[1, -1], [1, 0], [-1, -1]]
    assert sets.boxes.isnan().any(1).tolist() == [True, True, False]
    assert len(backend.sets([])) == 0
    encoded = backend.encode(tiles())
    together = backend.masks(encoded, sets, (64, 64))
    alone = backend.masks(encoded, point_sets(torch.tensor([0]), torch.tensor([[20.0, 20.0]])), (64, 64))
    assert torch.equal(full_size(together, 64)[:1], full_size(alone, 64))
    assert len(backend.masks(encoded, backend.sets([]), (64, 64))) == 0


def test_a_mask_that_reaches_the_edge_of_its_window_gets_a_larger_one(backend):
    encoded = backend.encode(tiles())
    sets = grid_points(2, 3, (64, 64))
    grown = backend.masks(encoded, sets, (64, 64), window=2)
    whole = backend.masks(encoded, sets, (64, 64))
    assert len(grown) == len(sets)
    kept = backend.masks(encoded, sets, (64, 64), window=2, grow=False)
    assert int((kept.boxes[:, 2:] - kept.boxes[:, :2]).max()) <= 16
    fixed = backend.decode(encoded, sets, (64, 64), window=2)
    cut = reaches_edge(fixed, (32, 32))
    assert cut.any(), "nothing had to grow"
    # those that no window could hold were decoded with the whole embedding
    sizes = torch.tensor([max(box[2] - box[0], box[3] - box[1]) for box in grown.boxes.tolist()])
    large = sizes > 4 * 8
    assert torch.equal(full_size(grown, 64)[large], full_size(whole, 64)[large])


def test_edges_of_the_image_are_no_reason_to_grow():
    logits = torch.full((4, 1, 8, 8), -1.0)
    logits[0, 0, 0, 3] = logits[1, 0, 7, 3] = logits[2, 0, 4, 7] = logits[3, 0, 4, 4] = 1
    origin = torch.tensor([[8, 0], [8, 0], [24, 8], [8, 8]])
    cut = reaches_edge(Decoded(logits, origin, torch.zeros(4, 1)), (32, 32))
    assert cut.tolist() == [False, True, False, False]


def test_half_precision_runs_and_agrees(backend, checkpoint):
    half = Backend.open(checkpoint, precision="bf16")
    sets = grid_points(2, 4, (64, 64))
    ours = full_size(half.masks(half.encode(tiles()), sets, (64, 64)), 64)
    theirs = full_size(backend.masks(backend.encode(tiles()), sets, (64, 64)), 64)
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.9


def test_the_point_grid_lies_evenly_in_the_tile():
    sets = grid_points(2, 2, (40, 80))
    assert sets.image.tolist() == [0] * 4 + [1] * 4
    assert sets.points[:4, 0].tolist() == [[20, 10], [60, 10], [20, 30], [60, 30]]


def test_automatic_masks_of_a_batch_equal_those_of_its_tiles(backend):
    options = {"points_per_side": 5, "pred_iou_thresh": -9.0, "stability_thresh": 0.1, "box_nms": 1.0}
    for window in (None, 6):
        both = generate_masks(backend, backend.encode(tiles()), (64, 64), window=window, **options)
        assert len(both) == 2
        assert all(len(found.boxes) > 10 for found in both)
        for i, found in enumerate(both):
            alone = generate_masks(backend, backend.encode(tiles()[i : i + 1]), (64, 64), window=window, **options)[0]
            assert torch.equal(found.boxes, alone.boxes)
            assert all(torch.equal(a, b) for a, b in zip(found.masks, alone.masks))


def test_automatic_masks_are_those_of_the_reference_generator(backend):
    from segment_anything import SamAutomaticMaskGenerator

    tile = tiles(1)
    grid = grid_points(1, 5, (64, 64)).points[:, 0].numpy() - 0.5  # SAM names a pixel where we give a place
    theirs = SamAutomaticMaskGenerator(
        backend.model,
        points_per_side=None,
        point_grids=[grid / 64],
        pred_iou_thresh=-9.0,
        stability_score_thresh=0.0,
        box_nms_thresh=1.0,
    ).generate(tile[0].permute(1, 2, 0).numpy())
    options = {"points_per_side": 5, "pred_iou_thresh": -9.0, "stability_thresh": 0.0, "box_nms": 1.0}
    ours = generate_masks(backend, backend.encode(tile), (64, 64), **options)[0]
    assert len(ours.boxes) == len(theirs) == 75
    left = [torch.from_numpy(mask["segmentation"]) for mask in theirs]
    for box, mask in zip(ours.boxes.tolist(), ours.masks):
        full = torch.zeros(64, 64, dtype=torch.bool)
        full[box[1] : box[3], box[0] : box[2]] = mask
        differs = [int((full != other).sum()) for other in left]
        nearest = min(range(len(left)), key=differs.__getitem__)
        assert differs[nearest] <= 2
        left.pop(nearest)


def test_automatic_masks_drop_the_unlikely_the_unstable_and_the_like(backend):
    encoded = backend.encode(tiles())

    def number(**options):
        base = {"points_per_side": 5, "pred_iou_thresh": -9.0, "stability_thresh": 0.0, "box_nms": 1.0}
        return sum(len(found.boxes) for found in generate_masks(backend, encoded, (64, 64), **(base | options)))

    assert number() == 150
    assert 0 < number(pred_iou_thresh=0.0) < 150
    assert 0 < number(stability_thresh=0.2) < 150
    assert 0 < number(box_nms=0.9) < 150
    assert number(pred_iou_thresh=9.0) == 0
