"""Segmenter `persense` with the SAM that ships: one disc is shown, all are found."""

import numpy as np
import pytest
import torch

from gigaseg.errors import SegmenterError
from gigaseg.exemplar import Shown
from gigaseg.metrics.score import score_labels
from gigaseg.sam.downloads import checkpoint_path
from gigaseg.segmenters.base import Context, TileBatch
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.persense.checkpoint import open_persense
from gigaseg.segmenters.persense.segmenter import PerSense
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.segmenters.whole import segment_image
from gigaseg.testing import ArraySlide
from gigaseg.tiles.tiling import Tiling
from persense_scenes import PLACES, SIDE, discs, write_picture

TILING = Tiling(SIDE, 64, SIDE, SIDE, (1.0, 1.0), (1.0, 1.0), "px")


@pytest.fixture(scope="module")
def loaded():
    return open_persense("small-v1", "cpu", None, "fp32")


def shown(loaded, which=1, **options):
    segmenter = PerSense.of(loaded, {"window": 10, **options})
    image, labels = discs()
    segmenter.learn(image, [labels == which])
    return segmenter


def f1(found, labels):
    return score_labels(labels, found, (0.5,))["f1_50"]


@pytest.mark.parametrize("options", [{}, {"density": "features"}, {"detector": "none"}, {"exemplars": 0}])
def test_one_disc_is_shown_and_all_are_found(loaded, options):
    image, labels = discs()
    found = segment_image(shown(loaded, **options), image)
    assert found.max() == len(PLACES)
    assert f1(found, labels) == 1


def test_discs_of_another_picture_are_found_and_an_empty_one_has_none(loaded):
    segmenter = shown(loaded)
    image, labels = discs(PLACES[2:], seed=3)
    assert f1(segment_image(segmenter, image), labels) == 1
    empty, _ = discs([], seed=4)
    assert segment_image(segmenter, empty).max() == 0
    flat = np.full((SIDE, SIDE, 3), 240, np.uint8)
    assert segment_image(segmenter, flat).max() == 0


def test_objects_are_seen_at_their_size_whatever_that_is(loaded):
    image, labels = discs([(x // 2, y // 2) for x, y in PLACES], side=SIDE // 2, radius=6.5)
    segmenter = PerSense.of(loaded, {"window": 10})
    segmenter.learn(image, [labels == 1])
    found = segment_image(segmenter, image)
    assert f1(found, labels) > 0.9
    assert segmenter._finder.backend.scale == pytest.approx(2, rel=0.1)


def test_overlapping_tiles_agree(loaded):
    """Whatever else a tile holds, an object far from its border is found and outlined alike."""
    segmenter = shown(loaded, detector="none")
    image, _ = discs()
    crowded, _ = discs([*PLACES[:4], (140, 170), (100, 200), (60, 60), (75, 80), (170, 205), (200, 60)])
    both = np.where(np.arange(SIDE)[:, None, None] < 100, image, crowded).astype(np.uint8)
    points = []
    for picture in (image, both):
        segmenter.record = []
        segment_image(segmenter, picture)
        xy = segmenter.record[0][1].xy
        points.append(np.sort(xy[xy[:, 1] < 60], axis=0))
    assert len(points[0]) == 3
    assert np.abs(points[0] - points[1]).max() < 2


def test_batches_do_not_matter(loaded):
    segmenter = shown(loaded)
    image, _ = discs()
    tensor = torch.from_numpy(np.stack([image, image[::-1].copy()])).permute(0, 3, 1, 2)
    tiles = [TILING.get(0, 0)] * 2
    together = segmenter.segment(TileBatch(tensor, tiles))
    alone = [segmenter.segment(TileBatch(tensor[i : i + 1], tiles[:1]))[0] for i in range(2)]
    for one, other in zip(together, alone):
        assert torch.equal(one.boxes, other.boxes)
        assert all(torch.equal(a, b) for a, b in zip(one.masks, other.masks))


def test_the_class_is_the_label_and_the_back_ends_are_named(loaded):
    segmenter = shown(loaded, label="yeast", density="features", detector="none")
    assert segmenter.card.classes == ("yeast",)
    assert segmenter.back_ends == {
        "label": "static yeast",
        "detector": "none",
        "density": "sam features",
        "masks": "small",
    }


def test_a_drawn_box_gets_its_mask_from_sam(loaded):
    image, labels = discs()
    x, y = PLACES[0]
    box = np.zeros(labels.shape, bool)
    box[y - 15 : y + 15, x - 15 : x + 15] = True
    segmenter = PerSense.of(loaded, {"window": 10})
    segmenter.show(Shown(image, [box], [True]))
    # less than the box of 900 px, about the disc of 540
    assert segmenter.reference.exemplars[0].area == pytest.approx((labels == 1).sum(), rel=0.25)


def test_it_is_built_from_a_picture_with_its_mask(tmp_path):
    image, labels = discs()
    write_picture(tmp_path / "disc.png", image, labels == 1)
    info = ArraySlide(image, kind="fluorescence", unit="px", pixel_size=1.0).info
    given = {
        "checkpoint": checkpoint_path("small-v1"),
        "options": read_card("persense").complete({"window": 10, "label": "disc"}),
    }
    segmenter = load_segmenter("persense", Context(info, TILING, exemplar=tmp_path / "disc.png", **given))
    assert f1(segment_image(segmenter, image), labels) == 1
    with pytest.raises(SegmenterError, match="column 'exemplar'"):
        load_segmenter("persense", Context(info, TILING, **given))


def test_a_density_that_sees_nothing_is_an_error(loaded, tmp_path):
    class Nothing(torch.nn.Module):
        def forward(self, image: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
            return 0 * image[:, :1]

    torch.jit.script(Nothing()).save(str(tmp_path / "nothing.pt"))
    segmenter = PerSense.of(loaded, {"density": str(tmp_path / "nothing.pt")})
    image, labels = discs()
    with pytest.raises(SegmenterError, match="sees nothing in the exemplar's picture"):
        segmenter.learn(image, [labels == 1])


def test_mistakes_are_told_in_one_line(loaded):
    image, labels = discs()
    segmenter = PerSense.of(loaded, {})
    with pytest.raises(SegmenterError, match="shown no exemplar"):
        segment_image(segmenter, image)
    with pytest.raises(SegmenterError, match="empty or not of the picture's size"):
        segmenter.learn(image, [labels == 99])
    with pytest.raises(SegmenterError, match="regressor"):
        PerSense.of(loaded, {"density": "regressor"})
    with pytest.raises(SegmenterError, match="accepted: ncc, features, regressor, a file"):
        PerSense.of(loaded, {"density": "nccc"})
