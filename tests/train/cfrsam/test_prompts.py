"""Points that prompt in training: on which object each lies, and who gets which."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gigaseg.segmenters.base import Proposals
from gigaseg.train.batches import Batch
from gigaseg.train.cfrsam.prompts import prompt_points, told_points


def batch(*labels, ids):
    """Crops with these label images, of which `ids` (crop, number) are listed."""
    labels = torch.from_numpy(np.stack(labels).astype(np.int32))
    n = len(ids)
    rows = torch.tensor(ids, dtype=torch.int64).view(n, 2)
    places = torch.arange(2.0 * n).view(n, 2)
    return Batch(
        torch.zeros(len(labels), 3, *labels.shape[1:]), labels, rows[:, 0], rows[:, 1].int(), torch.zeros(n, 4),
        centres=places + 100, inside=places + 200, classes=torch.zeros(n, dtype=torch.int64),
    )  # fmt: skip


def found(*points):
    """Proposals from x, y, score."""
    rows = np.array(points, float).reshape(len(points), 3)
    return Proposals(rows[:, :2], rows[:, 2].astype(np.float32), np.ones((len(points), 1), np.float32))


def two_objects():
    labels = np.zeros((16, 16), np.int32)
    labels[2:6, 2:6] = 7
    labels[2:6, 6:10] = 4  # touches the first one
    return labels


def test_the_likeliest_point_on_each_object_and_nothing_where_none_lies():
    crops = batch(two_objects(), np.zeros((16, 16)), two_objects(), ids=[(0, 4), (0, 7), (2, 4), (2, 7), (2, 9)])
    told = told_points(
        crops,
        [
            found((3, 3, 0.2), (4, 4.5, 0.8), (5, 2.5, 0.5), (12, 12, 0.9)),
            found((4, 4, 0.9)),
            found((8, 3, 0.4)),
        ],
    )
    assert told[0].isnan().all()
    assert told[1].tolist() == [4.0, 4.5]
    assert told[2].tolist() == [8.0, 3.0]
    assert told[3:].isnan().all()


def test_of_equally_likely_points_the_first_counts():
    told = told_points(batch(two_objects(), ids=[(0, 7)]), [found((3, 3, 0.5), (4, 4, 0.5))])
    assert told.tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize(
    ("point", "number"),
    [((5.999, 3.0), 7), ((6.0, 3.0), 4), ((2.0, 2.0), 7), ((1.999, 3.0), 0), ((9.999, 5.999), 4), ((6.0, 6.0), 0)],
)
def test_borders_are_where_pixels_end(point, number):
    told = told_points(batch(two_objects(), ids=[(0, 4), (0, 7)]), [found((*point, 0.5))])
    assert [k for k, p in zip((4, 7), told) if p.isfinite().all()] == ([number] if number else [])


def test_points_on_the_crop_s_last_border_belong_to_its_last_pixels():
    labels = np.ones((16, 16), np.int32)
    told = told_points(batch(labels, ids=[(0, 1)]), [found((16.0, 16.0, 0.5))])
    assert told.tolist() == [[16.0, 16.0]]


def test_without_points_or_objects_nothing_is_told():
    assert told_points(batch(two_objects(), ids=[(0, 4)]), [found()]).isnan().all()
    assert told_points(batch(two_objects(), ids=[]), [found((3, 3, 0.5))]).shape == (0, 2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(0, 12))
def test_they_are_those_that_a_loop_finds(seed, n):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (2, 4, 4)).repeat(4, 1).repeat(4, 2)
    some = [found(*np.column_stack([rng.uniform(0, 16, (n, 2)), rng.random(n)])) for _ in range(2)]
    ids = [(i, k) for i in range(2) for k in range(1, 5)]
    told = told_points(batch(*labels, ids=ids), some)
    for (i, k), point in zip(ids, told):
        on = [r for r, (x, y) in enumerate(some[i].xy) if labels[i][int(y), int(x)] == k]
        if on:
            best = max(on, key=lambda r: some[i].score[r])
            np.testing.assert_allclose(point, some[i].xy[best], rtol=1e-6)
        else:
            assert point.isnan().all()


def test_shares_decide_which_point_an_object_gets():
    crops = batch(np.zeros((8, 8)), ids=[(0, k) for k in range(400)])
    told = crops.centres - 100
    told[::4] = torch.nan
    for share, random in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.5), (0.5, 0.5)):
        rows, points = prompt_points(crops, told, share, random, np.random.default_rng(0))
        kind = [int((p[0] - 2 * r) // 100) for r, p in zip(rows.tolist(), points)]
        counts = np.bincount(kind, minlength=3) / 400  # told, middle, random
        lost = 1 - len(rows) / 400
        assert lost == pytest.approx(share / 4, abs=0.05), "those that the learner misses are left out"
        expected = [share * 3 / 4, (1 - share) * (1 - random), (1 - share) * random]
        np.testing.assert_allclose(counts, expected, atol=0.06)
        assert rows.tolist() == sorted(rows.tolist())
    rows, points = prompt_points(crops, None, 1.0, 0.0, np.random.default_rng(0))
    assert torch.equal(points, crops.centres), "without a learner nothing can be told"
    assert len(rows) == 400
