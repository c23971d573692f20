"""mIoU of one-shot segmentation, against values worked out by hand."""

from math import isnan

import numpy as np
import pytest

from gigaseg.metrics.one_shot import ClassTotals, class_miou


def image(intersection, union):
    """Prediction and truth of that intersection and union, px."""
    prediction = np.arange(20) < union
    return prediction, np.arange(20) < intersection


def totals(*images):
    found = ClassTotals()
    for intersection, union in images:
        found.add(*image(intersection, union))
    return found


def test_a_class_is_summed_up_over_its_images():
    found = totals((1, 2), (9, 10))
    assert (found.intersection, found.union, found.images) == (10, 12, 2)
    assert found.iou == pytest.approx(10 / 12, abs=1e-9)
    assert round(found.iou, 4) == 0.8333, "the mean of the two images would be 0.7"


def test_each_class_counts_once_however_many_images_it_has():
    found = class_miou({"a": totals((1, 2), (9, 10), (5, 5)), "b": totals((0, 7))})
    assert (found.value, found.classes, found.skipped) == (pytest.approx((15 / 17 + 0) / 2), 2, 0)


def test_a_class_without_images_is_skipped_and_counted():
    assert isnan(ClassTotals().iou)
    found = class_miou({"a": totals((3, 4)), "b": ClassTotals()})
    assert (found.value, found.classes, found.skipped) == (0.75, 1, 1)
    nothing = class_miou({"b": ClassTotals()})
    assert isnan(nothing.value)
    assert (nothing.classes, nothing.skipped) == (0, 1)
    assert isnan(class_miou({}).value)


def test_perfect_is_exactly_one_and_nothing_at_all_is_zero():
    assert totals((3, 3), (7, 7)).iou == 1
    assert totals((0, 3)).iou == 0
    assert totals((0, 0)).iou == 0, "as the release of PerSense has it"


def test_any_value_but_zero_is_foreground():
    found = ClassTotals()
    found.add(np.array([[0, 255, 7]], np.uint8), np.array([[0.0, 1.0, 0.0]]))
    assert (found.intersection, found.union) == (1, 2)
    with pytest.raises(ValueError, match=r"prediction has shape \(2, 3\), truth \(3, 2\)"):
        found.add(np.ones((2, 3)), np.ones((3, 2)))
    assert found.images == 1
