"""What is left of masks after the filters of the automatic mask generator is what segment-anything leaves."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gigaseg.sam.automatic import generate_masks, grid_points, stable
from gigaseg.sam.backend import Backend
from gigaseg.sam.decoder import Decoded
from gigaseg.sam.masks import chosen, crop_masks
from gigaseg.sam.model import build
from gigaseg.sam.suppression import box_nms
from sam_reference import TINY, decoder_of

LOW, SIDE = 64, 256


def discs(number=300, seed=0):
    """Logits of discs, many of them nearly the same, with edges from blurred to sharp; and predicted IoUs."""
    rng = np.random.default_rng(seed)
    at, radius = rng.uniform(4, LOW - 4, (40, 2)), rng.uniform(2, 9, 40)
    of = rng.integers(0, 40, number)
    x, y = (at[of] + rng.normal(0, 0.6, (number, 2))).T[:, :, None, None]
    r = (radius[of] * rng.uniform(0.85, 1.15, number))[:, None, None]
    steep = rng.choice([0.5, 1.5, 4.0, 15.0, 60.0], number)[:, None, None]
    place = np.arange(LOW) + 0.5
    logits = steep * (r - np.hypot(place[:, None] - y, place - x))
    quality = rng.choice([0.7, 0.86, 0.9, 0.97], number) + rng.uniform(0, 0.01, number)
    return torch.from_numpy(logits).float()[:, None], torch.from_numpy(quality).float()[:, None]


def test_the_usual_thresholds_leave_the_masks_that_the_reference_leaves():
    from segment_anything.utils.amg import batched_mask_to_box, calculate_stability_score
    from torchvision.ops.boxes import batched_nms

    logits, quality = discs()
    full = F.interpolate(logits, (SIDE, SIDE), mode="bilinear")[:, 0]
    theirs_stable = calculate_stability_score(full, 0.0, 1.0)
    expected = torch.nonzero((quality[:, 0] > 0.88) & (theirs_stable >= 0.95))[:, 0]
    boxes = batched_mask_to_box(full[expected] > 0)
    suppressed = batched_nms(boxes.float(), quality[expected, 0], torch.zeros(len(boxes)), 0.7)
    expected = expected[suppressed].sort().values

    decoded = Decoded(logits, torch.zeros(len(logits), 2, dtype=torch.int64), quality)
    shapes = (SIDE, SIDE), (SIDE, SIDE), (LOW, LOW)
    good = stable(decoded, 0.88, 0.95, *shapes)
    masks = crop_masks(chosen(decoded, good), *shapes)
    found = good[box_nms(masks, torch.zeros(len(masks), dtype=torch.int64), 0.7)]
    assert 10 < len(expected) < int((quality > 0.88).sum()) / 2, "both filters and the suppression have work to do"
    assert found.tolist() == expected.tolist()
    assert good.tolist() == torch.nonzero((quality[:, 0] > 0.88) & (theirs_stable >= 0.95))[:, 0].tolist()


@pytest.fixture(scope="module")
def sure():
    """A tiny model with random weights whose masks have sharp edges and a predicted IoU about 0.88."""
    torch.manual_seed(0)
    model = build(TINY)
    model.mask_decoder.load_state_dict(decoder_of("tiny").mask_decoder.state_dict())
    with torch.no_grad():
        for mlp in model.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight *= 40
            mlp.layers[-1].bias *= 40
        last = model.mask_decoder.iou_prediction_head.layers[-1]
        last.weight *= 0.1
        last.bias.fill_(0.88)
    return Backend(model, TINY, {}, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_its_defaults_it_finds_what_the_reference_generator_finds(sure, seed):
    from segment_anything import SamAutomaticMaskGenerator

    coarse = 255 * torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    tile = F.interpolate(coarse, 64, mode="bicubic").clamp(0, 255).to(torch.uint8)
    grid = grid_points(1, 8, (64, 64)).points[:, 0].numpy() - 0.5  # SAM names a pixel where we give a place
    generator = SamAutomaticMaskGenerator(sure.model, points_per_side=None, point_grids=[grid / 64])
    theirs = generator.generate(tile[0].permute(1, 2, 0).numpy())
    ours = generate_masks(sure, sure.encode(tile), (64, 64), points_per_side=8)[0]
    assert len(ours.boxes) == len(theirs) > 0
    for box, mask, score in zip(ours.boxes.tolist(), ours.masks, ours.scores.tolist()):
        full = np.zeros((64, 64), bool)
        full[box[1] : box[3], box[0] : box[2]] = mask.numpy()
        other = max(theirs, key=lambda found: (found["segmentation"] & full).sum())
        assert (full != other["segmentation"]).sum() <= 2
        assert score == pytest.approx(min(1, other["predicted_iou"]), abs=1e-4)


def test_suppression_by_masks_keeps_what_shares_a_box_only(sure):
    tile = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    options = {"points_per_side": 5, "pred_iou_thresh": 0.0, "stability_thresh": 0.0}
    encoded = sure.encode(tile)
    by_box, by_mask = (generate_masks(sure, encoded, (64, 64), nms=how, **options)[0] for how in ("box", "mask"))
    assert 0 < len(by_box.boxes) < len(by_mask.boxes) < 75
    full = np.zeros((len(by_mask.boxes), 64, 64), bool)
    for i, (box, mask) in enumerate(zip(by_mask.boxes.tolist(), by_mask.masks)):
        full[i, box[1] : box[3], box[0] : box[2]] = mask.numpy()
    flat = full.reshape(len(full), -1).astype(np.int64)
    shared, area = flat @ flat.T, flat.sum(1)
    iou = shared / (area[:, None] + area - shared)
    assert iou[~np.eye(len(iou), dtype=bool)].max() <= 0.7


def test_masks_that_were_suppressed_do_not_travel_along(sure):
    tile = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    (found,) = generate_masks(sure, sure.encode(tile), (64, 64), points_per_side=5, pred_iou_thresh=0.0)
    buffer = found.masks[0].untyped_storage().nbytes()
    assert buffer == sum(mask.numel() for mask in found.masks)


def test_packs_without_unused_masks_hold_the_same_masks():
    logits, quality = discs(40)
    decoded = Decoded(logits, torch.zeros(40, 2, dtype=torch.int64), quality)
    masks = crop_masks(decoded, (SIDE, SIDE), (SIDE, SIDE))
    some = masks[torch.tensor([7, 3, 30])]
    packed = some.compact()
    assert len(packed.bits) == int(some.area.sum()) < len(some.bits)
    assert all(torch.equal(a, b) for a, b in zip(packed.unpack(), some.unpack()))
    empty = dataclasses.replace(some)[torch.zeros(0, dtype=torch.int64)].compact()
    assert (len(empty), len(empty.bits)) == (0, 0)
