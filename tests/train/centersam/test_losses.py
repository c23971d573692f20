"""Losses of the detector: known answers."""

import pytest
import torch

from gigaseg.segmenters.centersam.detector import Maps
from gigaseg.train.centersam.losses import detector_losses, focal_heatmap, foreground_loss, offset_loss, size_loss
from gigaseg.train.centersam.targets import Targets


def logit(*values):
    return torch.logit(torch.tensor(values, dtype=torch.float64)).float()


def test_focal_loss_of_single_cells():
    assert float(focal_heatmap(logit(0.7), torch.ones(1))) == pytest.approx(0.0321007, abs=2e-7)
    assert float(focal_heatmap(logit(0.3), torch.tensor([0.5]))) == pytest.approx(0.00200630, abs=2e-8)
    assert float(focal_heatmap(logit(0.7, 0.3), torch.tensor([1, 0.5]))) == pytest.approx(0.0341070, abs=2e-7)


def test_focal_loss_is_over_the_number_of_peaks_in_the_whole_batch():
    logits, target = logit(0.7, 0.3, 0.7, 0.3).view(2, 1, 1, 2), torch.tensor([1, 0.5, 1, 0.5]).view(2, 1, 1, 2)
    assert float(focal_heatmap(logits, target)) == pytest.approx(0.0341070, abs=2e-7)
    assert float(focal_heatmap(logits[:1].expand(2, -1, -1, -1), target)) == pytest.approx(0.0341070, abs=2e-7)


def test_a_perfect_heat_map_costs_nothing():
    target = (torch.rand(2, 1, 16, 16, generator=torch.manual_seed(0)) > 0.9).float()
    assert float(focal_heatmap(target * 40 - 20, target)) < 1e-6


def test_without_a_peak_the_negative_sum_remains():
    loss = focal_heatmap(logit(0.3, 0.3), torch.tensor([0.5, 0.5]))
    assert float(loss) == pytest.approx(2 * 0.00200630, abs=4e-8)
    assert float(focal_heatmap(torch.full((4, 4), -2.19), torch.zeros(4, 4))) == pytest.approx(
        16 * 0.1007**2 * 0.1061, rel=1e-2
    )


def test_focal_loss_is_finite_for_any_logits_also_in_half_precision():
    logits = torch.tensor([-1e4, 1e4, 0, 30], dtype=torch.bfloat16, requires_grad=True)
    loss = focal_heatmap(logits, torch.tensor([1.0, 0.0, 0.5, 1.0]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_box_losses_as_published_and_as_the_text_has_them():
    found, true = torch.tensor([[4.0, 2.0]]), torch.tensor([[5.0, 4.0]])
    assert float(size_loss(found, true)) == pytest.approx(1.49993, abs=1e-5)
    assert float(size_loss(found, true, "paper")) == 3
    off = torch.tensor([[0.2, 0.4]])
    assert float(offset_loss(off, torch.zeros(1, 2))) == pytest.approx(0.299985, abs=1e-6)
    assert float(offset_loss(off, torch.zeros(1, 2), "paper")) == pytest.approx(0.10, abs=1e-6)
    assert float(offset_loss(3 * torch.ones(1, 2), torch.zeros(1, 2), "paper")) == pytest.approx(5)


def case(seed=0):
    torch.manual_seed(seed)
    maps = Maps(torch.randn(2, 1, 8, 8), torch.rand(2, 2, 8, 8), torch.rand(2, 2, 8, 8))
    heat = torch.zeros(2, 1, 8, 8)
    heat[0, 0, 3, 5] = heat[1, 0, 6, 1] = 1
    return maps, Targets(heat, torch.tensor([0, 1]), torch.tensor([29, 49]), torch.rand(2, 2) + 3, torch.rand(2, 2))


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_cells_without_an_object_add_nothing_to_the_box_losses(variant):
    maps, targets = case()
    before = detector_losses([maps], targets, variant=variant)
    sizes, offsets = maps.size.clone(), maps.offset.clone()
    for values in (sizes, offsets):
        kept = values.flatten(2)[targets.image, :, targets.index]
        values.fill_(1e6)
        values.flatten(2)[targets.image, :, targets.index] = kept
    after = detector_losses([Maps(maps.heat, sizes, offsets)], targets, variant=variant)
    assert {k: float(v) for k, v in before.items()} == {k: float(v) for k, v in after.items()}


def test_the_whole_is_the_weighted_sum_averaged_over_the_stacks():
    (one, targets), (two, _) = case(0), case(1)
    a, b, both = (detector_losses(stacks, targets) for stacks in ([one], [two], [one, two]))
    for name in ("heat", "size", "offset", "loss"):
        assert float(both[name]) == pytest.approx((float(a[name]) + float(b[name])) / 2, rel=1e-6)
    assert float(a["loss"]) == pytest.approx(float(a["heat"] + 0.1 * a["size"] + a["offset"]), rel=1e-6)
    index = (targets.image, slice(None), targets.index)
    error = (one.size.flatten(2)[index] - targets.size).abs().sum()
    assert float(a["size"]) == pytest.approx(float(error) / 4.0001, rel=1e-5)


def test_a_batch_without_objects_has_finite_losses_and_gradients():
    maps, _ = case()
    maps.heat.requires_grad_(), maps.size.requires_grad_()
    none = torch.zeros(0)
    empty = Targets(torch.zeros(2, 1, 8, 8), none.long(), none.long(), none.view(0, 2), none.view(0, 2))
    losses = detector_losses([maps], empty)
    losses["loss"].backward()
    assert losses["size"] == losses["offset"] == 0
    assert torch.isfinite(maps.heat.grad).all()


def test_the_foregrounds_cross_entropy_takes_the_share_of_each_place():
    labels = torch.tensor([[[0, 3, 5, 5], [0, 3, 5, 5]]])  # shares 1/2 and 1
    logits = torch.tensor([[[0.0, 2.0]]])
    expected = (0.6931472 + 0.1269280) / 2
    assert float(foreground_loss(logits, labels)) == pytest.approx(expected, abs=1e-6)
