"""Matching and losses of the point learner against hand-made numbers, and the points of objects."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gigaseg.segmenters.cfrsam.points import PointMaps
from gigaseg.train.cfrsam.matching import match_points
from gigaseg.train.cfrsam.points_losses import class_loss, mask_loss, place_loss, point_losses
from gigaseg.train.cfrsam.points_truth import image_points, with_points
from gigaseg.train.crops import Crop, objects_of


def logits(*rows):
    return torch.tensor([[*row, 1 - sum(row)] for row in rows]).clamp(min=1e-12).log()


@pytest.mark.parametrize(("px", "picked"), [(9, 1), (10, 0)])
def test_a_px_weighs_as_much_as_a_tenth_of_probability(px, picked):
    points = torch.tensor([[20.0, 20.0], [20.0 + px, 20.0]])
    anchors, objects = match_points(
        points, logits((0.0,), (0.95,)), torch.tensor([[20.0, 20.0]]), torch.zeros(1, dtype=torch.int64)
    )
    assert anchors.tolist() == [picked]
    assert objects.tolist() == [0]


def test_the_sum_of_all_costs_is_least_and_the_objects_class_counts():
    points = torch.tensor([[0.0, 0.0], [0, 0], [50, 0]])
    probabilities = logits((0.9, 0.0), (0.0, 0.9), (0.1, 0.1))
    anchors, objects = match_points(points, probabilities, torch.tensor([[1.0, 0], [1, 0]]), torch.tensor([1, 0]))
    assert (anchors.tolist(), objects.tolist()) == ([0, 1], [1, 0])


@pytest.mark.parametrize("number", [0, 5])
def test_fewer_or_more_objects_than_anchors(number):
    anchors, objects = match_points(
        torch.rand(3, 2), logits((0.2,), (0.2,), (0.2,)), torch.rand(number, 2), torch.zeros(number, dtype=torch.int64)
    )
    assert len(anchors) == len(objects) == min(3, number)


def test_background_of_no_weight_has_no_gradient():
    values = torch.randn(1, 4, 3, requires_grad=True)
    class_loss(values, torch.tensor([[0, 2, 2, 1]]), 0.0).backward()
    assert (values.grad[0, [1, 2]] == 0).all()
    assert (values.grad[0, [0, 3]] != 0).any(-1).all()


@pytest.mark.parametrize("weight", [0.1, 0.4, 1.0])
def test_the_mean_of_background_alone_knows_no_weight(weight):
    values, targets = torch.randn(2, 5, 2), torch.ones(2, 5, dtype=torch.int64)
    expected = F.cross_entropy(values.flatten(0, 1), targets.flatten())
    assert class_loss(values, targets, weight).item() == pytest.approx(expected.item(), rel=1e-6)
    assert class_loss(values, targets, 0.0) == 0


def test_the_class_loss_is_a_weighted_mean():
    values, targets = torch.randn(2, 5, 3), torch.randint(0, 3, (2, 5))
    expected = F.cross_entropy(values.flatten(0, 1), targets.flatten(), torch.tensor([1.0, 1.0, 0.4]))
    assert class_loss(values, targets, 0.4).item() == pytest.approx(expected.item(), rel=1e-6)


def test_one_pair_that_is_off_by_3_and_4():
    loss = 5e-3 * place_loss(torch.tensor([[13.0, 24.0]]), torch.tensor([[10.0, 20.0]]), 1)
    assert loss.item() == pytest.approx(0.125)
    assert place_loss(torch.zeros(0, 2), torch.zeros(0, 2), 0) == 0


def test_the_mask_loss_is_focal_without_alpha():
    values, labels = torch.tensor([[[2.0, -1.0]]]), torch.tensor([[[7, 0]]], dtype=torch.int32)
    p = np.array([1 / (1 + np.exp(-2)), 1 - 1 / (1 + np.exp(1))])
    assert mask_loss(values, labels).item() == pytest.approx(np.mean(-((1 - p) ** 2) * np.log(p)), rel=1e-5)


def test_losses_of_a_batch_where_an_image_has_no_object():
    points = torch.tensor([[[8.0, 8.0], [24, 8]], [[8, 8], [24, 8]]], requires_grad=True)
    values = torch.zeros(2, 2, 2, requires_grad=True)
    maps = PointMaps(points[0].detach(), points, values, torch.zeros(2, 16, 32))
    losses = point_losses(
        maps,
        [torch.tensor([[21.0, 12.0]]), torch.zeros(0, 2)],
        [torch.tensor([0]), torch.zeros(0, dtype=torch.int64)],
        torch.zeros(2, 16, 32),
        weights=(1.0, 5e-3, 0.0),
    )
    assert losses["regression"] == 25
    assert losses["distance"] == 5
    assert losses["classification"].item() == pytest.approx(np.log(2))
    assert losses["loss"].item() == pytest.approx(np.log(2) + 0.125)
    losses["loss"].backward()
    assert points.grad[0, 1].tolist() == pytest.approx([2 * 5e-3 * 3, 2 * 5e-3 * -4])
    assert (points.grad[0, 0] == 0).all()
    assert (values.grad[0, 1, 0] < 0) & (values.grad[1, 1, 0] > 0)


def test_the_point_of_an_object_is_its_centroid_or_lies_inside():
    labels = np.zeros((20, 30), np.int32)
    labels[2:5, 3:9] = 1  # its centroid is a corner of pixels
    labels[8:18, 10:20] = 2
    labels[9:18, 11:19] = 0  # an arch with nothing in its middle
    labels[19, 29] = 3
    points = image_points(labels)
    assert points[0].tolist() == [6, 3.5]
    assert labels[int(points[1][1]), int(points[1][0])] == 2
    assert points[2].tolist() == [29.5, 19.5]
    assert image_points(np.zeros((4, 4), np.int32)).shape == (0, 2)


def test_points_of_a_crop_belong_to_the_objects_that_it_lists():
    labels = np.zeros((32, 32), np.int32)
    labels[0:8, 0:8] = 5
    labels[30:, 30:] = 7  # too small
    labels[10:20, 12:24] = 9
    found = objects_of(labels, 12, np.random.default_rng(0))
    item = Crop(torch.zeros(3, 32, 32), torch.from_numpy(labels), *found, torch.zeros(2, dtype=torch.int64))
    assert with_points(item).centres.tolist() == [[4, 4], [18, 15]]
