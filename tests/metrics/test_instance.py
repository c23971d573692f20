from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest

from gigaseg.metrics.instance import (
    Counts,
    aji,
    aji_plus,
    f1,
    match_counts,
    matched_pairs,
    object_dice,
    panoptic_quality,
    seg,
)
from gigaseg.metrics.overlap import Overlap
from gigaseg.metrics.score import score_labels

ONE, OTHER, THIRD = (5, 5, 10, 10), (30, 30, 10, 10), (50, 5, 10, 10)


@pytest.mark.parametrize(
    ("truth", "prediction", "pq", "dq", "sq", "a", "a_plus"),
    [
        pytest.param([ONE, OTHER], [ONE, (30, 35, 10, 10)], 0.4999995, 0.5, 0.999999, 0.6, 0.6, id="A: one shifted"),
        pytest.param([ONE], [(5, 5, 10, 5)], 0, 0, 0, 0.5, 0.5, id="B: IoU exactly one half"),
        pytest.param([ONE, (5, 15, 10, 10)], [(5, 5, 10, 20)], 0, 0, 0, 0.5, 1 / 3, id="C: one covers both"),
        pytest.param([ONE], [], 0, 0, 0, 0, 0, id="D: nothing predicted"),
        pytest.param([], [ONE], 0, 0, 0, 0, 0, id="E: nothing to find"),
        pytest.param([], [], nan, nan, nan, nan, nan, id="F: nothing at all"),
        pytest.param([ONE, OTHER, THIRD], [ONE, OTHER, THIRD], 0.9999997, 1, 0.9999997, 1, 1, id="G: perfect"),
    ],
)
def test_published_vectors(boxes, truth, prediction, pq, dq, sq, a, a_plus):
    overlap = Overlap.from_labels(boxes(*truth), boxes(*prediction))
    assert panoptic_quality(overlap) == pytest.approx((pq, dq, sq), abs=5e-8, nan_ok=True)
    assert (aji(overlap), aji_plus(overlap)) == pytest.approx((a, a_plus), abs=1e-12, nan_ok=True)


