from __future__ import annotations

import numpy as np
import pytest
import shapely

from gigaseg.errors import FormatError
from gigaseg.metrics.overlap import Overlap
from gigaseg.metrics.polygons import PolygonBatch, PolygonStore, overlap_of_polygons
from gigaseg.metrics.score import score_labels, score_overlap


def _outlines(labels: np.ndarray) -> list[shapely.Geometry]:
    """The union of the pixels of each id, in ascending order of the ids."""
    return [
        shapely.union_all([shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(labels == i)])
        for i in np.unique(labels)
        if i
    ]


def _overlap(truth, prediction, per_cell: int = 5000) -> Overlap:
    return overlap_of_polygons(PolygonStore.from_geometries(truth), PolygonStore.from_geometries(prediction), per_cell)


def _table(overlap: Overlap) -> dict[tuple[int, int], float]:
    return dict(zip(zip(overlap.truth.tolist(), overlap.prediction.tolist()), overlap.intersection.tolist()))


def _discs(seed: int, count: int = 300, size: float = 400.0) -> list[shapely.Geometry]:
    generator = np.random.default_rng(seed)
    centres = generator.random((count, 2)) * size
    return [shapely.Point(*c).buffer(r) for c, r in zip(centres, generator.uniform(2, 14, count))]


def test_outlines_of_labels_score_as_the_labels_do(crowd):
    truth, prediction = crowd(11), crowd(12)
    by_pixel = score_labels(truth, prediction)
    by_area = score_overlap(_overlap(_outlines(truth), _outlines(prediction)))
    for name, value in by_area.items():
        if "two_class" not in name:
            assert value == pytest.approx(by_pixel[name], abs=1e-9), name


@pytest.mark.parametrize("per_cell", [1, 7, 60])
def test_number_of_cells_changes_neither_pairs_nor_areas(per_cell):
    truth, prediction = [*_discs(1), shapely.box(-50, 100, 500, 140)], _discs(2)
    whole, cut = _overlap(truth, prediction), _overlap(truth, prediction, per_cell)
    assert _table(cut) == pytest.approx(_table(whole))
    assert cut.covered == pytest.approx(whole.covered)


def test_covered_area_counts_overlaps_within_a_side_once():
    truth, prediction = _discs(1), _discs(2)
    union_t, union_p = shapely.union_all(truth), shapely.union_all(prediction)
    overlap = _overlap(truth, prediction, 20)
    assert overlap.truth_area.sum() > union_t.area + 1
    assert overlap.covered == pytest.approx((union_t.intersection(union_p).area, union_t.area, union_p.area))


def test_polygons_that_only_touch_do_not_overlap():
    overlap = _overlap([shapely.box(0, 0, 10, 10)], [shapely.box(10, 0, 20, 10), shapely.box(0, 10, 10, 20)])
    assert len(overlap.intersection) == 0


@pytest.mark.parametrize(("truth", "prediction"), [([], []), ([shapely.box(0, 0, 1, 1)], []), ([], _discs(1, 3))])
def test_empty_sides_give_no_pairs(truth, prediction):
    overlap = _overlap(truth, prediction)
    assert (len(overlap.truth_ids), len(overlap.prediction_ids)) == (len(truth), len(prediction))
    assert len(overlap.intersection) == 0


def test_invalid_outlines_are_mended_and_flat_ones_left_out(caplog):
    bow = shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])
    flat = shapely.Polygon([(0, 0), (4, 0), (8, 0)])
    store = PolygonStore.from_geometries([bow, flat, None, shapely.box(0, 0, 2, 2)])
    assert store.area.tolist() == [8.0, 4.0]
    assert "2 invalid polygons were made valid" in caplog.text
    assert "2 objects without area were left out" in caplog.text


def test_store_returns_what_it_took_in():
    discs = _discs(1, 50)
    store = PolygonStore.from_geometries(discs)
    rows = np.array([0, 1, 2, 7, 30, 31, 49])
    assert shapely.equals_exact(store.load(rows), np.array(discs, dtype=object)[rows]).all()
    assert store.centroid[7] == pytest.approx(discs[7].centroid.coords[0])


def test_classes_are_known_only_if_every_object_has_one():
    square = np.array([shapely.box(0, 0, 1, 1)], dtype=object)
    named = PolygonBatch(square, np.array(["b"], dtype=object))
    assert PolygonStore.collect([named, named]).class_index.tolist() == [0, 0]
    assert PolygonStore.collect([named, PolygonBatch(square)]).class_index is None


def test_points_among_polygons_are_named():
    with pytest.raises(FormatError, match="cells: object 2 is a Point; expected Polygon or MultiPolygon"):
        PolygonStore.collect([PolygonBatch(np.array([shapely.box(0, 0, 1, 1), shapely.Point(0, 0)]))], "cells")
