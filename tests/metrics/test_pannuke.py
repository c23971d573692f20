from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest

from gigaseg.errors import FormatError
from gigaseg.metrics.classes import class_pq, group_means, mean_of_groups, nan_mean
from gigaseg.metrics.instance import panoptic_quality
from gigaseg.metrics.overlap import Overlap
from gigaseg.metrics.pannuke import merge_channels, score_pannuke


def _image(*nuclei: tuple[int, int, int]) -> np.ndarray:
    """(64, 64, 6) with one 8 px square a nucleus: (channel, y, x)."""
    image = np.zeros((64, 64, 6))
    for i, (channel, y, x) in enumerate(nuclei, 1):
        image[y : y + 8, x : x + 8, channel] = i
    return image


def test_tissues_count_once_whatever_their_number_of_images():
    values, tissues = [1.0, nan, 0.0, 0.5, 0.5], ["a", "a", "b", "b", "b"]
    means = group_means(values, tissues)
    assert means == pytest.approx({"a": 1.0, "b": 1 / 3})
    mean, deviation = mean_of_groups(means)
    assert (mean, deviation) == pytest.approx((2 / 3, np.std([1, 1 / 3], ddof=1)))
    assert nan_mean(values) == pytest.approx(0.5)


def test_image_mpq_skips_absent_classes_and_stays_undefined_without_any():
    assert nan_mean([0.8, nan, 0.4, nan, nan]) == pytest.approx(0.6)
    assert isnan(nan_mean([nan, nan]))


def test_false_positives_cost_nothing_where_there_is_no_truth_but_are_reported():
    truth = np.stack([_image((0, 5, 5)), _image()])
    prediction = np.stack([_image((0, 5, 5)), _image((1, 20, 20), (2, 40, 40))])
    scores = score_pannuke(truth, prediction, ["Breast", "Colon"], pixel_size=0.25)
    assert (scores.bpq, scores.mpq) == pytest.approx((1.0, 1.0), abs=2e-6)
    assert isnan(scores.tissue_bpq["Colon"])
    assert scores.false_positives == 2
    assert scores.false_positives_per_mm2 == pytest.approx(2 / (64 * 64 * 0.25**2 * 1e-6))


def test_wrong_class_lowers_mpq_but_not_bpq():
    truth = np.stack([_image((0, 5, 5), (1, 30, 30))])
    prediction = np.stack([_image((0, 5, 5), (4, 30, 30))])
    scores = score_pannuke(truth, prediction, ["Skin"])
    assert scores.bpq == pytest.approx(1.0, abs=2e-6)
    assert scores.mpq == pytest.approx(0.5, abs=2e-6)
    assert scores.class_pq["inflammatory"] == 0.0
    assert isnan(scores.class_pq["epithelial"])


def test_class_maps_differ_only_where_channels_overlap():
    apart, crossing = _image((0, 5, 5), (1, 30, 30)), _image((0, 5, 5), (1, 5, 10))
    for image, same in ((apart, True), (crossing, False)):
        prediction = _image((0, 5, 5), (1, 30, 30))[None]
        results = [
            score_pannuke(image[None], prediction, ["Skin"], class_maps=maps).class_pq["neoplastic"]
            for maps in ("channels", "merged")
        ]
        assert (results[0] == results[1]) is same


def test_later_channels_overwrite_earlier_ones_and_ids_stay_apart():
    instances, types = merge_channels(_image((0, 5, 5), (1, 5, 10)))
    assert types[5, 9:12].tolist() == [1, 2, 2]
    assert len(np.unique(instances)) == 3


def test_class_pq_of_objects_equals_pq_of_their_class_maps(crowd):
    truth, prediction = crowd(11), crowd(12)
    overlap = Overlap.from_labels(truth, prediction)
    found = class_pq(overlap, overlap.truth_ids % 2, overlap.prediction_ids % 2, ["even", "odd"])
    for index, name in enumerate(("even", "odd")):
        t, p = truth * (truth % 2 == index), prediction * (prediction % 2 == index)
        assert found[name] == pytest.approx(panoptic_quality(Overlap.from_labels(t, p)).pq)


@pytest.mark.parametrize(
    ("shape", "tissues", "maps", "message"),
    [
        ((1, 64, 64, 3), ["a"], "channels", "expected .images, y, x, at least 5 channels."),
        ((1, 64, 64, 6), ["a", "b"], "channels", "2 tissues for 1 images"),
        ((1, 64, 64, 6), ["a"], "chanels", "unknown class_maps 'chanels'.*did you mean 'channels'"),
    ],
)
def test_wrong_arrays_are_named(shape, tissues, maps, message):
    with pytest.raises(FormatError, match=message):
        score_pannuke(np.zeros(shape), np.zeros(shape), tissues, class_maps=maps)
