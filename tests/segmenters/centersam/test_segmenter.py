"""Segmenter `centersam` outlines what its detector finds; what it finds is painted on the tiles."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from centersam_models import (
    PAINTED,
    box_of,
    discs,
    paint,
    painted_detector,
    scene,
    score_of,
    write_learnt_sam,
    write_painted,
)
from gigaseg.errors import CheckpointError, SegmenterError
from gigaseg.instances.tile import tile_rows
from gigaseg.instances.transfer import to_host
from gigaseg.sam.packed import PackedMasks
from gigaseg.sam.prompting import box_sets
from gigaseg.segmenters.base import Context, TileBatch
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.centersam.checkpoint import open_centersam
from gigaseg.segmenters.centersam.clahe import clahe
from gigaseg.segmenters.centersam.detector import DetectorConfig, build_detector
from gigaseg.segmenters.centersam.peaks import decode
from gigaseg.segmenters.centersam.segmenter import CenterSam
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.testing import ArraySlide
from gigaseg.tiles.tiling import Tiling
from samples import write_random_sam

SIDE = 64
TILING = Tiling(SIDE, 16, 500, 64, (1.0, 1.0), (1.0, 1.0), "px")

OBJECTS = [(3, 11, 255, 22, 22), (4, 4, 200, 20, 14), (12, 3, 180, 12, 22), (11, 12, 160, 16, 16)]
"""Column, row, red, width, height; by score."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("weights") / "sam.safetensors"


@pytest.fixture(scope="module")
def sam(base):
    return write_learnt_sam(base)


@pytest.fixture(scope="module")
def checkpoint(base, sam):
    return write_painted(base.with_name("centersam.safetensors"), base)


def load(checkpoint, **options):
    card = read_card("centersam")
    info = ArraySlide(np.zeros((64, 500, 3), np.uint8)).info
    return load_segmenter("centersam", Context(info, TILING, checkpoint=checkpoint, options=card.complete(options)))


def run(segmenter, *tiles):
    return segmenter.segment(TileBatch(torch.stack(tiles), [TILING.get(0, i) for i in range(len(tiles))]))


def full(instances, i, side=SIDE):
    """Mask i of a tile's instances in the tile."""
    found = np.zeros((side, side), bool)
    x0, y0, x1, y1 = instances.boxes[i].tolist()
    found[y0:y1, x0:x1] = instances.masks[i].numpy()
    return found


def full_of(masks, side):
    """The first of packed masks in its tile."""
    found = np.zeros((side, side), bool)
    x0, y0, x1, y1 = masks.boxes[0].tolist()
    found[y0:y1, x0:x1] = masks.unpack()[0].numpy()
    return found


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def same(one, other):
    return (
        torch.equal(one.boxes, other.boxes)
        and torch.equal(one.scores, other.scores)
        and all(torch.equal(a, b) for a, b in zip(one.masks, other.masks, strict=True))
    )


def test_objects_are_found_where_the_heat_is_by_descending_score(checkpoint):
    (found,) = run(load(checkpoint), scene(SIDE, OBJECTS[::-1]))
    assert found.scores.tolist() == [pytest.approx(score_of(red), abs=1e-4) for red in (255, 200, 180, 160)]
    assert found.class_prob.tolist() == [[1.0]] * 4
    for i, truth in enumerate(discs(SIDE, OBJECTS).numpy()):
        assert iou(full(found, i), truth) > 0.7
    (fewer,) = run(load(checkpoint), paint(SIDE, OBJECTS[1:3], scene(SIDE, OBJECTS)))
    assert len(fewer.boxes) == 2, "what the detector does not see SAM is not asked for"
    assert iou(full(fewer, 0), full(found, 1)) > 0.7


def test_an_instance_is_the_reference_predictors_mask_of_the_box_that_the_heat_names(checkpoint, sam):
    from segment_anything import SamPredictor

    objects = [(8, 9, 255, 40, 30), (23, 20, 200, 30, 44)]
    tile = scene(128, objects)  # of the size that the reference works at
    (found,) = run(load(checkpoint, window=0), tile)
    predictor = SamPredictor(sam)
    predictor.set_image(tile.permute(1, 2, 0).numpy())
    for i, (column, row, _, width, height) in enumerate(objects):
        box = np.array(box_of(column, row, width, height))
        (mask,), _, _ = predictor.predict(box=box, multimask_output=False)
        assert 100 < mask.sum() < 4000, "the reference is no trivial mask"
        assert (full(found, i, 128) != mask).sum() <= 3, "at most pixels on the very edge"


