"""Simulated prompts lie where they should; corrections come from where the mask is wrong."""

import numpy as np
import pytest
import torch

from gigaseg.train.batches import collate
from gigaseg.train.config import PromptConfig
from gigaseg.train.crops import random_crop
from gigaseg.train.simulate import correction, first_prompts, jitter_boxes
from gigaseg.train.windows import paste, targets


@pytest.fixture
def batch(samples):
    crops = [random_crop(s, 64, np.random.default_rng(i), (12, 20)) for i, s in enumerate(samples)]
    return collate(crops, 20, np.random.default_rng(0))


def test_every_object_gets_one_prompt_and_its_point_lies_in_it(batch):
    found = first_prompts(batch, np.random.default_rng(0), PromptConfig())
    rows = torch.cat([rows for rows, _ in found])
    assert sorted(rows.tolist()) == list(range(len(batch.ids)))
    (boxed, boxes), (pointed, points) = found
    assert boxes.points.shape == (len(boxed), 0, 2)
    assert points.boxes is None
    for row, (x, y) in zip(pointed, points.points[:, 0]):
        assert batch.labels[batch.image[row], round(float(y)), round(float(x))] == batch.ids[row]
    assert torch.equal(boxes.image, batch.image[boxed])


def test_exact_boxes_are_exact_and_centres_are_centres(batch):
    ((_, boxes),) = first_prompts(batch, np.random.default_rng(0), PromptConfig(box=0, exact_box=1, centre=0))
    assert torch.equal(boxes.boxes, batch.boxes)
    ((_, points),) = first_prompts(batch, np.random.default_rng(0), PromptConfig(box=0, exact_box=0, centre=1))
    assert torch.equal(points.points[:, 0], batch.centres - 0.5)  # SAM's points name pixels


def test_jitter_has_its_spread_stays_in_the_image_and_never_turns_a_box_inside_out():
    boxes = torch.tensor([[40.0, 40.0, 80.0, 60.0]]).repeat(4000, 1)
    found = jitter_boxes(boxes, np.random.default_rng(0), 0.1, (100, 200))
    spread = (found - boxes).std(0)
    assert torch.allclose(spread, torch.tensor([4.0, 2.0, 4.0, 2.0]), rtol=0.08)
    wild = jitter_boxes(boxes, np.random.default_rng(0), 1.0, (62, 81))
    assert ((wild[:, 2:] - wild[:, :2]) >= 0.25 * (boxes[:, 2:] - boxes[:, :2]) - 1e-4).all()
    assert wild.amin() >= 0
    assert wild[:, 2].amax() <= 81
    assert wild[:, 3].amax() <= 62


def test_a_correction_is_drawn_uniformly_from_the_wrong_pixels_with_their_true_label():
    target = torch.zeros(3000, 6, 8, dtype=torch.bool)
    target[:, 1:3, 2:5] = True
    logits = torch.where(target, 1.0, -1.0)
    logits[:, 1, 2] = -1  # missed
    logits[:, 5, 6:8] = 1  # taken by mistake
    points, labels = correction(logits, target, torch.zeros(3000, 2), np.random.default_rng(0))
    places, counts = torch.unique(torch.cat([points, labels[:, None]], 1), dim=0, return_counts=True)
    assert places.tolist() == [[2.5, 1.5, 1], [6.5, 5.5, 0], [7.5, 5.5, 0]]
    assert torch.allclose(counts / 3000, torch.full((3,), 1 / 3), atol=0.03)


def test_a_right_mask_falls_back_on_the_given_point():
    target = torch.rand(4, 5, 5) > 0.5
    points, labels = correction(
        torch.where(target, 1.0, -1.0), target, torch.full((4, 2), 3.0), np.random.default_rng(0)
    )
    assert points.tolist() == [[3.0, 3.0]] * 4
    assert labels.tolist() == [1] * 4


def test_targets_are_cut_to_windows_and_logits_put_back(batch):
    whole = batch.labels[batch.image] == batch.ids[:, None, None]
    origin = torch.tensor([[4, 8]]).repeat(len(batch.ids), 1)
    assert torch.equal(targets(batch, origin, (16, 12), 2), whole[:, 16:48, 8:32])
    logits = torch.randn(len(batch.ids), 16, 12)
    back = paste(logits, origin, (32, 32))
    assert torch.equal(back[:, 8:24, 4:16], logits)
    assert (back[:, :, 16:] == -10).all()