def _brute_force(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """The definitions, mask by mask."""
    ts = [truth == i for i in np.unique(truth) if i]
    ps = [prediction == i for i in np.unique(prediction) if i]
    inter = np.array([[(t & p).sum() for p in ps] for t in ts])
    union = np.array([[(t | p).sum() for p in ps] for t in ts])
    iou = inter / union
    pairs = [(i, j) for i, j in np.argwhere(iou > 0.5)]
    used, top, bottom = set(), 0, 0
    for i in range(len(ts)):
        j = int(iou[i].argmax())
        if iou[i, j] > 0:
            used.add(j)
            top, bottom = top + inter[i, j], bottom + union[i, j]
        else:
            bottom += ts[i].sum()
    bottom += sum(p.sum() for j, p in enumerate(ps) if j not in used)
    covers = [[iou[i, j] for j in range(len(ps)) if inter[i, j] > 0.5 * ts[i].sum()] for i in range(len(ts))]

    def one_way(xs, ys, table):
        total = sum(x.sum() for x in xs)
        best = [max(range(len(ys)), key=lambda j: (table[i][j], -ys[j].sum())) for i in range(len(xs))]
        return sum(
            2 * table[i][b] / (x.sum() + ys[b].sum()) * x.sum() / total for i, (x, b) in enumerate(zip(xs, best))
        )

    return {
        "dq": 2 * len(pairs) / (len(ts) + len(ps)),
        "sq": sum(iou[i, j] for i, j in pairs) / (len(pairs) + 1e-6),
        "aji": top / bottom,
        "seg": float(np.mean([max(c, default=0) for c in covers])),
        "object_dice": 0.5 * (one_way(ts, ps, inter) + one_way(ps, ts, inter.T)),
        "f1_70": 2 * (iou > 0.7).sum() / (len(ts) + len(ps)),
        "pixel_dice": 2 * ((truth > 0) & (prediction > 0)).sum() / ((truth > 0).sum() + (prediction > 0).sum()),
    }


@pytest.mark.parametrize("seed", [11, 21, 31, 41])
def test_every_figure_equals_its_definition_computed_mask_by_mask(crowd, seed):
    truth, prediction = crowd(seed), crowd(seed + 1)
    scores = score_labels(truth, prediction)
    for name, value in _brute_force(truth, prediction).items():
        assert scores[name] == pytest.approx(value, abs=1e-12), name


def test_ids_order_and_transposition_change_nothing(crowd):
    truth, prediction = crowd(11), crowd(12)
    names = np.random.default_rng(0).permutation(5000) + 1
    names[0] = 0
    expected = score_labels(truth, prediction)
    assert score_labels(names[truth], prediction) == pytest.approx(expected, abs=1e-12)
    assert score_labels(truth.T, names[prediction].T) == pytest.approx(expected, abs=1e-12)


def test_swapping_truth_and_prediction_changes_aji_but_not_pq(boxes):
    truth, prediction = boxes(ONE, (5, 15, 10, 10), OTHER), boxes((5, 5, 10, 20), (30, 32, 10, 10))
    there, back = Overlap.from_labels(truth, prediction), Overlap.from_labels(prediction, truth)
    assert panoptic_quality(there) == pytest.approx(panoptic_quality(back))
    assert aji(there) != pytest.approx(aji(back), abs=0.01)


def test_two_objects_one_found_exactly_as_in_the_densesam_digest(boxes):
    overlap = Overlap.from_labels(boxes((5, 5, 1, 10), (20, 5, 1, 10)), boxes((5, 5, 1, 10)))
    assert (aji(overlap), aji_plus(overlap), object_dice(overlap)) == (0.5, 0.5, 0.75)
    assert panoptic_quality(overlap).pq == pytest.approx(2 / 3, abs=1e-6)


def test_two_squares_as_in_the_centersam_digest(boxes):
    overlap = Overlap.from_labels(boxes(ONE, OTHER), boxes((5, 7, 10, 10), (50, 50, 10, 10)))
    assert (f1(overlap), seg(overlap), aji(overlap)) == pytest.approx((0.5, 1 / 3, 0.25), abs=1e-12)


def test_seg_counts_only_what_is_covered_by_more_than_half(boxes):
    half = Overlap.from_labels(boxes(ONE), boxes((5, 5, 10, 5)))
    more = Overlap.from_labels(boxes(ONE), boxes((5, 5, 10, 6)))
    assert (seg(half), seg(more)) == (0.0, 0.6)
    assert isnan(seg(Overlap.from_labels(boxes(), boxes(ONE))))


def test_f1_at_thresholds_drops_where_the_iou_is_no_longer_higher(boxes):
    truth, prediction = boxes(ONE), boxes((5, 5, 10, 8))
    scores = score_labels(truth, prediction, thresholds=(0.5, 0.75, 0.8, 0.9))
    assert [scores[f"f1_{t}"] for t in (50, 75, 80, 90)] == [1.0, 1.0, 0.0, 0.0]


def test_below_one_half_the_assignment_comes_before_the_threshold():
    # IoU 0.4 on the diagonal pair (0, 0), 0.25 and 0.25 on the two others: the assignment prefers these two.
    truth, prediction = np.zeros((1, 40), int), np.zeros((1, 40), int)
    overlap = Overlap(
        np.arange(2),
        np.arange(2),
        np.full(2, 10.0),
        np.full(2, 10.0),
        np.array([0, 0, 1]),
        np.array([0, 1, 0]),
        np.array([40 / 7, 4.0, 4.0]),
        (0.0, 0.0, 0.0),
        float(truth.size + prediction.size),
    )
    assert overlap.iou == pytest.approx([0.4, 0.25, 0.25])
    assert matched_pairs(overlap, 0.3).tolist() == []
    assert matched_pairs(overlap, 0.2).tolist() == [1, 2]


def test_overlapping_predictions_match_one_truth_only_once():
    overlap = Overlap(
        np.arange(1),
        np.arange(2),
        np.array([10.0]),
        np.array([9.0, 8.0]),
        np.zeros(2, np.int64),
        np.arange(2),
        np.array([8.0, 8.0]),
        (10.0, 10.0, 10.0),
    )
    counts = match_counts(overlap)
    assert (counts.tp, counts.fp, counts.fn, counts.iou) == (1, 1, 0, 0.8)


def test_one_sided_images_score_zero_and_empty_ones_nothing(boxes):
    missed, invented, empty = (score_labels(boxes(*t), boxes(*p)) for t, p in (([ONE], []), ([], [ONE]), ([], [])))
    names = ("f1_50", "precision_50", "recall_50", "object_dice", "aji", "aji_plus", "pq")
    assert [missed[n] for n in names] == [invented[n] for n in names] == [0.0] * len(names)
    assert all(isnan(empty[n]) for n in names)
    assert (missed["pixel_dice"], invented["pixel_dice"], empty["pixel_dice"]) == (0.0, 0.0, 1.0)


def test_counts_of_images_add_up_to_pooled_figures():
    pooled = Counts(3, 1, 0, 2.4) + Counts(1, 0, 3, 0.6)
    assert pooled.f1 == 8 / 12
    assert panoptic_quality(pooled).pq == pytest.approx(3.0 / 6, abs=1e-6)


def test_fragments_of_a_real_annotation_score_one_against_themselves(data):
    from gigaseg.metrics.images import read_labels

    labels = read_labels(data / "monuseg" / "labels" / "TCGA-18-5592-01Z-00-DX1.png").labels
    scores = score_labels(labels, labels)
    assert scores["truth_objects"] == 531
    assert [scores[n] for n in ("pixel_iou", "aji", "aji_plus", "seg", "object_dice", "f1_90")] == [1.0] * 6
