"""Modulated deformable convolution against loops, and against plain convolutions where it is one."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cfrsam_models import shaken
from gigaseg.segmenters.cfrsam.deform import Deformable, deform


def by_loops(x, offsets, modulation, weight):
    """Eq. 1 of the paper, pixel by pixel; offsets (n, 18, h, w) as y, x of each tap."""
    n, _, h, w = x.shape
    found = np.zeros((n, len(weight), h, w))

    def value(i, y, x_):
        total = 0.0
        for row in (math.floor(y), math.floor(y) + 1):
            for col in (math.floor(x_), math.floor(x_) + 1):
                if 0 <= row < h and 0 <= col < w:
                    total = total + (1 - abs(y - row)) * (1 - abs(x_ - col)) * x[i, :, row, col]
        return total

    for i, row, col in np.ndindex(n, h, w):
        for k in range(9):
            dy, dx = offsets[i, 2 * k : 2 * k + 2, row, col]
            seen = value(i, row + k // 3 - 1 + dy, col + k % 3 - 1 + dx)
            found[i, :, row, col] += modulation[i, k, row, col] * (weight[:, :, k // 3, k % 3] @ (seen + np.zeros(4)))
    return found


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_sum_over_taps_that_the_paper_states():
    x, weight = drawn(0, 2, 4, 5, 6), drawn(1, 3, 4, 3, 3)
    offsets, modulation = 2 * drawn(2, 2, 18, 5, 6), drawn(3, 2, 9, 5, 6).sigmoid()
    expected = by_loops(x.numpy(), offsets.numpy(), modulation.numpy(), weight.numpy())
    torch.testing.assert_close(deform(x, offsets, modulation, weight), torch.from_numpy(expected))


def test_it_begins_as_half_of_the_plain_convolution():
    layer = Deformable(6, 4).eval()
    x = torch.randn(2, 6, 9, 11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            layer(x), F.relu(layer.norm(F.conv2d(x, layer.weight, padding=1) / 2)), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(("y", "x"), [(0, 0), (1, -2), (-3, 1)])
def test_whole_offsets_shift_the_plain_convolution_and_beyond_the_border_is_nothing(y, x):
    image, weight = drawn(0, 1, 4, 8, 9), drawn(1, 3, 4, 3, 3)
    offsets = torch.tensor([y, x], dtype=torch.float64).repeat(9).view(1, 18, 1, 1).expand(1, 18, 8, 9)
    found = deform(image, offsets, torch.ones(1, 9, 8, 9, dtype=torch.float64), weight)
    padded = F.conv2d(F.pad(image, (4, 4, 4, 4)), weight)
    torch.testing.assert_close(found, padded[:, :, 3 + y : 11 + y, 3 + x : 12 + x])


def test_places_do_not_lose_their_precision_in_half_precision():
    """At 200 px bfloat16 tells whole px apart at best."""
    layer = Deformable(4, 4).eval()
    x = torch.randn(1, 4, 16, 250, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = layer(x).float()
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()


def test_what_is_told_beforehand_takes_the_place_of_its_own_offsets():
    layer = shaken(Deformable(6, 4)).eval()
    x = torch.randn(2, 6, 9, 11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = layer(x)
        assert torch.equal(layer(x, layer.offsets(x)), own)
        assert not torch.allclose(layer(x, torch.zeros(2, 27, 9, 11)), own, atol=1e-3)
