"""Any segmenter on an image in memory: what it finds in tiles comes back whole, once, and in the image's own pixels."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from gigaseg.errors import SegmenterError
from gigaseg.metrics.instance import match_counts, panoptic_quality
from gigaseg.metrics.overlap import Overlap
from gigaseg.segmenters.base import Context, TileInstances
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.segmenters.whole import estimate_diameter, nominal_tiling, segment_image
from gigaseg.testing import LABEL_KINDS, ArraySlide, label_image, synthetic_image


class Oracle:
    """Reads the instances from the image, whose colours are their ids."""

    def __init__(self, *, uneven=False):
        self.card, self.sides, self._uneven = read_card("watershed"), [], uneven

    def segment(self, batch):
        self.sides.append(batch.images.shape[2])
        return [self._tile(image, tile) for image, tile in zip(batch.images.numpy(), batch.tiles)]

    def _tile(self, image, tile):
        ids = image[0].astype(np.int64) + 256 * image[1].astype(np.int64)
        boxes, masks, scores = [], [], []
        for number in np.unique(ids[ids > 0]):
            mask = ids == number
            if self._uneven and (tile.row + tile.col) % 2:
                mask = cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) > 0
            if not mask.any():
                continue
            y, x = np.nonzero(mask)
            box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
            boxes.append(box)
            masks.append(torch.from_numpy(mask[box[1] : box[3], box[0] : box[2]].copy()))
            scores.append(1 / (1 + number))
        n = len(boxes)
        return TileInstances(
            torch.tensor(boxes, dtype=torch.int32).view(n, 4), masks, torch.tensor(scores).float(), torch.ones(n, 1)
        )


class Bright:
    """Finds bright objects up to an area, px²."""

    def __init__(self, *, most=10**9, diameter=20.0):
        self.card, self._most = replace(read_card("watershed"), object_diameter=diameter), most

    def segment(self, batch):
        return [self._tile(image) for image in batch.images.numpy()]

    def _tile(self, image):
        _, labels, stats, _ = cv2.connectedComponentsWithStats((image.max(0) > 127).astype(np.uint8), connectivity=4)
        kept = [i for i in range(1, len(stats)) if stats[i, cv2.CC_STAT_AREA] <= self._most]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (stats[i, :4].tolist() for i in kept)]
        masks = [torch.from_numpy(labels[y0:y1, x0:x1] == i) for i, (x0, y0, x1, y1) in zip(kept, boxes)]
        n = len(kept)
        return TileInstances(
            torch.tensor(boxes, dtype=torch.int32).view(n, 4), masks, torch.full((n,), 0.5), torch.ones(n, 1)
        )


class Given:
    """Yields the same masks in every tile."""

    def __init__(self, *masks):
        self.card, self._masks = read_card("watershed"), masks

    def segment(self, batch):
        boxes = torch.tensor([[x, y, x + m.shape[1], y + m.shape[0]] for x, y, m, _ in self._masks], dtype=torch.int32)
        masks = [torch.from_numpy(mask) for _, _, mask, _ in self._masks]
        scores = torch.tensor([score for *_, score in self._masks])
        return [TileInstances(boxes, masks, scores, torch.ones(len(masks), 1)) for _ in batch.tiles]


def as_image(labels):
    return np.stack([labels % 256, labels // 256, np.zeros_like(labels)], -1).astype(np.uint8)


def white(labels):
    return np.repeat(np.where(labels > 0, 255, 0).astype(np.uint8)[..., None], 3, 2)


def discs(radius, *, specks=0):
    labels = np.zeros((300, 300), np.int32)
    number = 0
    pitch = 2 * radius + 6
    for y in range(pitch, 300 - pitch, pitch):
        for x in range(pitch, 300 - pitch, pitch):
            number += 1
            cv2.circle(labels, (x, y), radius, number, -1)
    for i in range(specks):
        labels[2 + 4 * (i // 60), 4 * (i % 60) + 2] = number + 1 + i
    return labels


def found_boxes(labels):
    for number in range(1, labels.max() + 1):
        y, x = np.nonzero(labels == number)
        yield x.min(), y.min(), x.max() + 1, y.max() + 1


def same(a, b):
    """Whether two label images hold the same instances, pixel for pixel, under any numbers."""
    return panoptic_quality(Overlap.from_labels(a, b)).pq == pytest.approx(1, abs=1e-5) and ((a > 0) == (b > 0)).all()


@pytest.mark.parametrize("kind", LABEL_KINDS)
@pytest.mark.parametrize(("tile", "overlap"), [(64, 8), (48, 24), (33, 1), (512, 64)])
def test_what_an_oracle_sees_in_tiles_comes_back_exactly(kind, tile, overlap):
    truth = label_image(kind, (97, 131), 5).astype(np.int32)
    found = segment_image(Oracle(), as_image(truth), tile=tile, overlap=overlap, step=None)
    assert found.shape == truth.shape
    assert found.dtype == np.int32
    assert found.max() == len(np.unique(found[found > 0])) == truth.max()
    assert same(truth, found)


def test_outlines_that_tiles_draw_differently_make_one_object_each():
    truth = np.kron(label_image("nuclei", (100, 120), 1), np.ones((3, 3))).astype(np.int32)
    truth[np.isin(truth, np.flatnonzero(np.bincount(truth.ravel()) < 400))] = 0
    found = segment_image(Oracle(uneven=True), as_image(truth), tile=160, overlap=70, step=None)
    counts = match_counts(Overlap.from_labels(truth, found), 0.7)
    assert (counts.tp, counts.fn) == (len(np.unique(truth)) - 1, 0)
    # as in `stitch`, a strip that only one tile drew stays
    strips = [box for box in found_boxes(found) if min(box[2] - box[0], box[3] - box[1]) <= 2]
    assert len(strips) == counts.fp


@pytest.mark.parametrize("scale", [0.5, 2.0, 1.37])
def test_a_scaled_image_gives_instances_in_its_own_pixels(scale):
    truth = discs(12)[:250, :271]
    found = segment_image(Bright(), white(truth), scale=scale, tile=256, overlap=96)
    assert found.shape == truth.shape
    counts = match_counts(Overlap.from_labels(truth, found), 0.85)
    assert (counts.fp, counts.fn) == (0, 0)
    assert found.max() == counts.tp


def test_the_higher_score_has_the_pixels_that_two_masks_share():
    square = np.ones((10, 10), bool)
    image = np.zeros((30, 30, 3), np.uint8)
    low_first = segment_image(Given((0, 0, square, 0.2), (5, 5, square, 0.9)), image)
    assert np.bincount(low_first.ravel()).tolist() == [900 - 175, 75, 100]
    assert low_first[7, 7] == low_first[14, 14]
    equal = segment_image(Given((0, 0, square, 0.5), (5, 5, square, 0.5)), image)
    assert equal[7, 7] == equal[0, 0], "the earlier one"
    hidden = segment_image(Given((0, 0, square, 0.5), (2, 2, np.ones((3, 3), bool), 0.1)), image)
    assert np.unique(hidden).tolist() == [0, 1]


def test_the_published_order_gives_the_shared_pixels_to_the_lower_score():
    square = np.ones((10, 10), bool)
    image = np.zeros((30, 30, 3), np.uint8)
    for first, second in ((0.9, 0.5), (0.5, 0.9)):
        given = Given((0, 0, square, first), (5, 5, square, second))
        low = 1 if first < second else 14
        assert segment_image(given, image)[7, 7] == segment_image(given, image)[15 - low, 15 - low]
        reference = segment_image(given, image, lower_on_top=True)
        assert reference[7, 7] == reference[low, low]
        assert sorted(np.bincount(reference.ravel()).tolist()) == [75, 100, 900 - 175]
    hidden = Given((2, 2, np.ones((3, 3), bool), 0.9), (0, 0, square, 0.5))
    assert segment_image(hidden, image, lower_on_top=True).max() == 1
    equal = Given((0, 0, square, 0.5), (5, 5, square, 0.5))
    reference = segment_image(equal, image, lower_on_top=True)
    assert reference[7, 7] == reference[14, 14], "the later one"


def test_masks_beyond_the_image_are_cut_off_or_nothing():
    image = np.zeros((30, 40, 3), np.uint8)
    found = segment_image(Given((35, 25, np.ones((10, 10), bool), 0.5), (60, 60, np.ones((5, 5), bool), 0.9)), image)
    assert found.shape == (30, 40)
    assert (found > 0).sum() == 25
    assert found.max() == 1


def test_tiles_are_as_large_as_the_image_asks_for_unless_told_otherwise():
    for shape, side in (((100, 90), 128), ((360, 360), 384), ((520, 696), 384), ((1024, 1024), 384), ((512, 512), 512)):
        oracle = Oracle()
        segment_image(oracle, np.zeros((*shape, 3), np.uint8))
        assert set(oracle.sides) == {side}
    fixed = Oracle()
    segment_image(fixed, np.zeros((100, 90, 3), np.uint8), tile=320, step=None)
    assert fixed.sides == [320]


@pytest.mark.parametrize("radius", [5, 10, 30])
def test_the_diameter_of_discs_is_found_whatever_their_size(radius):
    assert estimate_diameter(Bright(), white(discs(radius))) == pytest.approx(2 * radius + 0.5, rel=0.05)


def test_a_segmenter_that_sees_only_its_own_sizes_is_led_to_larger_ones():
    labels = discs(30)
    for x in (15, 100, 185):
        cv2.circle(labels, (x, 15), 13, int(labels.max()) + 1, -1)
    picky = Bright(most=1900)  # up to 49 px
    assert segment_image(picky, white(labels)).max() == 3
    assert estimate_diameter(picky, white(labels)) == pytest.approx(61, rel=0.05)


def test_debris_hardly_counts_and_nothing_found_is_no_diameter():
    labels = discs(15, specks=60)
    assert (np.bincount(labels.ravel())[1:] < 10).mean() > 0.5
    assert estimate_diameter(Bright(diameter=31.0), white(labels)) == pytest.approx(31, rel=0.1)
    assert np.isnan(estimate_diameter(Bright(), np.zeros((50, 60, 3), np.uint8)))


def test_watershed_finds_the_same_in_small_tiles_as_in_one():
    image, truth = (array[100:600, 100:600] for array in synthetic_image((700, 700), seed=3))
    card = read_card("watershed")
    info = ArraySlide(np.zeros((1, 1, 3), np.uint8)).info
    segmenter = load_segmenter("watershed", Context(info, nominal_tiling(card), options=card.complete({})))
    whole, tiled = (segment_image(segmenter, image, tile=tile) for tile in (512, 256))
    assert match_counts(Overlap.from_labels(truth, tiled)).f1 > 0.85
    assert match_counts(Overlap.from_labels(whole, tiled), 0.7).f1 > 0.9
    assert estimate_diameter(segmenter, image) == pytest.approx(
        float(np.median(2 * np.sqrt(np.bincount(truth.ravel())[1:] / np.pi))), rel=0.25
    )


@pytest.mark.parametrize("name", ["prompted", "annotations"])
def test_a_segmenter_that_needs_more_than_an_image_is_refused(name):
    class Other:
        card = read_card(name)

    with pytest.raises(SegmenterError, match=f"segmenter '{name}' takes prompts or yields polygons; accepted"):
        segment_image(Other(), np.zeros((8, 8, 3), np.uint8))
