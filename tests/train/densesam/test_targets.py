"""Boundaries of label images: known answers, and the rule instance by instance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from gigaseg.train.densesam import targets

CROSS = ndimage.generate_binary_structure(2, 1)


def boundary_target(labels, extra=0):
    return targets.boundary_target(torch.from_numpy(labels), extra).numpy()


def by_instance(labels, extra):
    """Dilation XOR erosion of one instance after the other; beyond the border an instance goes on."""
    boundary = np.zeros(labels.shape, bool)
    for number in np.unique(labels[labels > 0]):
        one = labels == number
        boundary |= ndimage.binary_dilation(one, CROSS) ^ ndimage.binary_erosion(one, CROSS, border_value=1)
    return ndimage.binary_dilation(boundary, CROSS, iterations=extra) if extra else boundary


def drawn(*rows):
    return np.array([[cell == "#" for cell in row] for row in rows])


def test_a_square_has_a_ring_inside_and_one_outside_without_corners():
    labels = np.zeros((7, 8), np.int32)
    labels[2:5, 2:6] = 9
    assert (
        boundary_target(labels)
        == drawn("........", "..####..", ".######.", ".##..##.", ".######.", "..####..", "........")
    ).all()


def test_touching_squares_have_a_boundary_of_two_pixels_between_them():
    labels = np.zeros((5, 8), np.int32)
    labels[:, :4] = 1
    labels[:, 4:] = 2
    assert (boundary_target(labels) == drawn(*["...##..."] * 5)).all()


def test_extra_dilates_by_the_cross():
    labels = np.zeros((9, 9), np.int32)
    labels[4, 4] = 1
    cross = drawn(".#.", "###", ".#.")
    assert (boundary_target(labels) == np.pad(cross, 3)).all()
    diamond = np.abs(np.arange(9) - 4)[:, None] + np.abs(np.arange(9) - 4) <= 3
    assert (boundary_target(labels, extra=2) == diamond).all()


@pytest.mark.parametrize("value", [0, 3])
@pytest.mark.parametrize("shape", [(11, 22), (1, 1), (0, 4)])
def test_a_tile_of_one_label_has_no_boundary(value, shape):
    boundary = boundary_target(np.full(shape, value, np.int32), extra=2)
    assert boundary.shape == shape
    assert boundary.dtype == np.bool_
    assert not boundary.any()


@settings(deadline=None)
@given(
    arrays(np.int32, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=st.integers(0, 3)),
    st.integers(0, 2),
)
def test_it_is_dilation_xor_erosion_of_each_instance(labels, extra):
    before = labels.copy()
    assert (boundary_target(labels, extra) == by_instance(labels, extra)).all()
    assert (labels == before).all()
