"""Segmenter `everything` passes its options on to the mask generator and drops what covers most of a tile."""

import numpy as np
import pytest
import torch

from gigaseg.segmenters.base import Context, TileBatch
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.testing import ArraySlide
from gigaseg.tiles.tiling import Tiling
from samples import write_random_sam

SIDE = 128
TILING = Tiling(SIDE, 32, 400, 128, (1.0, 1.0), (1.0, 1.0), "px")
OPEN = {"points_per_side": 3, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    write_random_sam(path)
    return path


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.integers(0, 256, (2, 3, 16, 16)).astype(np.float32))
    images = torch.nn.functional.interpolate(coarse, SIDE, mode="bicubic").clamp(0, 255).to(torch.uint8)
    return TileBatch(images, [TILING.get(0, 0), TILING.get(0, 1)])


def run(checkpoint, batch, **options):
    card = read_card("everything")
    info = ArraySlide(np.zeros((128, 400, 3), np.uint8)).info
    context = Context(info, TILING, checkpoint=checkpoint, options=card.complete({**OPEN, **options}))
    return load_segmenter("everything", context).segment(batch)


def test_the_defaults_are_those_of_segment_anything():
    import inspect

    from gigaseg.sam.torchvision_ops import ensure_torchvision

    ensure_torchvision()
    from segment_anything import SamAutomaticMaskGenerator

    theirs = inspect.signature(SamAutomaticMaskGenerator.__init__).parameters
    ours = read_card("everything").complete({})
    for name in ("points_per_side", "pred_iou_thresh", "stability_score_thresh", "box_nms_thresh"):
        assert ours[name] == theirs[name].default


def test_each_point_yields_up_to_three_masks_and_thresholds_leave_some_out(checkpoint, batch):
    every = run(checkpoint, batch, max_area=1.0)
    assert len(every) == 2
    for found in every:
        assert 0 < len(found.masks) <= 27
        assert all(mask.any() for mask in found.masks)
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert [mask.sum() for mask in every[0].masks] != [mask.sum() for mask in every[1].masks]
    fewer = run(checkpoint, batch, max_area=1.0, box_nms_thresh=0.3)
    assert sum(len(found.masks) for found in fewer) < sum(len(found.masks) for found in every)
    none = run(checkpoint, batch, pred_iou_thresh=1.0)
    assert [len(found.masks) for found in none] == [0, 0]
    assert none[0].class_prob.shape == (0, 1)


def test_masks_of_more_than_the_largest_area_are_left_out(checkpoint, batch):
    every = run(checkpoint, batch, max_area=1.0)
    areas = sorted(int(mask.sum()) for found in every for mask in found.masks)
    limit = areas[len(areas) // 2] / SIDE**2
    some = run(checkpoint, batch, max_area=limit)
    left = sorted(int(mask.sum()) for found in some for mask in found.masks)
    assert left == [area for area in areas if area <= limit * SIDE**2]
    assert all(len(found.masks) == len(found.boxes) == len(found.scores) for found in some)


def test_a_tile_yields_the_same_whatever_its_batch(checkpoint, batch):
    second = run(checkpoint, batch, max_area=1.0)[1]
    (alone,) = run(checkpoint, TileBatch(batch.images[1:], batch.tiles[1:]), max_area=1.0)
    assert alone.boxes.tolist() == second.boxes.tolist()
    assert alone.scores.tolist() == second.scores.tolist()
