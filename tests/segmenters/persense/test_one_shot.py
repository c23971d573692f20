"""PerSense as published, on pairs of pictures."""

import pytest

from gigaseg.segmenters.persense.one_shot import OneShot
from persense_scenes import PLACES, discs


def iou(found, truth):
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.parametrize("options", [{}, {"density": "features", "detector": "none", "guidance": "true"}])
def test_discs_like_the_one_shown_are_found(options):
    segmenter = OneShot.open("small-v1", "cpu", {"window": "20", **options})
    support, shown = discs(PLACES[:3])
    query, labels = discs(seed=5)
    found = segmenter.foreground(support, shown == 1, query)
    assert found.shape == labels.shape
    assert iou(found, labels > 0) > 0.8
    assert segmenter.last_points >= len(PLACES)


@pytest.mark.parametrize("rule", ["paper", "code"])
def test_the_published_rules_run_and_cover_the_discs(rule):
    segmenter = OneShot.open("small-v1", "cpu", {"window": "20", "rule": rule})
    support, shown = discs(PLACES[:3])
    query, labels = discs(seed=5)
    found = segmenter.foreground(support, shown == 1, query)
    assert iou(found, labels > 0) > 0.6


def test_pictures_need_not_be_square_and_the_support_is_looked_at_once():
    segmenter = OneShot.open("small-v1", "cpu", {"window": "20"})
    support, shown = discs()
    support, mask = support[:160], shown[:160] == 1
    query, labels = discs(seed=6)
    one = segmenter.foreground(support, mask, query[:, :200])
    kept = segmenter._support
    assert one.shape == (256, 200)
    assert iou(one, labels[:, :200] > 0) > 0.7
    segmenter.foreground(support, mask, query[:190])
    assert segmenter._support is kept
    segmenter.foreground(support, mask.copy(), query[:190])
    assert segmenter._support is not kept


def test_names_of_what_is_used():
    segmenter = OneShot.open("small-v1", "cpu", {})
    assert segmenter.back_ends == {
        "label": "static object",
        "detector": "similarity",
        "density": "ncc",
        "masks": "small",
    }
