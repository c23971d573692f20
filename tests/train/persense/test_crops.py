"""Crops from which objects are removed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gigaseg.train.crops import affine, crop
from gigaseg.train.persense.crops import MOST, thinned


@pytest.fixture
def whole(discs_apart):
    sample = discs_apart[0][1]
    return crop(sample, affine(1.0, 0.0, False, (56.0, 56.0), 112), 112, np.random.default_rng(0), min_area=1)


def test_few_objects_stay_or_none_and_the_others_are_gone_from_picture_and_labels(whole):
    assert len(whole.ids) == 4
    numbers = []
    for seed in range(60):
        found = thinned(whole, np.random.default_rng(seed))
        numbers.append(len(found.ids))
        assert set(found.labels.unique().tolist()) - {0} == set(found.ids.tolist())
        assert len(found.centres) == len(found.ids)
        kept = torch.isin(whole.labels, found.ids)
        assert torch.equal(found.image[:, kept], whole.image[:, kept])
        removed = (whole.labels > 0) & ~kept
        assert float(found.image[1, removed].max()) < 60 < float(whole.image[1, removed].min())
    assert set(numbers) == set(range(MOST + 1))
    assert 20 < numbers.count(0) < 50


def test_the_background_stays_in_most_and_what_fills_is_flat_to_noisy(whole):
    far = whole.labels == 0
    same = [
        float((thinned(whole, np.random.default_rng(s)).image == whole.image)[:, far].float().mean()) for s in range(60)
    ]
    assert 10 < sum(share < 0.1 for share in same) < 30
    assert all(share < 0.1 or share > 0.7 for share in same)
    gone = whole.labels > 0
    noise = [
        float(found.image[1, gone].std())
        for found in (thinned(whole, np.random.default_rng(seed)) for seed in range(60))
        if not len(found.ids)
    ]
    assert min(noise) < 1 < 3 < max(noise) < 6


def test_a_crop_full_of_one_object_or_without_any_can_be_thinned(whole):
    full = replace(whole, labels=torch.ones_like(whole.labels))[torch.tensor([0])]
    full = replace(full, ids=torch.tensor([1], dtype=torch.int32))
    empty = replace(whole, labels=torch.zeros_like(whole.labels))[torch.zeros(0, dtype=torch.int64)]
    for seed in range(8):
        assert thinned(full, np.random.default_rng(seed)).image.isfinite().all()
        found = thinned(empty, np.random.default_rng(seed))
        assert found.image.isfinite().all()
        assert len(found.ids) == 0
