from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from gigaseg.metrics.bootstrap import interval, mean_statistic, weights


def test_every_resample_holds_as_many_images_as_there_are():
    resamples = weights(7, 50)
    assert resamples.shape == (50, 7)
    assert (resamples.sum(1) == 7).all()
    assert (weights(7, 50) == resamples).all()


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(0.7, 0.1, 400)
    low, high = interval(mean_statistic(values), weights(400, 4000))
    error = values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error)


def test_interval_of_equal_values_is_a_point():
    assert interval(mean_statistic(np.full(5, 0.25)), weights(5, 100)) == (0.25, 0.25)


def test_undefined_images_and_draws_are_left_out():
    low, high = interval(mean_statistic(np.array([0.5, np.nan, np.nan])), weights(3, 200))
    assert (low, high) == (0.5, 0.5)


@pytest.mark.parametrize("values", [[0.5], [np.nan, np.nan]], ids=["one image", "never defined"])
def test_no_interval_without_two_images_or_without_values(values):
    assert all(isnan(v) for v in interval(mean_statistic(np.array(values)), weights(len(values), 20)))
