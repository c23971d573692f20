"""The weight-free baseline: what it finds, and that tiles agree."""

import cv2
import numpy as np
import pytest
import torch

from gigaseg.errors import SegmenterError
from gigaseg.metrics.instance import Counts, match_counts
from gigaseg.metrics.overlap import Overlap
from gigaseg.segmenters.base import Context, TileBatch
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.segmenters.watershed import find_nuclei, settings
from gigaseg.testing import ArraySlide, synthetic_image
from gigaseg.tiles.tiling import Tiling

GLASS, EOSIN, PURPLE, BROWN = (243, 241, 244), (228, 160, 195), (95, 70, 130), (155, 89, 61)


def context(image, *, kind="brightfield", unit="um", pixel_size=0.5, overlap=64, **options):
    height, width = image.shape[:2]
    slide = ArraySlide(image, kind=kind, unit=unit, pixel_size=pixel_size)
    tiling = Tiling(max(height, width), overlap, width, height, (1.0, 1.0), (pixel_size, pixel_size), unit)
    return Context(slide.info, tiling, options=options)


def segment(images, batch_of=None, **keywords):
    """Instances of square images that are tiles of one slide."""
    one = context(images[0], **keywords)
    rendered = [ArraySlide(image, kind=one.info.kind).info.rendering.rgb(np.atleast_3d(image)) for image in images]
    stack = torch.from_numpy(np.stack(rendered)).permute(0, 3, 1, 2)
    tile = Tiling(images[0].shape[0], 0, 10**6, 10**6, (1.0, 1.0), (0.5, 0.5), "um").get(0, 0)
    return load_segmenter("watershed", one).segment(TileBatch(stack, [tile] * len(images)))


def labels_of(instances, shape):
    labels = np.zeros(shape, np.int32)
    for index, ((x0, y0, x1, y1), mask) in enumerate(zip(instances.boxes.tolist(), instances.masks), start=1):
        labels[y0:y1, x0:x1][mask.numpy()] = index
    return labels


