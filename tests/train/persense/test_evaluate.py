"""Points and counts of a density map against the truth."""

import numpy as np
import pytest
import torch

from gigaseg.segmenters.persense.base import Density
from gigaseg.segmenters.persense.config import DensityConfig
from gigaseg.train.data import Sample
from gigaseg.train.persense.evaluate import density_figures, image_figures
from gigaseg.train.persense.targets import density_targets

CONFIG = DensityConfig(4, 2)


class Told:
    """A regressor that finds what it is told, as gaussians in the net's scale."""

    config = CONFIG

    def __init__(self, *answers):
        self.answers = list(answers)
        self.factors = []

    def lone_at(self, factor):
        return factor**2 / (2 * np.pi * self.config.sigma**2)

    def at(self, rgb, factor):
        self.factors.append(factor)
        xy, share = self.answers.pop(0)
        centres = torch.tensor(xy, dtype=torch.float32).view(-1, 2)
        image = torch.zeros(len(centres), dtype=torch.int64)
        (found,) = density_targets(centres, image, (1, *rgb.shape[:2]), CONFIG.sigma / factor)
        return Density(share * found.numpy(), share * len(centres))


def sample(xy, radius=10, group="a", side=160):
    y, x = np.mgrid[:side, :side] + 0.5
    labels = np.zeros((side, side), np.int32)
    for number, (cx, cy) in enumerate(xy, 1):
        labels[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = number
    diameter = 2.0 * radius if xy else float("nan")
    return Sample("s", group, np.zeros((side, side, 3), np.uint8), labels, diameter, np.zeros(3, np.uint8))


FOUR = [(30, 30), (90, 30), (30, 100), (110, 110)]


def test_points_where_the_objects_are_are_all_matched_at_the_truth_s_scale():
    told = Told((FOUR, 1.0))
    assert image_figures(told, sample(FOUR)) == {"f1": 1, "count": 4, "objects": 4, "count_error": 0}
    assert told.factors == pytest.approx([1.0])
    told = Told((FOUR, 1.0))
    assert image_figures(told, sample(FOUR, radius=14))["f1"] == 1
    assert told.factors == pytest.approx([20 / 28])


def test_a_point_counts_within_half_a_diameter_and_once():
    near, far = [(38, 30), *FOUR[1:]], [(41.5, 30), *FOUR[1:]]
    assert image_figures(Told((near, 1.0)), sample(FOUR))["f1"] == 1
    assert image_figures(Told((far, 1.0)), sample(FOUR))["f1"] == pytest.approx(3 / 4)
    twice = [(23, 30), (37, 30), *FOUR[1:]]  # two points on the first object
    found = image_figures(Told((twice, 1.0)), sample(FOUR))
    assert found["f1"] == pytest.approx(2 * 4 / (4 + 5))
    assert found["count_error"] == pytest.approx(1 / 4)


def test_touching_objects_have_points_of_their_own():
    pair = [(60, 60), (80, 60)]
    assert image_figures(Told((pair, 1.0)), sample(pair))["f1"] == 1


def test_faint_noise_in_an_empty_image_is_no_point():
    found = image_figures(Told(([(50, 50)], 0.1)), sample([]))
    assert np.isnan(found["f1"])
    assert np.isnan(found["count_error"])
    assert image_figures(Told(([(50, 50)], 0.9)), sample([]))["f1"] == 0


def test_figures_are_means_of_f1_and_medians_of_count_errors_by_group():
    told = Told((FOUR, 1.0), (FOUR[:2], 1.0), (FOUR, 2.0), ([], 1.0))
    found = density_figures(told, [sample(FOUR), sample(FOUR), sample(FOUR, group="b"), sample([], group="b")])
    f1 = [1, 2 * 2 / (4 + 2), 1]
    assert found["f1"] == pytest.approx(np.mean(f1))
    assert found["f1/a"] == pytest.approx(np.mean(f1[:2]))
    assert found["count_error"] == pytest.approx(0.5)  # of 0, 0.5 and 1
    assert (found["count_error/a"], found["count_error/b"]) == (pytest.approx(0.25), pytest.approx(1))
    assert found["images"] == 4
