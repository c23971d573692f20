"""Coverage: what several instances cover counts once, and only where there is foreground."""

import numpy as np
import pytest
import shapely

from gigaseg.measure.cover import PixelAreas, Scene, cover, total
from gigaseg.slides.ground import Flat
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.tiling import Tiling

SIZE = (0.5, 0.4)
"""Metres of a level-0 pixel; a working pixel has 2 of them a side."""

WIDTH, HEIGHT = 5000, 4200
TILING = Tiling(256, 64, WIDTH // 2, HEIGHT // 2, (2.0, 2.0), (1.0, 0.8), "m")


def areas(outlines, regions=(), mask=None, labels=None):
    """`total` of outlines and regions in working px, as (valid, covered), in working px."""
    mask = np.ones((1, 1), bool) if mask is None else mask
    foreground = Foreground(mask, (WIDTH / mask.shape[1], HEIGHT / mask.shape[0]), "valid")
    labels = np.zeros(len(outlines), np.int32) if labels is None else np.asarray(labels, np.int32)
    classes = int(labels.max(initial=0)) + 1
    regions = np.array([*regions], object)
    scene = Scene(PixelAreas(Flat(SIZE), WIDTH, HEIGHT), foreground, regions, classes)
    found = cover(scene, TILING, np.array(outlines, object), labels, (0, 0, TILING.width, TILING.height))
    valid, covered = total(found[::-1], len(regions), classes)
    return valid / 0.8, covered / 0.8


def test_what_two_cover_counts_once_over_all_blocks_and_by_class():
    low, high = shapely.box(2000, 2000, 2100, 2090), shapely.box(2040, 2000, 2140, 2090)  # blocks end at 2048
    _, covered = areas([low, high, shapely.box(10, 10, 20, 20)], labels=[0, 1, 1])
    assert covered[0].tolist() == pytest.approx([140 * 90 + 100, 100 * 90, 100 * 90 + 100])


def test_a_region_is_covered_by_what_of_an_instance_lies_in_it():
    regions = [shapely.box(0, 0, 2050, 2050), shapely.box(2050, 0, 2100, 2100), shapely.box(0, 0, 2500, 2100)]
    valid, covered = areas([shapely.box(2000, 2000, 2100, 2090), shapely.box(-9, -9, 1, 1)], regions)
    assert valid == pytest.approx([2050 * 2050, 50 * 2100, 2500 * 2100])
    assert covered[1:, 0] == pytest.approx([50 * 50 + 1, 50 * 90, 100 * 90 + 1])


def test_only_foreground_counts_in_regions_and_under_instances():
    rng = np.random.default_rng(0)
    mask = rng.random((210, 250)) < 0.5  # 10 x 10 working px each
    shapes = np.array([shapely.Point(1180, 1000).buffer(450), shapely.box(3, 5, 2390, 2090), shapely.box(9, 1, 11, 3)])
    rows, columns = np.nonzero(mask)
    union = shapely.union_all(shapely.box(columns * 10, rows * 10, columns * 10 + 10, rows * 10 + 10))
    houses = shapely.buffer(shapely.points(rng.uniform(0, 2000, (200, 2))), 40)
    valid, covered = areas(houses, shapes, mask)
    assert valid == pytest.approx(shapely.area(shapely.intersection(shapes, union)), rel=1e-3, abs=1)
    built = shapely.intersection(shapely.union_all(houses), union)
    assert covered[0, 0] == pytest.approx(built.intersection(shapely.box(0, 0, 2500, 2100)).area, rel=1e-3)
    assert covered[1:, 0] == pytest.approx(shapely.area(shapely.intersection(shapes, built)), rel=5e-3, abs=1)


def test_without_instances_and_regions_nothing_is_covered():
    valid, covered = areas([])
    assert valid.tolist() == []
    assert covered.tolist() == [[0, 0]]