def test_an_empty_tile_has_no_instances(checkpoint):
    found = run(load(checkpoint), paint(SIDE, []), scene(SIDE, OBJECTS), scene(SIDE, []))
    assert [len(instances.boxes) for instances in found] == [0, 4, 0]
    for i in (0, 2):
        assert found[i].boxes.shape == (0, 4)
        assert found[i].class_prob.shape == (0, 1)
        assert len(found[i].masks) == 0


def test_the_same_tile_gives_the_same_instances_in_any_batch(checkpoint):
    segmenter = load(checkpoint)
    tiles = [scene(SIDE, OBJECTS[i:]) for i in range(3)]
    together = run(segmenter, *tiles)
    assert [len(found.boxes) for found in together] == [4, 3, 2]
    for tile, found in zip(tiles, together):
        assert same(run(segmenter, tile)[0], found)
    assert same(run(segmenter, tiles[2], tiles[2], tiles[0])[1], together[2])


def test_tiles_decoded_together_are_those_decoded_alone(checkpoint):
    """As a GPU has them; there is none here, so that the batch is given to the inner method."""
    segmenter = load(checkpoint)
    tiles = torch.stack([scene(SIDE, OBJECTS[i:]) for i in range(3)])
    for i, found in enumerate(segmenter._run(tiles)):
        (alone,) = run(segmenter, tiles[i])
        torch.testing.assert_close(found.scores, alone.scores)
        for k in range(len(alone.boxes)):
            assert (full(found, k) != full(alone, k)).sum() <= 2, "pixels on the very edge, by rounding"


def test_boxes_are_clipped_to_the_tile_and_slivers_dropped(checkpoint):
    objects = [(0, 8, 250, 24, 20), (15, 15, 230, 30, 26), (8, 0, 210, 20, 20), (4, 4, 190, 0, 30)]
    tile = paint(SIDE, objects, scene(SIDE, objects[:3]))
    (found,) = run(load(checkpoint), tile)
    assert len(found.boxes) == 3, "the last is 0 px wide"
    backend = open_centersam(checkpoint).backend
    boxes = torch.tensor([box_of(c, r, w, h) for c, r, _, w, h in objects[:3]])
    assert bool((boxes < 0).any())
    assert bool((boxes > SIDE).any())
    image = torch.zeros(3, dtype=torch.int64)
    expected = backend.masks(backend.encode(tile[None]), box_sets(image, boxes.clamp(0, SIDE)), (SIDE, SIDE))
    assert torch.equal(found.boxes, expected.boxes)
    assert bool((found.boxes >= 0).all())
    assert bool((found.boxes <= SIDE).all())


def test_pixels_of_two_masks_go_to_the_higher_score(checkpoint):
    (found,) = run(load(checkpoint, nms=1.0), scene(SIDE, [(5, 7, 180, 26, 26), (9, 7, 220, 24, 24)]))
    high, low = full(found, 0), full(found, 1)
    assert found.scores[0] > found.scores[1]
    assert (high & low).any()
    tile = TILING.get(0, 0)
    rows = tile_rows(to_host([found], [tile], TILING, exclusive=True)[0], tile, TILING, ("nucleus",))
    assert [shape.area for shape in rows.geometry] == [high.sum(), (low & ~high).sum()]


def test_of_masks_that_are_much_alike_the_higher_score_stays(checkpoint):
    tile = scene(SIDE, [(5, 7, 180, 26, 26), (9, 7, 220, 24, 24)])
    (every,) = run(load(checkpoint, nms=1.0), tile)
    assert len(every.boxes) == 2
    alike = float(iou(full(every, 0), full(every, 1)))
    assert 0.01 < alike < 0.99
    assert len(run(load(checkpoint, nms=alike + 0.01), tile)[0].boxes) == 2
    (one,) = run(load(checkpoint, nms=alike - 0.01), tile)
    assert one.scores.tolist() == every.scores[:1].tolist()
    assert np.array_equal(full(one, 0), full(every, 0))


