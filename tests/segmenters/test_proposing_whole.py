"""A segmenter that proposes points, on an image in memory: each object is decoded once, whatever the grid."""

import numpy as np
import pytest

from gigaseg.segmenters.base import Context
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.segmenters.whole import estimate_diameter, nominal_tiling, segment_image, segment_objects
from proposing import spots_slide


@pytest.fixture
def segmenter(spots):
    card = read_card("spots")
    return load_segmenter("spots", Context(info=None, tiling=nominal_tiling(card), options=card.complete({})))


def classes_at(found, discs):
    """Class of the instance under each disc's centre."""
    ids = found.labels[discs[:, 1].astype(int), discs[:, 0].astype(int)]
    assert (np.sort(ids) == np.arange(1, len(discs) + 1)).all(), "each disc is one instance"
    return found.class_index[ids - 1]


@pytest.mark.parametrize(("tile", "overlap"), [(64, 32), (96, 20), (100, 33), (128, 64), (512, 64)])
@pytest.mark.parametrize("shift", [0, 11, 29])
def test_every_disc_is_found_once_with_its_class(segmenter, tile, overlap, shift):
    image, discs = spots_slide((300, 340), 120, seed=3)
    image = np.pad(image, ((shift, 0), (shift, 0), (0, 0)))
    discs = discs + np.array([shift, shift, 0, 0])
    decoded = []
    segment = segmenter.segment
    segmenter.segment = lambda batch: [decoded.extend(p.id) for p in batch.prompts] and segment(batch)
    found = segment_objects(segmenter, image, tile=tile, overlap=overlap, step=None)
    assert sorted(decoded) == list(range(120)), "each once"
    assert (found.class_index.dtype, found.scores.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(classes_at(found, discs), discs[:, 3])
    np.testing.assert_array_equal(found.labels > 0, image[..., 0] > 0)
    assert found.scores.tolist() == [0.5] * 120


def test_nothing_proposed_gives_no_instance(segmenter):
    found = segment_objects(segmenter, np.zeros((90, 70, 3), np.uint8), tile=64, overlap=16)
    assert (found.labels == 0).all()
    assert len(found.class_index) == len(found.scores) == 0


def test_points_off_the_image_are_left_out(segmenter):
    """Beyond it the mirror image goes on, in which there are objects too."""
    image, _discs = spots_slide((80, 80), 12, seed=5)
    found = segment_objects(segmenter, image, tile=64, overlap=16, step=None)
    assert found.labels.max() == 12


def test_the_diameter_is_estimated_by_looking(segmenter):
    image, _discs = spots_slide((200, 200), 30, seed=1, radii=(6.9, 7.1))
    assert estimate_diameter(segmenter, image, tile=96, overlap=32) == pytest.approx(14, abs=0.3)
    assert segment_image(segmenter, image, tile=96, overlap=32).max() == 30
