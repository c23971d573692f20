"""Crops land where their map says, at the scale they are asked for, with the objects that are in them."""

import math

import numpy as np
import pytest
import torch

from gigaseg.train.crops import affine, crop, random_crop, sample_affine
from gigaseg.train.data import Sample
from training import sample

RNG = np.random.default_rng(0)


def test_an_unscaled_crop_is_a_slice():
    image = RNG.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    found = sample_affine(image, affine(1, 0, False, (20, 15), 16), 16, fill=np.zeros(3), nearest=False)
    assert np.allclose(found.permute(1, 2, 0), image[7:23, 12:28], atol=1e-3)


def test_a_quarter_turn_and_a_mirror_move_pixels_without_mixing_them():
    labels = RNG.integers(0, 9, (32, 32)).astype(np.int32)
    turned = sample_affine(labels, affine(1, math.pi / 2, False, (16, 16), 32), 32, fill=np.zeros(1), nearest=True)
    mirrored = sample_affine(labels, affine(1, 0, True, (16, 16), 32), 32, fill=np.zeros(1), nearest=True)
    assert np.array_equal(mirrored[0], labels[:, ::-1])
    assert any(np.array_equal(turned[0], np.rot90(labels, k)) for k in (1, 3))


def test_outside_the_image_is_its_fill():
    image = np.full((10, 10, 3), 200, np.uint8)
    found = sample_affine(image, affine(1, 0, False, (5, 5), 30), 30, fill=np.array([1, 2, 3]), nearest=False)
    assert found[:, 0, 0].tolist() == [1, 2, 3]
    assert found[:, 15, 15].tolist() == [200, 200, 200]
    away = sample_affine(image, affine(1, 0, False, (500, 5), 30), 30, fill=np.array([1, 2, 3]), nearest=False)
    assert away.amax((1, 2)).tolist() == [1, 2, 3]


def test_shrinking_averages_instead_of_picking():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    found = sample_affine(stripes, affine(1 / 4, 0, False, (32, 32), 16), 16, fill=np.zeros(3), nearest=False)
    assert np.allclose(found[:, 2:-2, 2:-2], 100, atol=1)


@pytest.mark.parametrize("shape", [(11, 22), (64, 48)])
def test_objects_have_tight_boxes_inner_points_and_areas(shape):
    labels = np.zeros(shape, np.int32)
    labels[2:9, 3:8] = 4
    labels[1:10, 10:20] = 2
    labels[5, 15] = 4  # a second part
    image = np.zeros((*shape, 3), np.uint8)
    whole = Sample("x", "", image, labels, 8.0, np.zeros(3, np.uint8))
    found = crop(whole, affine(1, 0, False, (16, 16), 32), 32, RNG)
    assert found.ids.tolist() == [2, 4]
    assert found.area.tolist() == [89, 36]
    assert found.boxes.tolist() == [[10, 1, 20, 10], [3, 2, 16, 9]]
    for number, (x, y) in zip(found.ids, found.centres):
        assert labels[int(y), int(x)] == number
    for number, (x, y) in zip(found.ids, found.inside):
        assert labels[int(y), int(x)] == number
    assert found.centres[1].tolist() == [5.5, 5.5]  # the middle of the larger part


def test_small_objects_and_empty_crops_list_nothing():
    labels = np.zeros((20, 20), np.int32)
    labels[3:6, 3:6] = 1
    whole = Sample("x", "", np.zeros((20, 20, 3), np.uint8), labels, 3.0, np.zeros(3, np.uint8))
    found = crop(whole, affine(1, 0, False, (10, 10), 20), 20, RNG)
    assert len(found.ids) == 0
    assert found.boxes.shape == (0, 4)
    assert int((found.labels == 1).sum()) == 9


def test_the_object_scale_is_what_was_asked_for():
    whole = sample(1, side=160, count=8, radius=12)
    for wanted in (14.0, 30.0):
        crops = [random_crop(whole, 96, np.random.default_rng(i), (wanted, wanted)) for i in range(12)]
        sides = torch.cat([c.boxes[:, 2:] - c.boxes[:, :2] for c in crops])
        assert float(sides.max()) == pytest.approx(wanted, rel=0.15)


def test_a_crop_follows_from_its_random_numbers_alone(samples):
    one, two = (random_crop(samples[0], 64, np.random.default_rng(7), (8, 20)) for _ in range(2))
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.inside, two.inside)
