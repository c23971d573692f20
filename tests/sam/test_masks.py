"""Cropped masks equal full-size ones; packing, suppression and scores."""

import dataclasses
import time

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gigaseg.sam.decoder import Decoded
from gigaseg.sam.masks import best, crop_masks, every, resize_matrix, stability
from gigaseg.sam.packed import PackedMasks, pack, to_instances
from gigaseg.sam.suppression import box_nms, mask_nms


def smooth(n, shape, seed=0, scale=6):
    """Random logits with blobs, some of them touching the border, and the last one without any."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 1, shape[0] // scale + 2, shape[1] // scale + 2, generator=generator)
    logits = F.interpolate(coarse, shape, mode="bicubic") + 0.2 * torch.randn(n, 1, *shape, generator=generator)
    logits -= torch.linspace(0, 2.5, n)[:, None, None, None]
    logits[-1] = -1 - logits[-1].abs()
    return logits


def decoded(logits, origin=None, quality=None):
    n = len(logits)
    origin = torch.zeros(n, 2, dtype=torch.int64) if origin is None else torch.tensor(origin)
    return Decoded(logits, origin, torch.full((n, 1), 0.5) if quality is None else quality)


def painted(masks, shape):
    """Packed masks at full size, (n, height, width) bool; their boxes must be tight."""
    full = torch.zeros(len(masks), *shape, dtype=torch.bool)
    for i, (mask, box) in enumerate(zip(masks.unpack(), masks.boxes.tolist())):
        if mask.numel():
            assert mask.any(0)[[0, -1]].all()
            assert mask.any(1)[[0, -1]].all()
        full[i, box[1] : box[3], box[0] : box[2]] = mask
    return full


def plain(logits, input_shape, tile_shape):
    """What SAM's post-processing does, at full size, in double precision."""
    full = F.interpolate(logits.double(), input_shape, mode="bilinear", align_corners=False)
    return F.interpolate(full, tile_shape, mode="bilinear", align_corners=False)[:, 0]


@pytest.mark.parametrize(
    ("low", "size", "tile"),
    [
        ((64, 64), (256, 256), (256, 256)),
        ((48, 80), (96, 160), (96, 160)),
        ((64, 64), (256, 256), (250, 250)),
        ((32, 64), (128, 256), (200, 400)),
        ((64, 64), (128, 128), (40, 40)),
    ],
    ids=["one-resize", "wide", "smaller-tile", "larger-tile", "tile-below-low-res"],
)
def test_cropped_masks_equal_full_size_post_processing_pixel_by_pixel(low, size, tile):
    logits = smooth(40, low)
    expected = plain(logits, size, tile)
    found = painted(crop_masks(decoded(logits), size, tile), tile)
    differs = found != (expected > 0)
    assert (expected[differs].abs() < 1e-6).all()  # rounding at the threshold itself
    assert differs.sum() <= 2
    assert found.any((1, 2)).sum() > 30
    assert not found[-1].any()


def test_another_threshold_than_zero_is_kept_to():
    logits = smooth(20, (32, 32))
    found = painted(crop_masks(decoded(logits), (128, 128), (128, 128), threshold=0.7), (128, 128))
    assert torch.equal(found, plain(logits, (128, 128), (128, 128)) > 0.7)


