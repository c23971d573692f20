"""Whole images on the square that a letterboxed detector was trained on, and what is found there back on the image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import find_objects, label

from gigaseg.errors import ConfigError
from gigaseg.sam.backend import Backend
from gigaseg.segmenters.base import TileInstances
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.centersam.detector import Detector
from gigaseg.train.centersam.config import CenterSamTraining
from gigaseg.train.centersam.crops import letterbox_affine
from gigaseg.train.centersam.evaluate import segmentation_figures
from gigaseg.train.centersam.method import CenterSamMethod
from gigaseg.train.crops import crop, whole_affine
from gigaseg.train.data import Sample
from gigaseg.train.whole import letterboxed

SQUARES = [(10, 10, 30, 20), (150, 60, 190, 100), (40, 50, 100, 80)]


class Bright:
    """Finds what is brighter than 127 and keeps the tiles that it sees."""

    card = read_card("centersam")

    def __init__(self):
        self.tiles = []

    def segment(self, batch):
        self.tiles += list(batch.images.numpy())
        return [self.look(image) for image in batch.images[:, 0].numpy()]

    def look(self, image):
        parts, n = label(image > 127)
        places = find_objects(parts)
        boxes = torch.tensor([[xs.start, ys.start, xs.stop, ys.stop] for ys, xs in places], dtype=torch.int32)
        masks = [torch.from_numpy(parts[place] == i) for i, place in enumerate(places, 1)]
        return TileInstances(boxes.view(-1, 4), masks, torch.full((n,), 0.9), torch.ones(n, 1))


def sample_of(width=200, height=100, ground=60):
    labels = np.zeros((height, width), np.int32)
    for number, (x0, y0, x1, y1) in enumerate(SQUARES, 1):
        labels[y0:y1, x0:x1] = number
    image = np.repeat(np.where(labels > 0, 220, ground).astype(np.uint8)[..., None], 3, 2)
    return Sample("s", "", image, labels, 30.0, np.full(3, ground, np.uint8))


def forward(matrix, points):
    """Image px to px of the square."""
    return (np.asarray(points) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T


def test_the_known_corners():
    assert forward(whole_affine((200, 400), 128), [(0, 0), (400, 200)]).tolist() == [[0, 32], [128, 96]]
    assert forward(whole_affine((400, 200), 128), [(0, 0), (200, 400)]).tolist() == [[32, 0], [96, 128]]


@pytest.mark.parametrize(("width", "height"), [(400, 200), (333, 333), (17, 1023)])
def test_points_come_back(width, height):
    matrix = whole_affine((height, width), 128)
    points = np.random.default_rng(0).random((50, 2)) * (width, height)
    there = forward(matrix, points)
    assert there.min() >= 0
    assert there.max() <= 128
    assert there @ matrix[:, :2].T + matrix[:, 2] == pytest.approx(points, abs=1e-4)


def test_a_box_of_the_grid_goes_back_by_the_grids_side():
    in_input = forward(whole_affine((200, 400), 512), [(100, 40), (300, 120)])
    on_grid = forward(whole_affine((200, 400), 128), [(100, 40), (300, 120)])
    assert on_grid == pytest.approx(in_input / 4)


@pytest.mark.parametrize("side", [100, 160, 400])
def test_an_image_is_seen_in_the_middle_of_a_black_square_and_found_on_its_own_pixels(side):
    sample, segmenter = sample_of(), Bright()
    found = letterboxed(segmenter, sample.image, side)
    (tile,) = segmenter.tiles
    assert tile.shape == (3, side, side)
    edge = side // 4
    assert not tile[:, : edge - 1].any()
    assert not tile[:, side - edge + 1 :].any()
    assert tile[:, edge + 1 : side - edge - 1, 1:-1].min() >= 59
    assert found.shape == (100, 200)
    for number, (x0, y0, x1, y1) in enumerate(SQUARES, 1):
        truth = sample.labels == number
        mask = found == found[(y0 + y1) // 2, (x0 + x1) // 2]
        assert (mask & truth).sum() / (mask | truth).sum() > 0.8
    assert len(np.unique(found)) == 4


def test_figures_of_letterboxed_images_are_those_of_the_square():
    figures = segmentation_figures(Bright(), [sample_of(), sample_of(100, 200)], diameter=None, side=400)
    assert figures["f1_50"] == 1
    assert figures["pq"] > 0.95


def test_the_square_is_what_the_sampler_varies():
    class Middle:
        """Draws nothing but the middle."""

        choice = staticmethod(lambda values: 1.0)
        uniform = staticmethod(lambda low, high: (low + high) / 2)
        random = staticmethod(lambda size=None: 0.9 if size is None else np.full(size, 0.9))

    sample = sample_of()
    matrix = letterbox_affine(sample, 160, Middle())
    assert matrix == pytest.approx(whole_affine((100, 200), 160))


def test_beyond_the_image_crops_are_black_as_the_square_is(sam):
    training = CenterSamTraining(detector="resnet18", letterbox=True, crop=160)
    sample = sample_of(ground=100)
    item = CenterSamMethod(training, str(sam)).prepare(sample, np.random.default_rng(1))
    assert float(item.image[:, 0, 0].max()) == 0
    assert float(item.image.amax()) > 200
    other = crop(sample, whole_affine((100, 200), 160), 160, np.random.default_rng(0))
    assert float(other.image[:, 0, 0].min()) == 100, "elsewhere the colour of the image's background"


@pytest.mark.parametrize(("size", "seen"), [(0, 64), (128, 128)])
def test_sam_may_see_larger_squares_than_the_detector_when_validating(sam, discs_apart, monkeypatch, size, seen):
    training = CenterSamTraining(detector="resnet18", letterbox=True, crop=64, sam_size=size)
    method = CenterSamMethod(training, str(sam))
    sides, encode = set(), Backend.encode
    check = Detector.check_sides
    monkeypatch.setattr(
        Backend, "encode", lambda self, images: sides.add(("sam", *images.shape[2:])) or encode(self, images)
    )
    monkeypatch.setattr(
        Detector, "check_sides", lambda self, images: sides.add(("detector", *images.shape[2:])) or check(self, images)
    )
    figures = method.validate(method.build().eval(), discs_apart[1][:2])
    assert sides == {("sam", seen, seen), ("detector", 64, 64)}
    assert figures["images"] == 2
    assert not any(name.startswith("native") for name in figures)


@pytest.mark.parametrize(
    "changes", [{"sam_size": 60}, {"sam_size": 128, "letterbox": False}, {"sam_size": 128, "detector": "light"}]
)
def test_a_size_of_sam_that_nothing_would_use_is_refused(sam, changes):
    training = replace(CenterSamTraining(detector="resnet18", letterbox=True, crop=64), **changes)
    with pytest.raises(ConfigError, match=r"--sam-size is \d+, accepted: multiples of 8 with --letterbox"):
        CenterSamMethod(training, str(sam))
