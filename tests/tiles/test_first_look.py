"""The first look calls a tile blank only when nothing stands out."""

import cv2
import numpy as np
import pytest

from gigaseg.tiles.first_look import is_blank

GLASS = (243, 241, 244)


def even(colour=GLASS, side=512, noise=0.0, seed=0):
    pixels = np.full((side, side, 3), colour, np.float64)
    pixels += np.random.default_rng(seed).normal(0, noise, pixels.shape) if noise else 0
    return pixels.round().clip(0, 255).astype(np.uint8)


def with_disc(pixels, x, y, diameter, difference):
    mask = np.zeros(pixels.shape[:2], np.uint8)
    cv2.circle(mask, (x, y), diameter // 2, 1, -1)
    return (pixels.astype(int) + mask[..., None] * np.array(difference)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), GLASS, (225, 150, 190)], ids=str)
def test_one_colour_is_blank(colour):
    assert is_blank(even(colour))
    assert is_blank(even(colour, noise=0.5))


def test_single_odd_pixels_do_not_stand_out():
    pixels = even()
    pixels[100, 100] -= 40
    pixels[37, 400:402] -= 30
    assert is_blank(pixels)


@pytest.mark.parametrize("diameter", [10, 12, 26, 120])
@pytest.mark.parametrize("difference", [3, -3])
@pytest.mark.parametrize("colour", [(4, 4, 4), GLASS], ids=["dark field", "glass"])
def test_no_object_that_stands_out_by_three_grey_levels_is_missed_wherever_it_lies(diameter, difference, colour):
    for x, y in np.random.default_rng(1).integers(0, 512, (20, 2)).tolist() + [[0, 0], [511, 511], [2, 250]]:
        inside = min(max(x, 8), 503), min(max(y, 8), 503)
        assert not is_blank(with_disc(even(colour), *inside, diameter, (difference,) * 3))


def test_a_difference_in_one_channel_alone_stands_out():
    assert not is_blank(with_disc(even(), 200, 300, 26, (0, -6, 0)))


def test_an_object_in_noise_is_not_missed():
    for seed in range(5):
        assert not is_blank(with_disc(even((8, 8, 8), noise=3.0, seed=seed), 250, 250, 20, (5, 5, 5)))


def test_gradients_and_noise_are_looked_at_rather_than_skipped():
    slope = np.linspace(0, 8, 512)[None, :, None]
    assert not is_blank((even((100, 100, 100)) + slope).astype(np.uint8))
    assert not is_blank(even((128, 128, 128), noise=8.0))


@pytest.mark.parametrize("shape", [(512, 512), (384, 640), (513, 509), (8, 8), (5, 3), (1, 1), (0, 0)], ids=str)
def test_tiles_of_any_shape_are_looked_at(shape):
    assert is_blank(np.full((*shape, 3), 200, np.uint8))


def test_pixels_are_left_as_they_are_and_need_not_be_contiguous():
    pixels = with_disc(even(side=256), 100, 100, 26, (-60, -80, -40))
    before = pixels.copy()
    assert not is_blank(pixels)
    assert not is_blank(pixels.transpose(1, 0, 2)[::-1])
    assert np.array_equal(pixels, before)
