"""A backend takes tiles and prompts in tile px and gives back packed masks."""

import dataclasses
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gigaseg.errors import CheckpointError, DeviceError, SegmenterError
from gigaseg.sam.automatic import generate_masks, grid_points
from gigaseg.sam.backend import Backend, reaches_edge
from gigaseg.sam.checkpoints import write_state
from gigaseg.sam.config import CONFIGS
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


def test_a_model_that_is_there_makes_the_same_backend(backend, checkpoint):
    made = Backend.from_model(backend.model, backend.config, {"a": 1}, input_size=128)
    opened = Backend.open(checkpoint, input_size=128)
    assert made.card == {"a": 1}
    assert torch.equal(made.encode(tiles(1, 60)).embedding, opened.encode(tiles(1, 60)).embedding)
    with pytest.raises(SegmenterError, match="input size is 100 px"):
        Backend.from_model(backend.model, backend.config, {}, input_size=100)
    with pytest.raises(SegmenterError, match="unknown precision"):
        Backend.from_model(backend.model, backend.config, {}, precision="fp61")


def test_the_window_is_the_one_of_the_training_unless_another_is_wanted(backend):
    trained = Backend.from_model(backend.model, backend.config, {"training": {"window": 10}})
    assert [trained.window(wanted) for wanted in (-1, 0, 16)] == [10, None, 16]
    assert [backend.window(wanted) for wanted in (-1, 0, 16)] == [None, None, 16], "its card tells of no training"


def test_tiles_resized_before_are_encoded_as_they_are(backend):
    sized = dataclasses.replace(backend, input_size=128)
    pixels = sized.resized(tiles(1, 60))
    assert pixels.shape == (1, 3, 128, 128)
    assert pixels.dtype == torch.float32
    assert torch.equal(sized.resized(pixels), pixels)
    assert torch.equal(sized.encode(pixels).embedding, sized.encode(tiles(1, 60)).embedding)


def test_wrong_options_are_told_in_one_line(checkpoint):
    with pytest.raises(SegmenterError, match="unknown precision 'fp61'; accepted: auto, fp32, fp16, bf16"):
        Backend.open(checkpoint, precision="fp61")
    with pytest.raises(SegmenterError, match="input size is 100 px, accepted: positive multiples of 8 px"):
        Backend.open(checkpoint, input_size=100)
    with pytest.raises(CheckpointError, match="no-such-model"):
        Backend.open("no-such-model")
    with pytest.raises(DeviceError, match="device is 'gpu', accepted on this machine: auto, cpu"):
        Backend.open(checkpoint, "gpu")


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


class Finer:
    """Doubles the resolution of masks, as SAM does anyway, in pieces of three from the last to the first."""

    def __init__(self):
        self.sides, self.calls = [], []

    def __call__(self, decoded, image):
        assert decoded.features.shape == (len(image), 4, *decoded.logits.shape[2:])
        self.calls.append(len(image))
        for at in torch.arange(len(image)).flip(0).split(3):
            self.sides += [decoded.logits.shape[-1]] * len(at)
            logits = F.interpolate(decoded.logits[at], scale_factor=2.0, mode="bilinear", align_corners=False)
            yield at, Decoded(logits, 2 * decoded.origin[at], decoded.quality[at])


@pytest.mark.parametrize("multimask", [False, True])
def test_refined_masks_come_in_the_order_of_their_prompts(backend, multimask):
    encoded = backend.encode(tiles())
    sets = grid_points(2, 3, (64, 64))
    plain = backend.masks(encoded, sets, (64, 64), multimask=multimask)
    finer = Finer()
    found = backend.masks(encoded, sets, (64, 64), multimask=multimask, refine=finer, fine=2)
    assert sum(finer.calls) == len(finer.sides) == len(sets)
    assert len(plain.scores.unique()) == len(sets)
    assert torch.equal(found.scores, plain.scores)
    assert (full_size(found, 64) != full_size(plain, 64)).float().mean() < 1e-4


def test_a_mask_that_reaches_the_edge_of_its_window_is_refined_once_in_the_one_that_holds_it(backend):
    encoded = backend.encode(tiles())
    sets = grid_points(2, 3, (64, 64))
    finer = Finer()
    found = backend.masks(encoded, sets, (64, 64), window=2, refine=finer, fine=2)
    assert len(found) == len(sets)
    assert len(finer.sides) == len(sets), "a mask that grows is not refined before it has its window"
    assert max(finer.sides) > 8, "nothing had to grow"
    whole = backend.masks(encoded, sets, (64, 64), refine=Finer(), fine=2)
    large = (found.boxes[:, 2:] - found.boxes[:, :2]).amax(1) > 4 * 8
    assert large.any()
    assert torch.equal(full_size(found, 64)[large], full_size(whole, 64)[large])
    once = Finer()
    backend.masks(encoded, sets, (64, 64), window=2, grow=False, refine=once, fine=2)
    assert once.sides == [8] * len(sets)


