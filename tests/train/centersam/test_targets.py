"""Targets of the detector: known radii, peaks and cells, and the way back through the decoder."""

import math

import numpy as np
import pytest
import torch

from gigaseg.segmenters.centersam.detector import Maps
from gigaseg.segmenters.centersam.peaks import decode
from gigaseg.train.batches import Batch
from gigaseg.train.centersam.targets import detector_targets, draw_peaks, gaussian_radius


def batch_of(boxes, side=64, image=None, crops=1):
    """A batch that has nothing but boxes."""
    boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    image = torch.zeros(len(boxes), dtype=torch.int64) if image is None else torch.tensor(image)
    none = torch.zeros(len(boxes), 2)
    labels = torch.zeros(crops, side, side, dtype=torch.int32)
    return Batch(torch.zeros(crops, 3, side, side), labels, image, none[:, 0].int(), boxes, none, none, 0 * image)


def radius(height, width):
    return float(gaussian_radius(torch.tensor(float(height)), torch.tensor(float(width))))


@pytest.mark.parametrize(
    ("sides", "real"),
    [
        *[((side, side), 0.27332 * side) for side in range(1, 15)],
        *[
            ((16, 16), 4.373),
            ((20, 20), 5.466),
            ((32, 32), 8.746),
            ((4, 8), 1.471),
            ((8, 16), 2.942),
            ((10, 20), 3.678),
        ],
    ],
    ids=str,
)
def test_radii_are_those_of_the_published_code(sides, real):
    assert radius(*sides) == pytest.approx(real, rel=2e-4)


@pytest.mark.parametrize(
    ("sides", "expected"),
    [(range(1, 4), 0), (range(4, 8), 1), (range(8, 11), 2), (range(11, 15), 3), ((16,), 4), ((20,), 5), ((32,), 8)],
    ids=str,
)
def test_radii_in_whole_cells(sides, expected):
    assert {int(radius(side, side)) for side in sides} == {expected}


def test_radii_of_elongated_boxes_in_whole_cells():
    assert [int(radius(*sides)) for sides in ((4, 8), (8, 16), (10, 20))] == [1, 2, 3]


def test_the_radius_is_linear_and_symmetric():
    for h, w in ((3.0, 7.0), (1.5, 12.0), (20.0, 20.0)):
        assert radius(10 * h, 10 * w) == pytest.approx(10 * radius(h, w), rel=1e-5)
        assert radius(h, w) == pytest.approx(radius(w, h), rel=1e-6)


def peaks(*places, side=9):
    """A plane with peaks at (x, y, radius)."""
    heat = torch.zeros(1, side, side)
    x, y, r = torch.tensor(places).T
    draw_peaks(heat, torch.zeros_like(x), x, y, r)
    return heat[0]


def test_a_peak_is_a_gaussian_of_a_sixth_of_its_patch():
    heat = peaks((4, 4, 2))
    assert heat[4, 4] == 1
    assert heat[4, 5].item() == pytest.approx(0.4868, abs=1e-4)
    assert heat[4, 5].item() == pytest.approx(math.exp(-1 / (2 * (5 / 6) ** 2)), abs=1e-6)
    assert heat[5, 5].item() == pytest.approx(math.exp(-1.44), abs=1e-6)
    assert (heat > 0).sum() == 25
    assert torch.equal(heat, heat.T)


def test_radius_0_is_a_single_cell():
    heat = peaks((3, 2, 0))
    assert heat[2, 3] == 1
    assert heat.sum() == 1


def test_a_peak_in_the_corner_keeps_a_quarter_of_its_patch():
    heat = peaks((0, 0, 2))
    assert torch.equal(heat[:3, :3], peaks((4, 4, 2))[4:7, 4:7])
    assert (heat > 0).sum() == 9


def test_where_peaks_overlap_the_larger_value_counts():
    heat = peaks((3, 4, 2), (5, 4, 2))
    assert torch.equal(heat, torch.maximum(peaks((3, 4, 2)), peaks((5, 4, 2))))
    assert heat[4, 3] == heat[4, 5] == 1


def test_boxes_are_clipped_before_the_last_cell_as_centernet_does():
    found = detector_targets(batch_of([[40, 8, 64, 24], [10, 52, 20, 64], [61, 0, 64, 8]]))
    assert found.size.tolist() == [[5, 4], [2.5, 2]]  # the third has no width left
    assert found.index.tolist() == [4 * 16 + 12, 14 * 16 + 3]
    assert found.offset.tolist() == [[0.5, 0], [0.75, 0]]


def test_without_a_margin_boxes_at_the_border_stay_whole():
    found = detector_targets(batch_of([[40, 8, 64, 24], [10, 52, 20, 64], [61, 0, 64, 8]]), margin=0)
    assert found.size.tolist() == [[6, 4], [2.5, 3], [0.75, 2]]
    assert found.index.tolist() == [4 * 16 + 13, 14 * 16 + 3, 16 + 15]


def test_each_crop_and_class_has_its_own_plane():
    found = detector_targets(
        batch_of([[8, 8, 16, 16], [8, 8, 16, 16]], image=[0, 2], crops=3), classes=2, class_index=torch.tensor([1, 0])
    )
    assert found.heat.shape == (3, 2, 16, 16)
    assert found.heat.flatten(2).amax(2).tolist() == [[0, 1], [0, 0], [1, 0]]
    assert found.image.tolist() == [0, 2]


def test_no_objects_no_peaks():
    found = detector_targets(batch_of([]))
    assert found.heat.sum() == 0
    assert found.size.shape == found.offset.shape == (0, 2)


@pytest.mark.parametrize("margin", [0, 1])
def test_ideal_maps_decode_to_the_boxes_they_were_made_of(margin):
    rng = np.random.default_rng(3)
    side, boxes, images = 128, [], []
    for image in range(2):
        cells = [(x, y) for x in range(3, 28, 3) for y in range(4, 28, 3)]
        for k in rng.permutation(len(cells))[:30]:
            centre = 4 * (np.array(cells[k]) + rng.uniform(0.05, 0.95, 2))
            half = rng.uniform(2, np.minimum(centre, side - 4 - centre).clip(2.1, 14))
            boxes.append([*(centre - half), *(centre + half)])
            images.append(image)
    found = detector_targets(batch_of(boxes, side, images, 2), margin=margin)
    size, offset = (torch.zeros(2, 2, 32 * 32) for _ in range(2))
    size[found.image, :, found.index] = found.size
    offset[found.image, :, found.index] = found.offset
    heat = torch.logit(found.heat, eps=1e-6)
    back = decode(Maps(heat, size.view(2, 2, 32, 32), offset.view(2, 2, 32, 32)), threshold=0.99)
    assert len(back) == 60
    rows = [np.array(sorted(zip(images, boxes)), dtype=object), sorted(zip(back.image.tolist(), back.boxes.tolist()))]
    for (image, box), (image_back, box_back) in zip(*rows, strict=True):
        assert image == image_back
        assert box_back == pytest.approx(box, abs=1e-3)
