"""Colours vary as configured, per image, and follow from the random numbers alone."""

from dataclasses import replace

import numpy as np
import torch

from gigaseg.train.colour import stain_jitter, vary
from gigaseg.train.config import ColourConfig

NOTHING = ColourConfig(
    stain=0, stretch=0, gain=0, shift=0, channel=0, gamma=0, saturation=0, invert=0, grey=0, permute=0, blur=0, noise=0
)


def images(b=3):
    return torch.from_numpy(np.random.default_rng(0).uniform(1, 255, (b, 3, 24, 20))).float()


def test_with_nothing_to_vary_the_images_stay():
    x = images()
    assert torch.allclose(vary(x, np.random.default_rng(0), NOTHING), x, atol=0.05)


def test_an_inverted_image_is_the_negative_and_a_grey_one_has_equal_channels():
    x = images()
    negative = vary(x, np.random.default_rng(0), replace(NOTHING, invert=1.0))
    assert torch.allclose(negative, 255 - x, atol=0.05)
    grey = vary(x, np.random.default_rng(0), replace(NOTHING, grey=1.0))
    assert torch.equal(grey[:, 0], grey[:, 2])
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert torch.allclose(grey[:, 0], (x * weights).sum(1), atol=0.05)


def test_a_dark_image_is_stretched_to_the_full_range():
    x = images() / 20
    found = vary(x, np.random.default_rng(0), replace(NOTHING, stretch=1.0))
    assert found.amax() > 250
    assert found.amin() < 5


def test_the_same_random_numbers_give_the_same_images_and_others_differ():
    x = images()
    one, two, three = (vary(x, np.random.default_rng(seed), ColourConfig()) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.allclose(one, three, atol=5)
    assert one.amin() >= 0
    assert one.amax() <= 255


def test_stain_gains_act_on_optical_densities():
    # pure haematoxylin of density d: doubling its gain squares the transmission
    vector = torch.tensor([0.65, 0.70, 0.29])
    vector = vector / vector.norm()
    x = (10 ** -(0.25 * vector)).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    found = stain_jitter(x, torch.tensor([[2.0, 1.0, 1.0]]), torch.zeros(1, 3))
    assert torch.allclose(found, x**2, atol=1e-4)
    assert torch.allclose(stain_jitter(x, torch.ones(1, 3), torch.zeros(1, 3)), x, atol=1e-5)


def test_fluorescence_and_grey_images_have_no_stains():
    dark, grey = torch.full((1, 3, 8, 8), 0.1), torch.full((1, 3, 8, 8), 0.8)
    for x in (dark, grey):
        assert torch.equal(stain_jitter(x, torch.full((1, 3), 3.0), torch.ones(1, 3)), x)
