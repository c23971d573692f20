"""From a segmenter's masks to rows: disjoint where wanted, clipped to the slide, cut bits right."""

from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from gigaseg.instances.tile import tile_rows
from gigaseg.instances.transfer import to_host
from gigaseg.segmenters.base import TileInstances
from gigaseg.tiles.tiling import Tiling

TILING = Tiling(64, 16, 100, 90, (1.0, 1.0), (1.0, 1.0), "px")
"""2 x 2 tiles; the last ones reach beyond the slide."""


def found(boxes, scores, masks=None, prob=None):
    masks = masks or [torch.ones(y1 - y0, x1 - x0, dtype=torch.bool) for x0, y0, x1, y1 in boxes]
    prob = torch.ones(len(boxes), 1) if prob is None else torch.tensor(prob)
    return TileInstances(torch.tensor(boxes, dtype=torch.int32), masks, torch.tensor(scores), prob)


def rows(instances, row=0, col=0, *, exclusive=True, classes=("a",)):
    return tile_rows(host(instances, row, col, exclusive=exclusive), TILING.get(row, col), TILING, classes)


def host(instances, row=0, col=0, *, exclusive=True):
    return to_host([instances], [TILING.get(row, col)], TILING, exclusive=exclusive)[0]


def test_the_higher_score_keeps_shared_pixels_and_the_first_among_equals():
    shared = found([(0, 0, 10, 10), (5, 0, 15, 10), (12, 0, 20, 10)], [0.5, 0.9, 0.9])
    assert [g.bounds for g in rows(shared).geometry] == [(0, 0, 5, 10), (5, 0, 15, 10), (15, 0, 20, 10)]
    assert [g.area for g in rows(shared, exclusive=False).geometry] == [100, 100, 80]


def test_it_is_counted_who_lost_all_pixels_and_who_had_none_on_the_slide():
    counts = Counter()
    masks = found([(0, 0, 10, 10), (2, 2, 5, 5), (55, 0, 60, 10)], [0.9, 0.1, 0.5])
    tile_rows(host(masks), TILING.get(0, 0), TILING, ("a",), counts=counts)
    assert counts == {"instances": 2, "lost_to_others": 1, "empty": 0}
    told = replace(masks, left_out={"empty": 3, "below_min_score": 4})
    tile_rows(host(told, 1, 1, exclusive=False), TILING.get(1, 1), TILING, ("a",), counts=counts)
    assert counts == {"instances": 4, "lost_to_others": 1, "empty": 4, "below_min_score": 4}


def test_a_mask_that_loses_all_its_pixels_is_left_out_with_its_row():
    kept = rows(found([(0, 0, 10, 10), (2, 2, 5, 5)], [0.9, 0.1]))
    assert len(kept) == 1
    assert kept.score.tolist() == [np.float32(0.9)]


def test_geometry_is_in_working_pixels_and_clipped_to_the_slide():
    kept = rows(found([(40, 30, 60, 50), (60, 60, 64, 64)], [1.0, 1.0]), 1, 1)
    assert [g.bounds for g in kept.geometry] == [(88, 78, 100, 90)]


def test_cut_bits_name_the_borders_inside_the_slide():
    boxes = [(0, 20, 5, 25), (20, 0, 25, 5), (60, 20, 64, 25), (20, 60, 25, 64), (0, 0, 64, 64)]
    first = rows(found(boxes, [1.0] * 5), exclusive=False)
    assert first.cut.tolist() == [0, 0, 4, 8, 12]
    last = rows(found(boxes[:2] + boxes[4:], [1.0] * 3), 1, 1, exclusive=False)
    assert last.cut.tolist() == [1, 2, 3]


def test_the_class_is_the_most_probable_one():
    kept = rows(found([(0, 0, 5, 5), (9, 0, 12, 5)], [1.0, 1.0], prob=[[0.2, 0.8], [0.6, 0.4]]), classes=("a", "b"))
    assert kept.class_index.tolist() == [1, 0]


def test_no_instances_give_no_rows():
    empty = TileInstances(torch.zeros(0, 4, dtype=torch.int32), [], torch.zeros(0), torch.zeros(0, 1))
    assert len(rows(empty)) == len(rows(empty, exclusive=False)) == 0
