"""Where the windows of local decoding lie and how large they are."""

import pytest
import torch

from gigaseg.sam.local import cut_masks, window_cells, window_origins, window_sizes
from gigaseg.sam.prompting import PromptSets, box_sets, point_sets

ZERO = torch.zeros(1, dtype=torch.int64)


def test_a_window_is_centred_on_its_prompt_and_shifted_into_the_grid():
    places = torch.tensor([[79.5, 79.5], [0.0, 79.5], [159.0, 3.0], [83.0, 79.5]])
    origin = window_origins(point_sets(ZERO.expand(4), places), 8, (20, 20), 4)
    assert origin.tolist() == [[8, 8], [0, 8], [16, 0], [8, 8]]


def test_a_grid_narrower_than_the_window_is_covered_whole():
    origin = window_origins(point_sets(ZERO, torch.tensor([[79.5, 10.0]])), 8, (3, 20), 6)
    assert origin.tolist() == [[7, 0]]


def test_a_box_counts_before_points_and_positive_points_before_negative_ones():
    points = torch.tensor([[[8.0, 8.0], [8.0, 24.0], [150.0, 150.0]]]) - 0.5
    labels = torch.tensor([[1, 1, 0]], dtype=torch.int8)
    assert window_origins(PromptSets(ZERO, points, labels), 8, (20, 20), 2).tolist() == [[0, 1]]
    box = torch.tensor([[60.0, 100.0, 100.0, 140.0]]) - 0.5
    assert window_origins(PromptSets(ZERO, points, labels, box), 8, (20, 20), 2).tolist() == [[9, 14]]
    padding = torch.tensor([[-1, -1, 0]], dtype=torch.int8)
    assert window_origins(PromptSets(ZERO, points, padding), 8, (20, 20), 2).tolist() == [[18, 18]]


def test_a_mask_alone_centres_its_window_on_what_is_positive():
    masks = torch.full((2, 1, 80, 80), -5.0)
    masks[0, 0, 40:48, 8:16] = 5
    none = PromptSets(ZERO.expand(2), torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.int8), None, masks)
    assert window_origins(none, 8, (20, 20), 4).tolist() == [[1, 9], [8, 8]]


def test_windows_double_until_the_box_and_its_margin_fit():
    sides = torch.tensor([8.0, 16.0, 17.0, 48.0, 49.0, 112.0, 113.0])
    boxes = torch.stack([torch.full((7,), 4.0), torch.full((7,), 4.0), 4 + sides, torch.full((7,), 6.0)], 1)
    sizes = window_sizes(box_sets(ZERO.expand(7), boxes), 8, (30, 30), 4)
    assert sizes.tolist() == [4, 4, 8, 8, 16, 16, 0]


def test_windows_hold_all_points_and_the_positive_part_of_a_mask():
    points = torch.tensor([[[100.0, 100.0], [100.0, 140.0]], [[100.0, 100.0], [104.0, 100.0]]])
    labels = torch.tensor([[1, 0], [1, 1]], dtype=torch.int8)
    sets = PromptSets(ZERO.expand(2), points, labels)
    assert window_sizes(sets, 8, (40, 40), 4).tolist() == [16, 4]
    masks = torch.full((1, 1, 160, 160), -1.0)
    masks[..., 60:100, 70:90] = 1
    none = PromptSets(ZERO, torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.int8), None, masks)
    assert window_sizes(none, 8, (40, 40), 4).tolist() == [16]


def test_a_window_of_the_least_size_holds_all_points_wherever_they_lie():
    points = 300 * torch.rand(2000, 3, 2, generator=torch.Generator().manual_seed(0))
    points[:, 1:] = points[:, :1] + 0.15 * (points[:, 1:] - 150)
    labels = torch.tensor([1, 1, 0], dtype=torch.int8).expand(2000, -1)
    inside = ((points > 0) & (points < 319)).all(2).all(1)
    sets = PromptSets(ZERO.expand(2000), points, labels)[inside]
    sizes = window_sizes(sets, 8, (40, 40), 1)
    for size in sorted(set(sizes.tolist()) - {0}):
        some = sets[sizes == size]
        first = window_origins(some, 8, (40, 40), size)[:, None]
        cell = (some.points + 0.5) / 8
        assert ((cell >= first) & (cell <= first + size)).all()
    assert len(set(sizes.tolist())) > 3


@pytest.mark.parametrize("window", [0, -3])
def test_a_window_without_cells_is_an_error(window):
    sets = point_sets(ZERO, torch.tensor([[9.0, 9.0]]))
    for function in (window_sizes, window_origins):
        with pytest.raises(ValueError, match=f"window is {window}, accepted: a whole number of cells >= 1"):
            function(sets, 8, (20, 20), window)


def test_cells_and_masks_are_cut_at_the_same_place():
    origin = torch.tensor([[2, 1], [0, 3]])
    grid = torch.arange(30).view(5, 6)
    assert window_cells(origin, (2, 3), (5, 6)).view(2, 2, 3)[0].tolist() == grid[1:3, 2:5].tolist()
    masks = torch.stack([grid, 100 + grid])[:, None].float()
    cut = cut_masks(masks, origin, (2, 3))
    assert torch.equal(cut[0, 0], masks[0, 0, 1:3, 2:5])
    assert torch.equal(cut[1, 0], masks[1, 0, 3:5, 0:3])
