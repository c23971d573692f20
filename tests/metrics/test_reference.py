from __future__ import annotations

from math import isnan

import pytest

from gigaseg.metrics.instance import aji, aji_plus
from gigaseg.metrics.overlap import Overlap
from gigaseg.metrics.reference import (
    aji_centersam_reference,
    aji_densesam_reference,
    dsc_reference,
    seg_reference,
    split_fragments,
)

ONE, OTHER = (5, 5, 10, 10), (30, 30, 10, 10)


def test_centersam_figures_on_its_two_squares(boxes):
    overlap = Overlap.from_labels(boxes(ONE, OTHER), boxes((5, 7, 10, 10), (50, 50, 10, 10)))
    found = (dsc_reference(overlap), seg_reference(overlap), aji_centersam_reference(overlap))
    assert found == pytest.approx((0.5, 2 / 3, 80 / 220), abs=1e-12)


def test_centersam_figures_are_one_for_identical_and_for_empty_images(boxes):
    for rectangles in ([ONE, OTHER], []):
        overlap = Overlap.from_labels(boxes(*rectangles), boxes(*rectangles))
        assert (dsc_reference(overlap), seg_reference(overlap), aji_centersam_reference(overlap)) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("truth", "prediction"), [([ONE], []), ([], [ONE])])
def test_centersam_figures_are_zero_when_one_side_is_empty(boxes, truth, prediction):
    overlap = Overlap.from_labels(boxes(*truth), boxes(*prediction))
    assert (dsc_reference(overlap), seg_reference(overlap), aji_centersam_reference(overlap)) == (0.0, 0.0, 0.0)


def test_densesam_aji_adds_the_first_prediction_to_truth_without_overlap(boxes):
    overlap = Overlap.from_labels(boxes((5, 5, 1, 10), (20, 5, 1, 10)), boxes((5, 5, 1, 10)))
    assert aji_densesam_reference(overlap) == pytest.approx(1 / 3)
    assert aji(overlap) == 0.5


def test_prediction_that_merges_two_objects_has_lower_aji_plus_than_densesam_aji(boxes):
    overlap = Overlap.from_labels(boxes(ONE, (5, 15, 10, 10)), boxes((5, 5, 10, 20)))
    assert aji_plus(overlap) < aji_densesam_reference(overlap)


def test_densesam_aji_of_empty_sides(boxes):
    assert aji_densesam_reference(Overlap.from_labels(boxes(ONE), boxes())) == 0.0
    assert isnan(aji_densesam_reference(Overlap.from_labels(boxes(), boxes())))


def test_fragments_of_one_id_become_objects_and_touching_ids_stay_apart(boxes):
    labels = boxes(ONE, (5, 15, 10, 10), OTHER)
    labels[50:52, 50:52] = 1
    labels[52, 52] = 1
    assert len(set(split_fragments(labels).ravel().tolist())) - 1 == 4