def test_a_window_stands_for_the_image_and_lies_at_its_place():
    window = smooth(12, (16, 24), scale=4)
    origin = [[4 * (i % 3) * 3, 4 * (i // 3) * 2] for i in range(12)]
    found = painted(crop_masks(decoded(window, origin), (128, 128), (128, 128), (64, 64)), (128, 128))
    for i, (x, y) in enumerate(origin):
        own = plain(window[i : i + 1], (32, 48), (32, 48))[0] > 0
        expected = torch.zeros(128, 128, dtype=torch.bool)
        expected[2 * y : 2 * y + 32, 2 * x : 2 * x + 48] = own
        assert torch.equal(found[i], expected)


def test_the_resize_as_a_matrix_is_the_resize():
    line = torch.randn(1, 1, 24, dtype=torch.float64)
    resized = F.interpolate(F.interpolate(line, 96, mode="linear"), 70, mode="linear")
    assert torch.allclose(resize_matrix(24, 96, 70).double() @ line[0, 0], resized[0, 0], atol=1e-6)


def test_large_and_small_masks_of_a_batch_keep_their_order():
    logits = torch.full((5, 1, 64, 64), -1.0)
    sides = [2, 60, 5, 0, 30]
    for i, side in enumerate(sides):
        logits[i, 0, :side, :side] = 1
    found = crop_masks(decoded(logits), (64, 64), (64, 64))
    assert found.boxes.tolist() == [[0, 0, side, side] for side in sides]
    assert found.area.tolist() == [side**2 for side in sides]
    assert [int(mask.sum()) for mask in found.unpack()] == [side**2 for side in sides]
    turned = pack([found, found])[torch.tensor([8, 1, 5])]
    assert [tuple(mask.shape) for mask in turned.unpack()] == [(0, 0), (60, 60), (2, 2)]


def test_no_prompts_and_no_masks_give_empty_packs():
    for logits in (torch.zeros(0, 1, 16, 16), torch.full((3, 1, 16, 16), -1.0)):
        found = crop_masks(decoded(logits), (64, 64), (64, 64))
        assert len(found) == len(logits)
        assert found.boxes.abs().sum() == 0
        assert len(found.bits) == 0
        assert box_nms(found, torch.zeros(len(logits)), 0.5).tolist() == []
        assert mask_nms(found, torch.zeros(len(logits)), 0.5).tolist() == []


def test_the_best_of_three_masks_is_the_one_of_highest_quality():
    logits = torch.arange(6.0).view(2, 3, 1, 1).expand(-1, -1, 4, 4)
    quality = torch.tensor([[0.1, 0.9, 0.9], [0.5, 0.2, 0.3]])
    three = Decoded(logits, torch.tensor([[4, 8], [0, 0]]), quality)
    assert best(three).logits[:, 0, 0, 0].tolist() == [1, 3]
    flat = every(three)
    assert flat.logits[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert flat.origin.tolist() == [[4, 8]] * 3 + [[0, 0]] * 3
    assert torch.equal(flat.quality[:, 0], quality.flatten())


def test_stability_is_the_iou_of_a_stricter_and_a_looser_mask():
    row = torch.tensor([[2.0, 0.5, -0.5, -2.0], [-3.0, -3.0, -3.0, -3.0], [5.0, 5.0, 5.0, -5.0]])
    same = decoded(row[:, None, None].expand(3, 1, 4, 4).contiguous())
    assert stability(same, (4, 4), (4, 4)).tolist() == pytest.approx([1 / 3, 0, 1])


def test_stability_is_measured_in_pixels_of_the_tile():
    logits = 4 * smooth(30, (16, 16), seed=2)[:20]
    full = F.interpolate(logits, (64, 64), mode="bilinear")[:, 0]
    expected = (full > 1).sum((1, 2)) / (full > -1).sum((1, 2)).clamp(min=1)
    assert torch.equal(stability(decoded(logits), (64, 64), (64, 64)), expected)
    assert 0.1 < expected.mean() < 0.9


def rectangles(boxes, scores, offset_step=0):
    boxes = torch.tensor(boxes, dtype=torch.int32)
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).long()
    return PackedMasks(
        boxes, torch.ones(int(area.sum()), dtype=torch.bool), area.cumsum(0) - area, torch.tensor(scores)
    )


def test_of_like_boxes_of_an_image_the_best_stays():
    masks = rectangles([(0, 0, 10, 10), (0, 0, 10, 11), (0, 0, 10, 10), (50, 50, 52, 52)], [0.8, 0.9, 0.95, 0.1])
    assert box_nms(masks, torch.tensor([0, 0, 1, 1]), 0.7).tolist() == [1, 2, 3]
    assert mask_nms(masks, torch.tensor([0, 0, 1, 1]), 0.7).tolist() == [1, 2, 3]
    assert box_nms(masks, torch.tensor([0, 0, 0, 0]), 0.7).tolist() == [2, 3]
    assert box_nms(masks, torch.tensor([0, 0, 0, 0]), 0.95).tolist() == [1, 2, 3]


def test_masks_that_share_a_box_but_no_pixels_both_stay():
    stripes = torch.zeros(2, 10, 10, dtype=torch.bool)
    stripes[0, ::2] = stripes[1, 1::2] = True
    stripes[0, 9] = stripes[1, 0] = True
    masks = PackedMasks(
        torch.tensor([[5, 7, 15, 17]] * 2, dtype=torch.int32),
        stripes.flatten(),
        torch.tensor([0, 100]),
        torch.tensor([0.5, 0.6]),
    )
    image = torch.zeros(2)
    assert box_nms(masks, image, 0.7).tolist() == [1]
    assert mask_nms(masks, image, 0.7).tolist() == [0, 1]
    assert mask_nms(masks, image, 0.2).tolist() == [0, 1], "20 of 100 pixels in common"
    assert mask_nms(masks, image, 0.19).tolist() == [1]


def test_mask_suppression_equals_the_plain_greedy_loop():
    logits = smooth(60, (32, 32), seed=4)
    quality = torch.rand(60, 1, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    masks = crop_masks(decoded(logits, quality=quality), (64, 64), (64, 64))
    full = painted(masks, (64, 64)).flatten(1).numpy()
    for threshold in (0.1, 0.3, 0.6):
        kept = []
        for i in np.argsort(-masks.scores.numpy(), kind="stable"):
            iou = [(full[i] & full[k]).sum() / (full[i] | full[k]).sum() for k in kept]
            if full[i].any() and all(value <= threshold for value in iou):
                kept.append(int(i))
        assert mask_nms(masks, torch.zeros(60), threshold).tolist() == sorted(kept)


def test_a_thousand_large_masks_on_one_heap_take_no_minute():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 200, (1000, 2))
    masks = rectangles(np.hstack([low, low + rng.integers(100, 300, (1000, 2))]).tolist(), rng.random(1000).tolist())
    begin = time.process_time()
    kept = mask_nms(masks, torch.zeros(1000), 0.5)
    assert time.process_time() - begin < 10
    assert 10 < len(kept) < 300


def test_instances_are_the_masks_of_their_tile_without_empty_ones():
    masks = rectangles([(0, 0, 10, 10), (3, 4, 6, 9), (0, 0, 0, 0), (1, 1, 2, 2)], [0.8, 0.7, 0.9, 0.1])
    prob = torch.tensor([[1.0, 0], [0, 1.0], [0, 1.0], [0.5, 0.5]])
    first, second, third = to_instances(masks, torch.tensor([0, 2, 0, 0]), 3, prob)
    assert first.boxes.tolist() == [[0, 0, 10, 10], [1, 1, 2, 2]]
    assert [tuple(mask.shape) for mask in first.masks] == [(10, 10), (1, 1)]
    assert first.class_prob.tolist() == [[1, 0], [0.5, 0.5]]
    assert len(second.boxes) == len(second.masks) == 0
    assert third.boxes.tolist() == [[3, 4, 6, 9]]
    assert third.masks[0].shape == (5, 3)
    assert to_instances(dataclasses.replace(masks), torch.zeros(4), 1)[0].class_prob.tolist() == [[1.0]] * 3
