"""Losses on masks whose values are known."""

import math

import pytest
import torch

from gigaseg.train.auxiliary import CHANNELS, REACH, dense_loss, dense_targets
from gigaseg.train.losses import dice, focal, mask_iou


def test_focal_loss_of_an_undecided_mask():
    # p = 1/2 everywhere: 0.25 · 1/4 · log 2 where true, 0.75 · 1/4 · log 2 elsewhere
    target = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    assert focal(torch.zeros(1, 2, 2), target).item() == pytest.approx((0.25 + 3 * 0.75) / 4 * 0.25 * math.log(2))


def test_focal_loss_with_gamma_0_is_half_the_cross_entropy():
    logits, target = torch.randn(3, 5, 4), (torch.rand(3, 5, 4) > 0.5).float()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2))
    assert torch.allclose(focal(logits, target, alpha=0.5, gamma=0), entropy / 2, atol=1e-6)


def test_dice_loss_and_iou_of_overlapping_masks():
    target = torch.zeros(1, 4, 4)
    target[:, :, :2] = 1
    shifted = torch.full((1, 4, 4), -50.0)
    shifted[:, :, 1:3] = 50.0
    assert dice(shifted, target, smooth=0).item() == pytest.approx(1 - 2 * 4 / 16)
    assert mask_iou(shifted, target).item() == pytest.approx(4 / 12)
    assert mask_iou(torch.full((1, 4, 4), -1.0), torch.zeros(1, 4, 4)).item() == pytest.approx(1)


def test_dense_targets_are_shares_and_the_way_to_the_centroid():
    labels = torch.zeros(2, 8, 8, dtype=torch.int32)
    labels[0, 2:6, 2:6] = 3
    labels[1, 0:2, 4:8] = 3  # the same id in another image is another object
    found = dense_targets(labels, 2)
    assert found.shape == (2, CHANNELS, 4, 4)
    assert found[0, 0].sum() == 4
    assert found[0, 1, 0, 0] == 0
    # the place of pixels 2, 3 is 1 px left of the centroid at 3.5
    assert torch.allclose(found[0, 2:, 1, 1] * REACH, torch.tensor([1.0, 1.0]))
    assert torch.allclose(found[1, 2, 0, 2:] * REACH, torch.tensor([1.0, -1.0]))


def test_a_perfect_dense_prediction_has_no_offset_error():
    labels = torch.zeros(1, 8, 8, dtype=torch.int32)
    labels[0, 2:6, 2:6] = 1
    target = dense_targets(labels, 2)
    logits = torch.cat([(target[:, :2] - 0.5) * 40, target[:, 2:]], 1)
    packed = torch.nn.functional.pixel_unshuffle(logits, 2)
    wrong = torch.nn.functional.pixel_unshuffle(torch.cat([logits[:, :2], logits[:, 2:] + 1], 1), 2)
    weight = float(target[:, 0].sum())
    shift = dense_loss(wrong, target) - dense_loss(packed, target)
    assert shift.item() == pytest.approx(2 * weight / (2 * weight + 1), abs=1e-4)
