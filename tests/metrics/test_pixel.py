from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from gigaseg.errors import FormatError
from gigaseg.metrics.overlap import Overlap
from gigaseg.metrics.pixel import PixelCounts, auc, class_iou, confusion, mean_iou, pooled_mean_iou


def test_counts_from_objects_equal_counts_from_masks(crowd):
    truth, prediction = crowd(11), crowd(12)
    assert PixelCounts.from_overlap(Overlap.from_labels(truth, prediction)) == PixelCounts.from_masks(truth, prediction)


def test_two_squares_as_in_the_centersam_digest(boxes):
    pixels = PixelCounts.from_masks(boxes((5, 5, 10, 10), (30, 30, 10, 10)), boxes((5, 7, 10, 10), (50, 50, 10, 10)))
    assert (pixels.dice, pixels.iou) == (0.4, 0.25)


def test_two_class_mean_is_higher_than_foreground_where_background_is_large(boxes):
    pixels = PixelCounts.from_masks(boxes((0, 0, 10, 10)), boxes((0, 5, 10, 10)))
    background = (64 * 64 - 150) / (64 * 64 - 50)
    assert pixels.two_class("iou") == pytest.approx((50 / 150 + background) / 2)
    assert pixels.background.background == pixels


def test_pooling_weighs_pixels_and_the_mean_weighs_images(boxes):
    small = PixelCounts.from_masks(boxes((0, 0, 2, 2)), boxes((0, 1, 2, 2)))
    large = PixelCounts.from_masks(boxes((0, 0, 40, 40)), boxes((0, 0, 40, 40)))
    pooled = small + large
    assert pooled.iou == pytest.approx((2 + 1600) / (6 + 1600))
    assert (small.iou + large.iou) / 2 == pytest.approx(2 / 3)
    assert pooled.dice == pytest.approx(2 * pooled.iou / (1 + pooled.iou))
    mean_iou_of_images = (small.iou + large.iou) / 2
    assert (small.dice + large.dice) / 2 <= 2 * mean_iou_of_images / (1 + mean_iou_of_images)


def test_empty_sides_have_defined_ratios(boxes):
    both, missed, invented = (
        PixelCounts.from_masks(boxes(*t), boxes(*p)) for t, p in (([], []), ([(0, 0, 4, 4)], []), ([], [(0, 0, 4, 4)]))
    )
    for name in ("dice", "iou", "precision", "recall"):
        assert [getattr(c, name) for c in (both, missed, invented)] == [1.0, 0.0, 0.0]


def test_pixels_that_are_not_valid_do_not_count(boxes):
    truth, prediction = boxes((0, 0, 10, 10)), boxes((0, 0, 10, 5))
    valid = np.ones_like(truth, bool)
    valid[:, 5:] = False
    assert PixelCounts.from_masks(truth, prediction, valid).iou == 1.0


def test_unknown_extent_leaves_the_background_undefined():
    assert isnan(PixelCounts(1, 1, 1).two_class("iou"))


def test_persense_miou_pools_within_a_class_before_averaging():
    images = [("a", PixelCounts(1, 1, 0)), ("a", PixelCounts(9, 0, 1)), ("b", PixelCounts(1, 0, 1))]
    mean, each = pooled_mean_iou(images)
    assert each == {"a": pytest.approx(10 / 12), "b": 0.5}
    assert mean == pytest.approx((10 / 12 + 0.5) / 2)


def test_class_iou_by_hand_with_ignored_pixels_and_an_absent_class():
    truth, prediction = np.array([0, 0, 1, 1, 255]), np.array([0, 1, 1, 1, 2])
    matrix = confusion(truth, prediction, classes=3)
    assert matrix.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert class_iou(matrix)[:2].tolist() == pytest.approx([0.5, 2 / 3])
    assert isnan(class_iou(matrix)[2])
    assert mean_iou(matrix) == pytest.approx((0.5 + 2 / 3) / 2)


def test_class_outside_the_range_is_named():
    with pytest.raises(FormatError, match=r"prediction class map has the value 7; expected 0\.\.2"):
        confusion(np.array([0, 1]), np.array([0, 7]), classes=3)


def test_auc_counts_pairs_of_pixels_and_ties_as_half():
    values, positive, negative = np.array([3.0, 1.0, 2.0, 2.0]), np.array([1, 0, 2, 0]), np.array([0, 4, 1, 3])
    pairs = [
        (v > w) + (v == w) / 2
        for v, p in zip(values, positive) for _ in range(p) for w, n in zip(values, negative) for _ in range(n)
    ]  # fmt: skip
    assert auc(values, positive, negative) == pytest.approx(sum(pairs) / len(pairs))
    assert auc(-values, positive, negative) == pytest.approx(1 - sum(pairs) / len(pairs))
    assert auc(np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 2))) == 0.5
    assert isnan(auc(values, positive, 0 * negative))
