"""Which of SAM's cells stand for an object, and what looks like it."""

import numpy as np
import pytest
import torch

from gigaseg.segmenters.persense.target import Target, cell_weights, cosine, similarity


def mask(*slices, side=1024):
    found = np.zeros((side, side), bool)
    for rows, cols in slices:
        found[rows, cols] = True
    return found


def test_two_of_four_middle_pixels_select_a_cell():
    weights = cell_weights(mask((slice(7, 8), slice(7, 9))), (64, 64))
    assert np.argwhere(weights).tolist() == [[0, 0]]
    assert weights[0, 0] == 1


@pytest.mark.parametrize("where", [(slice(7, 8), slice(7, 8)), (slice(0, 7), slice(0, 7))])
def test_an_object_that_selects_no_cell_is_weighted_by_what_it_covers(where):
    weights = cell_weights(mask(where), (64, 64))
    covered = (where[0].stop - where[0].start) ** 2 / 256
    assert np.argwhere(weights).tolist() == [[0, 0]]
    assert weights[0, 0] == pytest.approx(covered)


def test_a_picture_of_another_size_has_the_same_cells():
    large = mask((slice(256, 512), slice(512, 768)))
    assert (cell_weights(large, (64, 64)) == cell_weights(large[::2, ::2], (64, 64))).all()


def test_an_empty_mask_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        cell_weights(np.zeros((32, 32), bool), (4, 4))


def test_the_target_is_the_mean_of_features_as_they_are():
    features = torch.zeros(2, 4, 4)
    features[:, 1, 1], features[:, 1, 2] = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    shown = np.zeros((64, 64), bool)
    shown[16:32, 16:48] = True
    target = Target.of(features, shown)
    assert target.embedding.tolist() == [1.5, 0.5]
    assert float(target.direction.norm()) == pytest.approx(1)
    cells = cosine(features, target.direction)
    assert float(cells[1, 1]) == pytest.approx(1.5 / np.hypot(1.5, 0.5))
    assert float(cells[0, 0]) == 0  # no features, no likeness


def test_similarity_lies_where_its_cell_is():
    cells = torch.zeros(8, 8)
    cells[2, 5] = 1
    found = similarity(cells, (128, 128), (64, 64))
    assert found.shape == (64, 64)
    row, col = np.unravel_index(found.argmax(), found.shape)
    assert (row // 8, col // 8) == (2, 5)
    assert found.max() <= 1