def test_the_threshold_is_the_checkpoints_unless_another_is_wanted(base, checkpoint):
    tile = scene(SIDE, OBJECTS)
    threshold = (score_of(200) + score_of(180)) / 2
    strict = write_painted(base.with_name("strict.safetensors"), base, threshold=threshold)
    assert len(run(load(strict), tile)[0].boxes) == 2
    assert len(run(load(strict, threshold=0.3), tile)[0].boxes) == 4
    assert len(run(load(strict, threshold=0.3, top=1), tile)[0].boxes) == 1


def test_a_higher_threshold_takes_away_what_scores_less_and_nothing_else(checkpoint):
    objects = [(c, r, 150 + 5 * c + r, 16, 16) for r in range(2, 15, 3) for c in range(2, 15, 3)]
    tile = scene(SIDE, objects)
    (low,) = run(load(checkpoint, threshold=0.3, nms=0.1), tile)
    assert 2 < len(low.boxes) < len(objects), "some were duplicates"
    limit = float(low.scores.median())
    (high,) = run(load(checkpoint, threshold=limit, nms=0.1), tile)
    kept = int((low.scores > limit).sum())
    assert 0 < kept < len(low.boxes)
    assert torch.equal(high.boxes, low.boxes[:kept])
    assert torch.equal(high.scores, low.scores[:kept])


def test_masks_that_sam_itself_doubts_can_be_left_out(tmp_path):
    write_random_sam(tmp_path / "sam.safetensors", quality=(0.5, 0.5))
    checkpoint = write_painted(tmp_path / "c.safetensors", tmp_path / "sam.safetensors")
    tile = scene(SIDE, OBJECTS)
    assert len(run(load(checkpoint, nms=1.0, min_contrast=0), tile)[0].boxes) == 4
    assert len(run(load(checkpoint, nms=1.0, min_quality=0.95), tile)[0].boxes) == 0


def test_a_tile_resized_to_the_input_gives_instances_in_tile_pixels(checkpoint):
    tile = 200 * discs(128, [(8, 14, 0, 40, 32)])[0].to(torch.uint8).repeat(3, 1, 1)
    tile[0] = 0
    # cell (4, 7) of an input of half the side begins at px (32, 56); around it, so that resizing leaves the colour
    tile[:, 55:59, 31:35] = torch.tensor([255, 20, 16], dtype=torch.uint8)[:, None, None]
    (found,) = run(load(checkpoint, input_size=64), tile)
    assert found.scores.tolist() == [pytest.approx(score_of(255), abs=1e-3)]
    backend = open_centersam(checkpoint, input_size=64).backend
    box = 2 * torch.tensor([box_of(4, 7, 20, 16)])
    expected = backend.masks(backend.encode(tile[None]), box_sets(torch.zeros(1).long(), box), (128, 128))
    assert (full(found, 0, 128) != full_of(expected, 128)).sum() <= 3
    assert found.boxes.max() > 64


def test_classes_are_the_checkpoints_and_shared_by_their_heat(base, checkpoint):
    config = DetectorConfig(**{**PAINTED.__dict__, "classes": ("round", "long")})
    path = write_painted(base.with_name("classes.safetensors"), base, config=config)
    segmenter = load(path)
    assert segmenter.card.classes == ("round", "long")
    (found,) = run(segmenter, scene(SIDE, OBJECTS))
    heat = torch.stack([found.scores, torch.full((4,), 1 / (1 + 2.718281828**2.19))], 1)
    torch.testing.assert_close(found.class_prob, heat / heat.sum(1, keepdim=True), atol=1e-4, rtol=1e-4)


def test_clahe_comes_before_everything(checkpoint):
    tile = scene(SIDE, OBJECTS)
    (found,) = run(load(checkpoint, clahe=True), tile)
    (expected,) = run(load(checkpoint), clahe(tile[None])[0])
    assert len(found.boxes) == 4
    assert same(found, expected)
    assert found.scores.tolist() != run(load(checkpoint), tile)[0].scores.tolist()


