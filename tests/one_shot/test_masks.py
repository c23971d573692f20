"""Masks as COCO and LVIS write them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gigaseg.one_shot.masks import decode_segmentation, fill_polygons, from_runs, parse_counts
from gigaseg.testing.one_shot import counts_text, run_lengths

BLOCK = np.zeros((4, 5), bool)
BLOCK[1:3, 1:4] = True

LARGE = np.zeros((300, 400), bool)
LARGE[10:200, 30] = True
LARGE[50:60, 2] = True

KNOWN = {
    "block": (BLOCK, [5, 2, 2, 2, 2, 2, 5], "5220003"),
    "diagonal": (np.eye(4, dtype=bool), [0, 1, 4, 1, 4, 1, 4, 1], "01400000"),
    "all": (np.ones((3, 2), bool), [0, 6], "06"),
    "none": (np.zeros((3, 2), bool), [6], "6"),
    "long": (LARGE, [650, 10, 8350, 190, 110800], "Zd0:nT8d5bQT3"),
}
"""Mask, lengths of runs, and text; texts are of pycocotools 2.0.11."""


@pytest.mark.parametrize("name", KNOWN)
def test_known_runs_and_texts(name):
    mask, counts, text = KNOWN[name]
    assert run_lengths(mask) == counts
    assert counts_text(counts) == text
    assert parse_counts(text).tolist() == counts
    for written in (counts, text):
        segmentation = {"size": list(mask.shape), "counts": written}
        np.testing.assert_array_equal(decode_segmentation(segmentation, mask.shape), mask)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_a_mask_comes_back_from_its_runs_and_from_its_text(mask):
    counts = run_lengths(mask)
    np.testing.assert_array_equal(from_runs(np.array(counts), mask.shape), mask)
    np.testing.assert_array_equal(from_runs(parse_counts(counts_text(counts)), mask.shape), mask)


@given(st.lists(st.integers(0, 10**7), max_size=30))
def test_counts_of_any_size_come_back_from_their_text(counts):
    assert parse_counts(counts_text(counts)).tolist() == counts


def test_polygons_hold_the_pixels_whose_centres_they_hold():
    found = fill_polygons([[1, 1, 4, 1, 4, 3, 1, 3]], (4, 5))
    np.testing.assert_array_equal(found, BLOCK)
    triangle = fill_polygons([[0, 0, 4, 0, 0, 4]], (5, 6))  # the diagonal goes through no centre but those of x + y = 3
    rows = triangle.sum(1)
    assert rows[0] in (3, 4)
    assert (np.diff(rows[:4]) == -1).all()
    assert not triangle[4].any()
    two = fill_polygons([[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 3, 1, 3, 3, 1, 3]], (3, 3))
    assert two.sum() == 7, "a union, where they overlap too"
    beyond = fill_polygons([[-5, -5, 50, -5, 50, 50, -5, 50]], (3, 4))
    assert beyond.all()
    assert not decode_segmentation([], (3, 4)).any()
    assert not fill_polygons([[0, 0, 2, 2]], (3, 4)).any(), "a line"


WRONG = {
    "size": ({"size": [5, 4], "counts": [20]}, r"size is \[5, 4\], expected \[4, 5\]"),
    "no size": ({"counts": [20]}, r"size is None, expected \[4, 5\]"),
    "sum": ({"size": [4, 5], "counts": [5, 5]}, "counts sum to 10, expected 4 × 5 = 20"),
    "negative": ({"size": [4, 5], "counts": [25, -5]}, "counts hold -5, accepted: 0 or more"),
    "no numbers": ({"size": [4, 5], "counts": [1.5]}, "counts is list, accepted: text, or a list of whole numbers"),
    "no counts": ({"size": [4, 5]}, "counts is NoneType"),
    "character": ({"size": [4, 5], "counts": "5 2"}, "counts hold the character ' '"),
    "cut": ({"size": [4, 5], "counts": "5Z"}, "counts end within a number"),
    "odd": ([[1, 2, 3]], r"a polygon is \[1, 2, 3\], expected pairs x, y"),
    "nested": ([[[1, 2], [3, 4]]], "expected pairs x, y"),
    "none": (None, "segmentation is NoneType, accepted: a list of polygons"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_mask_is_told(name):
    segmentation, told = WRONG[name]
    with pytest.raises(ValueError, match=told):
        decode_segmentation(segmentation, (4, 5))
