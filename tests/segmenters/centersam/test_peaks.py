"""Peaks of the heatmap become boxes."""

import pytest
import torch

from gigaseg.segmenters.centersam.detector import Maps
from gigaseg.segmenters.centersam.peaks import decode
from gigaseg.train.batches import Batch
from gigaseg.train.centersam.targets import detector_targets


def maps(heat, size=None, offset=None):
    """Maps of probabilities (b, classes, h, w)."""
    shape = (len(heat), 2, *heat.shape[2:])
    return Maps(
        torch.logit(heat, eps=1e-6),
        torch.full(shape, 2.0) if size is None else size,
        torch.full(shape, 0.5) if offset is None else offset,
    )


@pytest.fixture
def example():
    """0.9 at (x5, y3), beside it 0.8 at (x6, y3), and 0.5 at (x1, y6)."""
    heat = torch.zeros(1, 1, 8, 8)
    heat[0, 0, 3, 5], heat[0, 0, 3, 6], heat[0, 0, 6, 1] = 0.9, 0.8, 0.5
    size, offset = torch.ones(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    offset[0, :, 3, 5] = torch.tensor([0.25, 0.75])
    size[0, :, 3, 5] = torch.tensor([4.0, 2.0])
    return maps(heat, size, offset)


def test_the_known_example(example):
    found = decode(example, threshold=0.1)
    assert found.scores.tolist() == [pytest.approx(0.9), pytest.approx(0.5)]
    assert found.boxes[0].tolist() == [13, 11, 29, 19]
    assert found.boxes[1].tolist() == [2, 22, 6, 26]
    assert found.image.tolist() == [0, 0]
    assert found.classes.tolist() == [0, 0]
    assert found.shares.tolist() == [[1], [1]]
    assert found.boxes.dtype == found.scores.dtype == torch.float32


def test_equal_neighbours_are_both_peaks():
    heat = torch.zeros(1, 1, 8, 8)
    heat[0, 0, 2, 2:4] = 0.7
    found = decode(maps(heat), threshold=0.1)
    assert found.boxes[:, 0].tolist() == [4 * 1.5, 4 * 2.5], "in the order of their cells"


def test_high_logits_do_not_tie():
    heat = torch.full((1, 1, 4, 4), -9.0)
    heat[0, 0, 1, 1:3] = torch.tensor([30.0, 31.0])
    assert float(heat[0, 0, 1, 1].sigmoid()) == float(heat[0, 0, 1, 2].sigmoid()) == 1
    assert len(decode(Maps(heat, torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)), threshold=0.1)) == 1


def test_the_threshold_must_be_exceeded_and_the_best_are_kept():
    heat = torch.zeros(1, 1, 9, 9)
    heat[0, 0, 1::3, 1::3] = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])
    found = maps(heat)
    assert len(decode(found, threshold=0.05)) == 9
    assert len(decode(found, threshold=0.45)) == 5
    half = decode(found, threshold=0.05).scores[4].item()
    assert len(decode(found, threshold=half)) == 4
    assert decode(found, top=2, threshold=0.05).scores.tolist() == [pytest.approx(0.9), pytest.approx(0.8)]
    assert len(decode(found, top=0)) == 0


def test_more_may_be_asked_for_than_there_are_cells():
    heat = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    found = decode(maps(heat), top=1000)
    assert 0 < len(found) <= 2 * 3 * 35


def test_images_come_one_after_another_each_by_descending_score():
    heat = torch.rand(3, 2, 16, 12, generator=torch.Generator().manual_seed(0))
    whole = maps(heat)
    found = decode(whole, top=7)
    assert found.image.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    for i in range(3):
        some = found[found.image == i]
        assert some.scores.tolist() == sorted(some.scores.tolist(), reverse=True)
        alone = decode(Maps(*(getattr(whole, name)[i : i + 1] for name in ("heat", "size", "offset"))), top=7)
        assert torch.equal(some.boxes, alone.boxes)
        assert torch.equal(some.classes, alone.classes)


def test_of_equal_scores_the_lower_class_then_the_earlier_cell_comes_first():
    heat = torch.zeros(1, 2, 9, 9)
    for of_class, y, x in ((1, 1, 1), (0, 7, 7), (0, 7, 1), (0, 1, 4)):
        heat[0, of_class, y, x] = 0.6
    found = decode(maps(heat), threshold=0.1)
    assert found.classes.tolist() == [0, 0, 0, 1]
    corners = ((found.boxes[:, :2] + 4) / 4 - 0.5).long()  # boxes of 2 x 2 cells about x + 0.5
    assert corners.tolist() == [[4, 1], [1, 7], [7, 7], [1, 1]]
    fewer = decode(maps(heat), top=2, threshold=0.1)
    assert torch.equal(fewer.boxes, found.boxes[:2])


def test_classes_share_a_peak_by_their_heat():
    heat = torch.zeros(1, 2, 8, 8)
    heat[0, :, 3, 5] = torch.tensor([0.2, 0.6])
    found = decode(maps(heat), threshold=0.3)
    assert found.classes.tolist() == [1]
    assert found.shares[0].tolist() == [pytest.approx(0.25, abs=1e-4), pytest.approx(0.75, abs=1e-4)]


def test_no_image_and_no_peak_give_no_boxes():
    assert len(decode(maps(torch.zeros(0, 1, 8, 8)))) == 0
    nothing = decode(maps(torch.zeros(2, 1, 8, 8)), threshold=0.1)
    assert nothing.boxes.shape == (0, 4)
    assert nothing.shares.shape == (0, 1)


@pytest.mark.parametrize("seed", range(3))
def test_boxes_survive_the_way_to_targets_and_back(seed):
    """With the heat, the sizes and the offsets that training wants, the boxes come back that it was told."""
    rng = torch.Generator().manual_seed(seed)
    side, cells = 128, 32
    columns, rows = torch.meshgrid(torch.arange(1, 31, 3), torch.arange(1, 31, 3), indexing="xy")
    chosen = torch.randperm(100, generator=rng)[:40]
    centre = torch.stack([columns, rows], -1).view(-1, 2)[chosen] + torch.rand(40, 2, generator=rng)
    # boxes inside the image: targets are clipped there
    half = torch.minimum(torch.rand(40, 2, generator=rng) * 5 + 0.3, torch.minimum(centre, cells - centre))
    boxes = 4 * torch.cat([centre - half, centre + half], 1)
    image = torch.sort(torch.randint(0, 2, (40,), generator=rng)).values
    batch = Batch(
        torch.zeros(2, 3, side, side), torch.zeros(2, side, side, dtype=torch.int32), image,
        torch.arange(40, dtype=torch.int32), boxes, 4 * centre, 4 * centre, 0 * image,
    )  # fmt: skip
    targets = detector_targets(batch, margin=0.0)
    size, offset = torch.zeros(2, 2, cells, cells), torch.zeros(2, 2, cells, cells)
    size.flatten(2)[targets.image, :, targets.index] = targets.size
    offset.flatten(2)[targets.image, :, targets.index] = targets.offset
    found = decode(maps(targets.heat, size, offset), threshold=0.999)
    assert found.image.tolist() == image.tolist()
    for i in range(2):
        want, got = boxes[image == i], found.boxes[found.image == i]
        distance = torch.cdist(want, got)
        assert float(distance.min(1).values.max()) < 1e-3
        assert sorted(distance.argmin(1).tolist()) == list(range(len(want)))
