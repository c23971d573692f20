"""Colours vary as configured, per image, and follow from the random numbers alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gigaseg.train.colour import stain_jitter, vary, vary_as_centernet
from gigaseg.train.config import ColourConfig

NOTHING = ColourConfig(
    stain=0, stretch=0, gain=0, shift=0, channel=0, gamma=0, saturation=0, invert=0, grey=0, permute=0, blur=0, noise=0
)

STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "lighting": 0.0}
LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)


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
    assert torch.allclose(grey[:, 0], (x * LUMA).sum(1), atol=0.05)


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


def as_centernet(x, seed=0, **spans):
    """Varied, and the image as (b, 3, pixels) before and after."""
    found = vary_as_centernet(x, np.random.default_rng(seed), **{**STILL, **spans})
    return x.flatten(2), found.flatten(2)


def test_as_centernet_with_nothing_to_vary_the_images_stay():
    x = images()
    assert torch.allclose(vary_as_centernet(x, np.random.default_rng(0), **STILL), x, atol=1e-3)


def test_as_centernet_brightness_scales_each_image_by_0_6_to_1_4():
    before, after = as_centernet(images(200), brightness=0.4)
    factors = (after / before).mean((1, 2))
    assert torch.allclose(after, factors.view(-1, 1, 1) * before, atol=1e-2)
    assert 0.6 <= factors.min() < 0.62
    assert 1.38 < factors.max() <= 1.4


def test_as_centernet_contrast_keeps_the_mean_brightness_and_saturation_that_of_every_pixel():
    x = images(20)
    before, after = as_centernet(x, contrast=0.4)
    luma = LUMA.view(3, 1)
    assert torch.allclose((before * luma).sum(1).mean(1), (after * luma).sum(1).mean(1), atol=1e-2)
    factors = after.flatten(1).std(1) / before.flatten(1).std(1)
    assert 0.6 <= factors.min() < 0.9
    assert 1.1 < factors.max() <= 1.4
    before, after = as_centernet(x, saturation=0.4)
    assert torch.allclose((before * luma).sum(1), (after * luma).sum(1), atol=1e-2)
    assert not torch.allclose(before, after, atol=5)


def test_as_centernet_a_grey_image_stays_grey_and_under_saturation_as_it_is():
    grey = images()[:, :1].expand(-1, 3, -1, -1)
    before, after = as_centernet(grey, saturation=0.4)
    assert torch.allclose(before, after, atol=1e-3)
    _, after = as_centernet(grey, saturation=0.4, brightness=0.4, contrast=0.4)
    assert torch.allclose(after[:, 0], after[:, 2], atol=1e-3)


def test_as_centernet_lighting_adds_one_colour_an_image_along_imagenets_components():
    before, after = as_centernet(images(4000)[:, :, :2, :2], lighting=0.1)
    colour = (after - before) / 255
    assert torch.allclose(colour, colour[:, :, :1].expand_as(colour), atol=1e-5)
    covariance = torch.cov(colour[:, :, 0].T.double())
    values, vectors = torch.linalg.eigh(covariance)
    known = torch.tensor([0.00341571, 0.01817699, 0.2141788]).double()
    assert torch.allclose(values.sqrt() / 0.1, known, rtol=0.05)
    first = vectors[:, 2] * vectors[:, 2].sign()
    assert torch.allclose(first, torch.tensor([0.56089297, 0.5832747, 0.58752847]).double(), atol=0.01), "almost grey"
    second = vectors[:, 1] * vectors[0, 1].sign()
    assert torch.allclose(second, torch.tensor([0.71832671, 0.00994535, -0.69563484]).double(), atol=0.02), (
        "red to blue"
    )


def test_as_centernet_the_random_numbers_decide_and_the_range_is_not_cut_off():
    x = images(8)
    one, two, three = (vary_as_centernet(x, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.allclose(one, three, atol=5)
    assert torch.equal(x, images(8)), "what came in is not changed"
    assert one.dtype == torch.float32
    assert one.max() > 255
    assert -255 < one.min() <= one.max() < 600


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_as_centernet_the_greys_are_those_of_the_image_as_it_came(order):
    class Drawn:
        """Gives the largest factors, in a known order."""

        uniform = staticmethod(lambda low, high: high)
        permutation = staticmethod(lambda count: order)
        normal = staticmethod(lambda mean, sd, shape: np.zeros(shape))

    x = images(1)
    mean = (x * LUMA).sum(1).mean()
    found = vary_as_centernet(x, Drawn(), **{**STILL, "brightness": 0.5, "contrast": 0.2})
    expected = {
        (0, 1, 2): 1.2 * 1.5 * x - 0.2 * mean,
        (1, 0, 2): 1.5 * (1.2 * x - 0.2 * mean),
    }
    assert torch.allclose(found, expected[order], atol=1e-2)
