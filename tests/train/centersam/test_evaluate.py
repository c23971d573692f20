"""The figures of whole images, and the threshold that is picked, on known answers."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import find_objects, label

from gigaseg.segmenters.base import TileInstances
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.whole import segment_image
from gigaseg.train.centersam.evaluate import FIGURES, Seen, segmentation_figures
from gigaseg.train.data import Sample

CARD = read_card("centersam")


class Oracle:
    """Finds squares by their grey level: score 0.8 for level 200, and for level 100, which is no object, 0.35.

    Those with sides of less than `least` px it does not see.
    """

    card = CARD

    def __init__(self, least=0, levels=(200, 100)):
        self.least, self.levels = least, levels
        self.tiles = 0

    def segment(self, batch):
        self.tiles += len(batch.tiles)
        return [self.look(image) for image in batch.images[:, 0].numpy().astype(int)]

    def look(self, image):
        boxes, masks, scores = [], [], []
        for level in self.levels:
            parts, _ = label(np.abs(image - level) < 40)
            for number, (ys, xs) in enumerate(find_objects(parts), 1):
                if min(ys.stop - ys.start, xs.stop - xs.start) >= self.least:
                    boxes.append([xs.start, ys.start, xs.stop, ys.stop])
                    masks.append(torch.from_numpy(parts[ys, xs] == number))
                    scores.append(0.8 if level == 200 else 0.35)
        boxes = torch.tensor(boxes, dtype=torch.int32).view(-1, 4)
        return TileInstances(boxes, masks, torch.tensor(scores), torch.ones(len(scores), 1))


def image_of(objects, others, group="", side=100):
    """Squares of 10 px: objects at grey level 200, others at 100."""
    labels = np.zeros((side, side), np.int32)
    grey = np.zeros((side, side), np.uint8)
    for number, (level, x, y) in enumerate([(200, *p) for p in objects] + [(100, *p) for p in others], 1):
        grey[y : y + 10, x : x + 10] = level
        if level == 200:
            labels[y : y + 10, x : x + 10] = number
    diameter = 2 * math.sqrt(100 / math.pi) if objects else math.nan
    return Sample("s", group, np.repeat(grey[..., None], 3, 2), labels, diameter, np.zeros(3, np.uint8))


def test_the_threshold_with_the_best_quality_is_picked_and_the_figures_are_those_at_it():
    samples = [image_of([(5, 5), (40, 60)], [(70, 20)], "a"), image_of([(20, 20)], [], "b")]
    found = segmentation_figures(Oracle(), samples, diameter=None)
    assert found["threshold"] == 0.35  # the first that leaves out scores of 0.35
    assert found["score"] == found["pq"] == pytest.approx(1)
    assert found["f1_50/a"] == found["aji/b"] == pytest.approx(1)
    assert found["images"] == 2
    low = segmentation_figures(Oracle(), samples, diameter=None, thresholds=(0.1,))
    assert low["f1_50/a"] == pytest.approx(4 / 5)
    assert low["f1_50"] == pytest.approx((4 / 5 + 1) / 2)
    assert low["pixel_dice/a"] == pytest.approx(4 / 5)
    assert low["aji/a"] == pytest.approx(2 / 3)


def test_each_tile_is_segmented_once_for_all_thresholds():
    oracle = Oracle()
    segmentation_figures(oracle, [image_of([(5, 5)], [])], diameter=None)
    assert oracle.tiles == 1
    segmentation_figures(oracle, [image_of([(5, 5)], [])], diameter=None, tile=64, overlap=16)
    assert oracle.tiles == 1 + 4


def test_images_are_scaled_to_the_diameter_and_native_figures_are_apart():
    sample = image_of([(5, 5), (40, 60)], [])
    found = segmentation_figures(Oracle(15, (200,)), [sample], diameter=2 * sample.diameter, native=True)
    assert found["f1_50"] == 1
    assert found["native_f1_50"] == 0
    assert {f"native_{name}" for name in FIGURES} <= found.keys()


def test_an_image_without_objects_counts_only_where_a_figure_is_defined():
    samples = [image_of([(5, 5)], [], "a"), image_of([], [], "b")]
    found = segmentation_figures(Oracle(), samples, diameter=20.0)
    assert found["pq"] > 0.9
    assert all(math.isfinite(value) for value in found.values())


def test_memory_answers_for_any_threshold():
    seen = Seen(Oracle())
    sample = image_of([(5, 5)], [(50, 50)])
    counts = []
    for threshold in (0.5, 0.1, 0.9):
        seen.threshold = threshold
        counts.append(segment_image(seen, sample.image).max())
    assert counts == [1, 2, 0]