def discs(*places, colour=PURPLE, background=EOSIN, size=256):
    """A noisy picture with discs (x, y, radius)."""
    image = np.empty((size, size, 3), np.uint8)
    image[:] = background
    for x, y, radius in places:
        cv2.circle(image, (x, y), radius, colour, -1, cv2.LINE_AA)
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    return (cv2.GaussianBlur(image, (0, 0), 0.8) + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def stained():
    image, labels = synthetic_image((1300, 1300), seed=3)
    return image[150:918, 200:968], labels[150:918, 200:968]


def test_nuclei_of_synthetic_stained_tissue_are_found(stained):
    image, truth = stained
    [found] = segment([image])
    counts = match_counts(Overlap.from_labels(truth, labels_of(found, truth.shape)))
    assert counts.tp > 200
    assert counts.f1 > 0.85


def test_nuclei_of_a_synthetic_fluorescence_slide_are_found():
    image, truth = (array[100:612, 100:612] for array in synthetic_image((700, 700), seed=3, kind="fluorescence"))
    [found] = segment([image], kind="fluorescence")
    counts = match_counts(Overlap.from_labels(truth, labels_of(found, truth.shape)))
    assert counts.tp > 60
    assert counts.f1 > 0.85


def test_what_a_segmenter_returns_fits_together(stained):
    [found] = segment([stained[0]])
    n = len(found.boxes)
    assert found.boxes.dtype == torch.int32
    assert found.scores.dtype == found.class_prob.dtype == torch.float32
    assert found.class_prob.tolist() == [[1.0]] * n
    assert len(found.masks) == len(found.scores) == n
    assert float(found.scores.min()) > 0
    assert float(found.scores.max()) <= 1
    for (x0, y0, x1, y1), mask in zip(found.boxes.tolist(), found.masks):
        assert mask.shape == (y1 - y0, x1 - x0)
        assert mask[0].any()
        assert mask[-1].any()
        assert mask[:, 0].any()
        assert mask[:, -1].any()


@pytest.mark.parametrize("colour", [GLASS, EOSIN, (130, 130, 130), (0, 0, 0)], ids=["glass", "eosin", "grey", "black"])
def test_an_empty_tile_yields_nothing(colour):
    assert [len(found.boxes) for found in segment([discs(background=colour)])] == [0]
    assert [len(found.boxes) for found in segment([discs(background=(9, 9, 9))], kind="fluorescence")] == [0]


def test_a_tile_gives_the_same_in_any_batch(stained):
    image = stained[0]
    tiles = [image[:256, :256], image[256:512, :256], np.full((256, 256, 3), 240, np.uint8)]
    together = segment(tiles)
    for tile, found in zip(tiles, together):
        [alone] = segment([tile])
        assert torch.equal(alone.boxes, found.boxes)
        assert torch.equal(alone.scores, found.scores)
        assert all(torch.equal(*masks) for masks in zip(alone.masks, found.masks))


def test_overlapping_tiles_agree_where_both_see_whole_nuclei(stained):
    image = stained[0]
    left, right = segment([image[:512, :512], image[:512, 256:]])
    margin = 40  # a nucleus and its surroundings
    first = labels_of(left, (512, 512))[:, 256:]
    second = labels_of(right, (512, 512))[:, :256]
    inner = np.s_[margin:-margin, margin:-margin]
    counts = match_counts(Overlap.from_labels(first[inner], second[inner]), 0.75)
    assert counts.tp > 20
    assert counts.f1 > 0.95


def test_a_nucleus_cut_by_the_tile_border_stays():
    [found] = segment([discs((0, 100, 9), (255, 180, 9), (128, 3, 9), (128, 128, 9))])
    assert sorted(found.boxes[:, 0].tolist())[0] == 0
    assert len(found.boxes) == 4


def test_pieces_at_the_border_may_be_smaller_only_when_no_other_tile_sees_them_whole():
    sliver = discs((-8, 100, 9), (128, 128, 9))
    [seen_whole] = segment([sliver], overlap=64)
    [seen_once] = segment([sliver], overlap=0)
    assert (len(seen_whole.boxes), len(seen_once.boxes)) == (1, 2)


def test_touching_nuclei_are_told_apart_and_a_long_one_is_not_cut_up():
    image = discs((60, 60, 8), (74, 60, 8), (150, 150, 8), (161, 159, 8))
    cv2.ellipse(image, (200, 60), (14, 5), 20, 0, 360, PURPLE, -1)
    [found] = segment([image])
    assert len(found.boxes) == 5


def test_specks_and_blots_are_no_nuclei():
    [found] = segment([discs((60, 60, 2), (100, 200, 60), (200, 60, 8), size=512)], max_diameter_um=10.0)
    inside = [box for box in found.boxes.tolist() if box[0] < 70 and box[1] < 70]
    assert inside == []
    areas = [int(mask.sum()) for mask in found.masks]
    assert max(areas) <= np.pi / 4 * 20**2


def test_ragged_pieces_are_no_nuclei():
    image = discs((60, 60, 9))
    cv2.line(image, (140, 150), (160, 150), PURPLE, 4)
    cv2.line(image, (150, 140), (150, 160), PURPLE, 4)
    assert len(segment([image])[0].boxes) == 1
    assert len(segment([image], min_solidity=0.3)[0].boxes) == 2


def test_strong_nuclei_score_higher_than_weak_ones():
    image = discs((60, 60, 9))
    cv2.circle(image, (180, 180), 9, (185, 140, 190), -1)
    [found] = segment([image])
    strong, weak = found.scores.tolist()
    assert strong > weak + 0.1


def test_brown_nuclei_are_found_among_any_stain_only():
    image = discs((60, 60, 9), (180, 180, 9), colour=BROWN, background=(225, 225, 235))
    assert len(segment([image], stain="any")[0].boxes) == 2
    assert len(segment([image])[0].boxes) == 0


def test_without_a_pixel_size_a_nucleus_has_the_size_on_the_card():
    image = discs((60, 60, 9))
    card = read_card("watershed")
    assert settings(card, context(image, unit="px", pixel_size=1.0)) == settings(card, context(image))
    finer = settings(card, context(image, pixel_size=0.25))
    assert finer.diameter == 2 * settings(card, context(image)).diameter == 2 * card.object_diameter


def test_the_same_nuclei_are_found_at_twice_the_resolution(stained):
    image = stained[0][:384, :384]
    fine = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    card = read_card("watershed")
    at_half, _ = find_nuclei(image, settings(card, context(image)))
    at_quarter, _ = find_nuclei(fine, settings(card, context(fine, pixel_size=0.25)))
    assert match_counts(Overlap.from_labels(at_half, at_quarter[::2, ::2])).f1 > 0.9


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"kind": "raster", "unit": "m"}, "is a raster; accepted: brightfield, fluorescence"),
        ({"stain": "hematoxylin"}, "option 'stain' is 'hematoxylin', accepted: haematoxylin, any"),
        ({"min_diameter_um": 9.0}, "accepted: 0 < min < typical < max"),
        ({"diametre_um": 9.0}, "did you mean 'diameter_um'"),
    ],
    ids=["raster", "stain", "diameters", "option"],
)
def test_what_cannot_work_is_refused_in_one_line(keywords, message):
    with pytest.raises(SegmenterError, match=message) as caught:
        load_segmenter("watershed", context(discs(), **keywords))
    assert "\n" not in str(caught.value)


def test_most_real_nuclei_of_the_data_science_bowl_are_found(data):
    import pandas as pd
    from PIL import Image

    folder = data / "dsb2018"
    index = pd.read_csv(folder / "index.tsv", sep="\t")
    small = index[(index.split == "train") & (index.modality == "fluorescence") & (index.width == 256)]
    counts = Counts(0, 0, 0)
    for name in small.image[:12]:
        image = np.asarray(Image.open(folder / "images" / f"{name}.webp").convert("RGB"))
        truth = np.asarray(Image.open(folder / "labels" / f"{name}.png")).astype(np.int32)
        stretched = np.minimum(image.astype(np.uint16) * 255 // image.max(), 255).astype(np.uint8)
        [found] = segment([stretched], kind="fluorescence", unit="px", pixel_size=1.0)
        counts += match_counts(Overlap.from_labels(truth, labels_of(found, truth.shape)))
    assert counts.tp > 100
    assert counts.f1 > 0.75