def test_a_detector_on_the_image_alone_takes_tiles_of_any_side(base, checkpoint, tmp_path):
    torch.manual_seed(0)
    config = DetectorConfig(kind="hourglass", dims=(8, 8, 8, 8), counts=(1, 1, 1, 1))
    detector = build_detector(config).eval()
    detector.heads[1].last("size").bias.data.fill_(4.0)
    path = write_painted(tmp_path / "c.safetensors", base, config=config, detector=detector)
    tile = scene(104, OBJECTS)
    assert detector.multiple == 32
    assert 104 % detector.multiple
    (found,) = run(load(path, threshold=0.001, nms=1.0), tile)
    assert len(found.boxes) > 0
    assert bool((found.boxes[:, 2:] <= 104).all())
    # what fills the tile up is the mean colour: nothing else than a tile that shows it there
    mean = torch.tensor(config.pixel_mean).view(3, 1, 1)
    larger = torch.nn.functional.pad(tile.float() - mean, (0, 24, 0, 24)) + mean
    with torch.no_grad():
        peaks = decode(detector(detector.normalise(larger[None]))[-1], threshold=0.001)
    tops = peaks.scores[((peaks.boxes.clamp(0, 104)[:, 2:] - peaks.boxes.clamp(0, 104)[:, :2]) >= 1).all(1)]
    assert all(float((tops - score).abs().min()) < 1e-5 for score in found.scores)


def test_models_that_are_there_make_the_same_segmenter(checkpoint):
    tile = scene(SIDE, OBJECTS)
    segmenter = CenterSam.of(open_centersam(checkpoint), {"nms": 0.4})
    assert same(run(segmenter, tile)[0], run(load(checkpoint, nms=0.4), tile)[0])
    assert segmenter.card.name == "centersam"
    with pytest.raises(SegmenterError, match="unknown option 'treshold'"):
        CenterSam.of(open_centersam(checkpoint), {"treshold": 0.5})


def test_the_wrong_checkpoint_is_told_in_one_line(base, checkpoint):
    with pytest.raises(CheckpointError, match="weights of a SAM model, expected those") as caught:
        load(base)
    assert "\n" not in str(caught.value)


def test_what_does_not_stand_out_from_the_glass_is_left_out():
    from gigaseg.segmenters.contrast import contrast

    image = torch.full((2, 3, 40, 40), 200, dtype=torch.uint8)
    image[0, :, 10:20, 12:20] = 190
    image[1, :, 10:20, 12:20] = torch.tensor([203, 200, 203], dtype=torch.uint8)[:, None, None]
    bits = torch.ones(80, dtype=torch.bool)
    bits[0] = False  # a corner of each belongs to its surroundings
    boxes = torch.tensor([[12, 10, 20, 20]] * 3 + [[0, 0, 40, 40]], dtype=torch.int32)
    masks = PackedMasks(boxes, torch.cat([bits, torch.ones(1600, dtype=torch.bool)]), torch.tensor([0, 0, 0, 80]), None)
    found = contrast(masks, image, torch.tensor([0, 1, 1, 0]))
    rest = 12 * 16 - 79  # the box grown by 2 px across and 3 px down, without the mask
    assert found.tolist() == pytest.approx([10 - 10 / rest, 2 - 2 / rest, 2 - 2 / rest, np.inf])


def test_low_contrast_is_kept_when_asked_for(checkpoint):
    tile = paint(SIDE, OBJECTS, scene(SIDE, OBJECTS))
    (all_,) = run(load(checkpoint, min_contrast=0), tile)
    (some,) = run(load(checkpoint, min_contrast=255), tile)
    assert len(all_.boxes) == len(OBJECTS)
    assert len(some.boxes) == 0


def test_masks_follow_the_detectors_detail_and_nothing_else_does(base, sam, tmp_path):
    config = replace(PAINTED, detail=4)
    detector = painted_detector(config)
    write_painted(tmp_path / "silent.safetensors", base, config=config, detector=detector)
    with torch.no_grad():
        detector.detail.last.bias[1:] = 3 * torch.randn(config.embedding // 8, generator=torch.manual_seed(0))
    write_painted(tmp_path / "loud.safetensors", base, config=config, detector=detector)
    tile = scene(SIDE, OBJECTS)
    (plain,) = run(load(write_painted(tmp_path / "plain.safetensors", base)), tile)
    (silent,) = run(load(tmp_path / "silent.safetensors"), tile)
    (loud,) = run(load(tmp_path / "loud.safetensors"), tile)
    assert same(silent, plain), "planes of 0 change nothing"
    assert set(loud.scores.tolist()) <= set(plain.scores.tolist())
    assert not same(loud, plain)
