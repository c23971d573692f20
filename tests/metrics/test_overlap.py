from __future__ import annotations

import numpy as np
import pytest

from gigaseg.errors import FormatError
from gigaseg.metrics.overlap import Overlap


def _by_loop(truth: np.ndarray, prediction: np.ndarray) -> dict[tuple[int, int], int]:
    return {
        (t, p): n
        for t in np.unique(truth[truth > 0]).tolist()
        for p in np.unique(prediction[prediction > 0]).tolist()
        if (n := int(((truth == t) & (prediction == p)).sum()))
    }


def _table(overlap: Overlap) -> dict[tuple[int, int], float]:
    ids = zip(overlap.truth_ids[overlap.truth].tolist(), overlap.prediction_ids[overlap.prediction].tolist())
    return dict(zip(ids, overlap.intersection.tolist()))


@pytest.mark.parametrize("seed", [11, 12, 21])
def test_joint_histogram_equals_counting_pair_by_pair(crowd, seed):
    truth, prediction = crowd(seed), crowd(seed + 1)
    overlap = Overlap.from_labels(truth, prediction)
    assert _table(overlap) == _by_loop(truth, prediction)
    assert overlap.truth_area.tolist() == [(truth == i).sum() for i in overlap.truth_ids]
    assert overlap.covered == ((truth > 0)[prediction > 0].sum(), (truth > 0).sum(), (prediction > 0).sum())


@pytest.mark.parametrize(
    "rename",
    [
        lambda a: a.astype(np.uint8),
        lambda a: a * 3000,
        lambda a: a.astype(np.int64) * 10**12,
        lambda a: a.astype(">u2"),
    ],
    ids=["uint8", "gaps", "huge ids", "big-endian"],
)
def test_ids_of_any_size_and_type_give_the_same_areas(crowd, rename):
    truth, prediction = crowd(11), crowd(12)
    plain, renamed = Overlap.from_labels(truth, prediction), Overlap.from_labels(rename(truth), prediction)
    assert renamed.intersection.tolist() == plain.intersection.tolist()
    assert renamed.truth_area.tolist() == plain.truth_area.tolist()
    assert set(renamed.truth_ids.tolist()) == set(np.unique(rename(truth)).tolist()) - {0}


def test_many_objects_on_both_sides_take_the_sparse_path_with_the_same_result():
    yy, xx = np.mgrid[:300, :300]
    truth, prediction = (yy // 2) * 150 + xx // 2 + 1, ((yy + 1) // 2) * 151 + xx // 2 + 1
    overlap = Overlap.from_labels(truth, prediction)
    assert len(overlap.truth_ids) * len(overlap.prediction_ids) > 4 * truth.size
    assert set(overlap.intersection.tolist()) == {2.0}
    assert len(overlap.intersection) == 2 * 150 * 150
    assert overlap.intersection.sum() == truth.size
    assert (np.diff(overlap.truth) >= 0).all()


def test_image_without_background_keeps_every_object():
    overlap = Overlap.from_labels(np.full((4, 6), 7), np.full((4, 6), 9))
    assert (overlap.truth_ids.tolist(), overlap.prediction_ids.tolist(), overlap.iou.tolist()) == ([7], [9], [1.0])


def test_bool_masks_are_one_object_and_empty_images_none():
    mask = np.zeros((5, 5), bool)
    mask[1:3, 1:3] = True
    assert Overlap.from_labels(mask, mask).truth_area.tolist() == [4.0]
    empty = Overlap.from_labels(np.zeros((0, 0), int), np.zeros((0, 0), int))
    assert (len(empty.truth_ids), len(empty.intersection), empty.extent) == (0, 0, 0.0)


def test_swapping_twice_gives_the_table_back(crowd):
    overlap = Overlap.from_labels(crowd(11), crowd(12))
    assert _table(overlap.swapped()) == _table(Overlap.from_labels(crowd(12), crowd(11)))
    assert _table(overlap.swapped().swapped()) == _table(overlap)


def test_restricting_to_objects_equals_erasing_the_others(crowd):
    truth, prediction = crowd(11), crowd(12)
    overlap = Overlap.from_labels(truth, prediction)
    mine = overlap.restrict(overlap.truth_ids % 2 == 0, overlap.prediction_ids % 3 == 0)
    erased = Overlap.from_labels(truth * (truth % 2 == 0), prediction * (prediction % 3 == 0))
    assert _table(mine) == _table(erased)
    assert mine.covered == erased.covered


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((3, 4), int), np.zeros((4, 3), int), "truth is 4x3 and prediction 3x4 px; expected the same size"),
        (np.zeros((3, 3)), np.zeros((3, 3), int), "truth label image has dtype float64; expected integers"),
        (np.zeros((3, 3), int), np.full((3, 3), -1), "prediction label image has the negative id -1"),
        (np.zeros((3, 3, 3), int), np.zeros((3, 3), int), "truth label image has 3 dimensions; expected 2"),
    ],
)
def test_what_is_no_label_image_is_named(truth, prediction, message):
    with pytest.raises(FormatError, match=message):
        Overlap.from_labels(truth, prediction)