def test_edges_of_the_image_are_no_reason_to_grow():
    logits = torch.full((4, 1, 8, 8), -1.0)
    logits[0, 0, 0, 3] = logits[1, 0, 7, 3] = logits[2, 0, 4, 7] = logits[3, 0, 4, 4] = 1
    origin = torch.tensor([[8, 0], [8, 0], [24, 8], [8, 8]])
    cut = reaches_edge(Decoded(logits, origin, torch.zeros(4, 1)), (32, 32))
    assert cut.tolist() == [False, True, False, False]


def discs(side):
    """Four dark discs on a light ground, (1, 3, side, side), and the boxes around them."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    centres = torch.tensor([[0.25, 0.3], [0.7, 0.25], [0.35, 0.75], [0.75, 0.7]]) * side
    radii = torch.tensor([0.12, 0.15, 0.18, 0.1])[:, None] * side
    inside = ((x - centres[:, :1, None]) ** 2 + (y - centres[:, 1:, None]) ** 2 < radii[:, :, None] ** 2).any(0)
    image = torch.where(inside, torch.tensor([90, 60, 140])[:, None, None], 235)
    return image[None].to(torch.uint8), torch.cat([centres - radii, centres + radii], 1)


@pytest.mark.parametrize("name", ["small", "vit_b"])
def test_masks_in_half_precision_are_those_of_float32(name):
    """Masks of random weights mean nothing, but cut in the middle of their logits they are no noise either.

    The bounds on the logits are twice what was found; masks of trained weights, whose edges are steeper, are compared
    in the benchmark.
    """
    torch.manual_seed(0)
    model = build(CONFIGS[name])
    image, boxes = discs(256)
    sets = box_sets(torch.zeros(4, dtype=torch.int64), boxes)

    def logits(dtype):
        backend = Backend(model, CONFIGS[name], {}, torch.device("cpu"), dtype)
        return backend.decode(backend.encode(image), sets, (256, 256)).logits[:, 0]

    exact = logits(torch.float32)
    middle = exact.flatten(1).median(1).values[:, None, None]
    for dtype, error, agreement in ((torch.bfloat16, 0.02, 0.98), (torch.float16, 0.003, 0.997)):
        half = logits(dtype)
        assert (half - exact).std() / (exact - exact.mean((1, 2), keepdim=True)).std() < error
        ours, theirs = half > middle, exact > middle
        iou = (ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2))
        assert iou.mean() >= agreement


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_precision_is_computed_in_when_asked_for(checkpoint, precision):
    half = Backend.open(checkpoint, precision=precision)
    assert half.encode(tiles()).embedding.dtype == {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    masks = half.masks(half.encode(tiles()), grid_points(2, 4, (64, 64)), (64, 64))
    assert len(masks) == 32
    assert masks.scores.isfinite().all()


def test_auto_is_float32_on_a_cpu(checkpoint):
    assert Backend.open(checkpoint).dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_auto_is_half_precision_on_a_gpu(checkpoint):
    found = Backend.open(checkpoint, "cuda")
    native = torch.cuda.get_device_capability() >= (8, 0)
    assert found.dtype == (torch.bfloat16 if native else torch.float16)
    assert found.encode(tiles()).embedding.dtype == found.dtype


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler on this machine")
def test_a_compiled_encoder_yields_the_same(backend, checkpoint):
    compiled = Backend.open(checkpoint, compile=True)
    assert compiled.encoder is not backend.encoder
    torch.testing.assert_close(
        compiled.encode(tiles()).embedding, backend.encode(tiles()).embedding, rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_a_compiler_that_is_missing_is_told_in_one_line(checkpoint, tmp_path):
    code = (
        "import sys, torch; from gigaseg.sam.backend import Backend; from gigaseg.errors import DeviceError\n"
        "backend = Backend.open(sys.argv[1], compile=True)\n"
        "try: backend.encode(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))\n"
        "except DeviceError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(checkpoint)],
        env={**os.environ, "CXX": str(tmp_path / "c++"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("the encoder cannot be compiled here (")
    assert done.stdout.endswith("; set compile to false\n")


def test_the_point_grid_lies_evenly_in_the_tile():
    sets = grid_points(2, 2, (40, 80))
    assert sets.image.tolist() == [0] * 4 + [1] * 4
    assert sets.points[:4, 0].tolist() == [[20, 10], [60, 10], [20, 30], [60, 30]]


def test_automatic_masks_of_a_batch_equal_those_of_its_tiles(backend):
    options = {"points_per_side": 5, "pred_iou_thresh": -9.0, "stability_thresh": 0.1, "nms_thresh": 1.0}
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
    options = {"points_per_side": 5, "pred_iou_thresh": -9.0, "stability_thresh": 0.0, "nms_thresh": 1.0}
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
        base = {"points_per_side": 5, "pred_iou_thresh": -9.0, "stability_thresh": 0.0, "nms_thresh": 1.0}
        return sum(len(found.boxes) for found in generate_masks(backend, encoded, (64, 64), **(base | options)))

    assert number() == 150
    assert 0 < number(pred_iou_thresh=0.0) < 150
    assert 0 < number(stability_thresh=0.2) < 150
    assert 0 < number(nms_thresh=0.9) < 150
    assert number(pred_iou_thresh=9.0) == 0
