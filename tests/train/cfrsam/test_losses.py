"""Losses of the second stage against values that can be told beforehand."""

import pytest
import torch
from torch.nn import functional as F

from gigaseg.train.cfrsam.losses import Weights, inner_boundary, mask_losses, total


def squares(*sides, size=64):
    masks = torch.zeros(len(sides), size, size, dtype=torch.bool)
    for mask, side in zip(masks, sides):
        mask[5 : 5 + side, 8 : 8 + side] = True
    return masks


def test_perfect_masks_lose_nothing_but_the_quality_s_error():
    truth = squares(10, 20).float()
    found = mask_losses(60 * truth - 30, truth, torch.tensor([1.0, 0.25]))
    assert float(found["focal"]) == pytest.approx(0, abs=1e-6)
    assert float(found["dice"]) == pytest.approx(0, abs=1e-6)
    assert float(found["quality"]) == pytest.approx(0.75**2 / 2, abs=1e-6)


def test_dice_is_one_ratio_for_all_prompts_of_a_batch():
    """A small one that is missed hardly counts: 1 - 2 * 999 / (999 + 1000); a ratio each would give a half."""
    truth = torch.zeros(2, 40, 40)
    truth[0, 3, 4] = 1
    truth[1].view(-1)[:999] = 1
    logits = torch.stack([torch.full((40, 40), -30.0), 60 * truth[1] - 30])
    assert float(mask_losses(logits, truth, torch.ones(2))["dice"]) == pytest.approx(0.0005, abs=1e-5)


def test_focal_is_the_mean_over_all_pixels_without_class_weight():
    torch.manual_seed(0)
    logits, truth = torch.randn(3, 8, 9), (torch.rand(3, 8, 9) > 0.7).float()
    p = torch.where(truth > 0, logits.sigmoid(), 1 - logits.sigmoid())
    expected = (-((1 - p) ** 2) * p.log()).mean()
    torch.testing.assert_close(mask_losses(logits, truth, torch.ones(3))["focal"], expected)


def test_the_quality_s_target_is_the_soft_iou_through_which_masks_learn_too():
    logits = torch.zeros(1, 4, 4, requires_grad=True)  # probability 1/2 everywhere
    truth = torch.zeros(1, 4, 4)
    truth[0, :2] = 1
    loss = mask_losses(logits, truth, torch.tensor([1.0]))["quality"]
    assert float(loss.detach()) == pytest.approx((1 - 4 / (8 + 8 - 4)) ** 2, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[0, :2] < 0).all(), "a greater IoU comes nearer to the predicted one"
    assert (gradient[0, 2:] > 0).all()


def test_the_boundary_of_a_square_of_ten_are_its_thirty_six_outer_pixels():
    (found,) = inner_boundary(squares(10))
    assert int(found.sum()) == 36
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[6:14, 9:17] = True
    assert not (found & inside).any()
    assert torch.equal(found | inside, squares(10)[0])


def test_objects_that_touch_have_a_boundary_each_and_the_window_s_border_is_none():
    masks = torch.zeros(3, 12, 12, dtype=torch.bool)
    masks[0, 2:10, 1:6] = True
    masks[1, 2:10, 6:11] = True
    masks[2] = True
    found = inner_boundary(masks)
    assert found[0, 2:10, 5].all()
    assert found[1, 2:10, 6].all()
    assert not found[2].any()
    assert not (found & ~masks).any()


@pytest.mark.parametrize("seed", range(3))
def test_the_boundary_is_the_mask_without_its_erosion(seed):
    masks = torch.rand(4, 20, 23, generator=torch.Generator().manual_seed(seed)) > 0.25
    eroded = -F.max_pool2d(-masks[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0.5
    assert torch.equal(inner_boundary(masks), masks & ~eroded)
    assert eroded.any()


def test_coarse_and_refined_masks_count_the_same_and_boundaries_by_their_weight():
    parts = [dict(zip(("focal", "dice", "quality"), torch.tensor(v))) for v in ((1.0, 2.0, 3.0), (10.0, 20.0, 30.0))]
    weights = Weights(2.0, 3.0, 5.0, 0.5)
    assert float(total(parts, None, weights)) == 2 * 11 + 3 * 22 + 5 * 33
    assert float(total(parts, torch.tensor(8.0), weights)) == 2 * 11 + 3 * 22 + 5 * 33 + 4
    assert Weights() == Weights(20.0, 1.0, 1.0, 0.01), "as published"
