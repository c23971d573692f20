"""What the density regressor should answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gigaseg.train.cfrsam.points_truth import image_points
from gigaseg.train.crops import affine, crop
from gigaseg.train.persense.targets import density_targets, with_centres


def drawn(centres, shape=(2, 40, 50), sigma=2.5, image=None):
    xy = torch.tensor(centres, dtype=torch.float32).view(-1, 2)
    image = torch.zeros(len(xy), dtype=torch.int64) if image is None else torch.tensor(image)
    return density_targets(xy, image, shape, sigma)


def test_each_object_has_unit_mass_in_its_own_picture_also_at_the_borders():
    centres = [(25, 20), (26, 20), (0, 0), (49.9, 39.9), (0.2, 17)]
    found = drawn(centres, image=[0, 0, 0, 1, 1])
    assert found.shape == (2, 40, 50)
    assert found.sum((1, 2)).tolist() == pytest.approx([3, 2], abs=1e-5)
    assert drawn([]).tolist() == torch.zeros(2, 40, 50).tolist()


def test_a_gaussian_has_its_peak_and_width_where_they_belong():
    found = drawn([(20.5, 10.5)], sigma=2.0)[0].double()
    y, x = divmod(int(found.argmax()), 50)
    assert (x, y) == (20, 10)
    assert float(found.max()) == pytest.approx(1 / (2 * np.pi * 4), rel=0.01)
    xs = torch.arange(50) + 0.5
    assert float((found.sum(0) * (xs - 20.5) ** 2).sum()) == pytest.approx(4, rel=0.01)
    # between two pixels: both have the same
    between = drawn([(20.0, 10.5)], sigma=2.0)[0]
    assert float(between[10, 19]) == pytest.approx(float(between[10, 20]), rel=1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_of_cut_objects_those_count_whose_centre_is_inside(samples, flip):
    labels = np.zeros((96, 96), np.int32)
    labels[40:60, 20:40] = 1  # centroid (30, 50)
    labels[10:20, 60:90] = 2  # (75, 15)
    sample = replace(samples[0], labels=labels)
    points = np.vstack([[np.nan, np.nan], image_points(labels)])
    for middle, expected in (((30.0, 50.0), 1), ((61.9, 50.0), 1), ((62.1, 50.0), 0), ((68.0, 36.0), 1)):
        matrix = affine(1.0, 0.0, flip, middle, 64)
        cut = with_centres(crop(sample, matrix, 64, np.random.default_rng(0), min_area=1), points, matrix)
        assert len(cut.ids) == len(cut.centres) == expected, middle
    # scaled and turned, a centre lies at the same place of the object
    matrix = affine(2.0, np.pi / 2, flip, (40.0, 45.0), 64)
    cut = with_centres(crop(sample, matrix, 64, np.random.default_rng(0), min_area=1), points, matrix)
    seen = (matrix[:, :2] @ cut.centres.numpy().T.astype(np.float64)).T + matrix[:, 2]
    assert seen == pytest.approx(points[1:2], abs=1e-4)


def test_a_concave_object_s_point_lies_on_it(samples):
    labels = np.zeros((96, 96), np.int32)
    labels[20:60, 20:26] = labels[54:60, 20:60] = labels[20:60, 54:60] = 1  # a U, about its own centroid
    sample = replace(samples[0], labels=labels)
    matrix = affine(1.0, 0.0, False, (48.0, 48.0), 96)
    points = np.vstack([[np.nan, np.nan], image_points(labels)])
    cut = with_centres(crop(sample, matrix, 96, np.random.default_rng(0), min_area=1), points, matrix)
    ((x, y),) = cut.centres.long().tolist()
    assert labels[y, x] == 1
