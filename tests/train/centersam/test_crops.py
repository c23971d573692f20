"""Which objects of a crop are targets, and the published way of cropping."""

import numpy as np
import pytest

from gigaseg.train.centersam.crops import letterbox_affine, only_visible
from gigaseg.train.crops import affine, crop
from gigaseg.train.data import Sample


def squares(*boxes, side=100):
    labels = np.zeros((side, side), np.int32)
    for number, (x0, y0, x1, y1) in enumerate(boxes, 1):
        labels[y0:y1, x0:x1] = number
    return Sample("s", "", np.zeros((side, side, 3), np.uint8), labels, 10.0, np.zeros(3, np.uint8))


def listed(sample, least, scale=1.0):
    """Ids of the targets in the upper left 40 x 40 px of an image."""
    matrix = affine(scale, 0.0, False, (20, 20), round(40 * scale))
    found = crop(sample, matrix, round(40 * scale), np.random.default_rng(0))
    return only_visible(found, sample, matrix, least)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_objects_of_which_too_little_is_seen_are_no_targets(scale):
    sample = squares((2, 2, 22, 12), (34, 10, 64, 22), (30, 24, 50, 38))  # 100 %, 20 % and 50 % in view
    assert listed(sample, 0.3, scale).ids.tolist() == [1, 3]
    assert listed(sample, 0.0, scale).ids.tolist() == [1, 2, 3]
    assert listed(sample, 0.6, scale).ids.tolist() == [1]
    found = listed(sample, 0.3, scale)
    assert len(found.boxes) == len(found.centres) == len(found.inside) == len(found.area) == 2
    assert found.boxes[0].tolist() == pytest.approx([2 * scale, 2 * scale, 22 * scale, 12 * scale])
    assert (found.labels == 2).any()


def test_slivers_are_no_targets():
    assert listed(squares((5, 5, 6, 35), (10, 5, 12, 35)), 0.3).ids.tolist() == [2]


def test_a_crop_without_objects_stays_without():
    assert len(listed(squares((60, 60, 80, 80)), 0.3).ids) == 0


def test_the_published_crops_show_0_6_to_1_3_times_the_longer_side_about_a_place_inside():
    sample = squares((0, 0, 10, 10), side=100)
    sample = Sample("s", "", np.zeros((80, 400, 3), np.uint8), np.zeros((80, 400), np.int32), 10.0, sample.background)
    shown, mirrored, upright = set(), [], 0
    for seed in range(200):
        matrix = letterbox_affine(sample, 512, np.random.default_rng(seed))
        determinant = np.linalg.det(matrix[:, :2])
        shown.add(round(float(512 * abs(determinant) ** 0.5 / 400), 3))
        mirrored.append(determinant < 0)
        upright += bool(np.isclose(np.abs(matrix[:, :2]).min(), 0))
        x, y = matrix @ (256, 256, 1)
        assert 128 <= x <= 400 - 128
        assert 32 <= y <= 80 - 32
    assert shown == {0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3}
    assert 70 < sum(mirrored) < 130
    assert 70 < upright < 130
