"""Batches follow from their number: for any number of threads, after any interruption, over any number of processes."""

import itertools

import numpy as np
import pytest
import torch

from gigaseg.train.batches import Feed, collate, epoch_order, weights
from gigaseg.train.crops import random_crop


def feed(samples, **keys):
    def prepare(sample, rng):
        return random_crop(sample, 48, rng, (10, 20))

    return Feed(samples, prepare, lambda items, rng: collate(items, 3, rng), **{"batch": 2, "seed": 5, **keys})


def same(one, two):
    return torch.equal(one.images, two.images) and torch.equal(one.ids, two.ids) and torch.equal(one.inside, two.inside)


def test_threads_and_interruptions_change_nothing(samples):
    plain = list(itertools.islice(feed(samples).batches(0), 5))
    threaded = list(itertools.islice(feed(samples).batches(0, workers=3), 5))
    resumed = list(itertools.islice(feed(samples).batches(3, workers=1), 2))
    assert all(same(a, b) for a, b in zip(plain, threaded, strict=True))
    assert all(same(a, b) for a, b in zip(plain[3:], resumed, strict=True))
    assert not same(plain[0], plain[1])


def test_two_processes_share_the_batch_of_one(samples):
    whole = next(feed(samples, batch=4).batches(0))
    halves = [next(feed(samples, rank=rank, world=2).batches(0)) for rank in (0, 1)]
    assert torch.equal(torch.cat([half.images for half in halves]), whole.images)


def test_an_epoch_takes_every_image_once_when_groups_are_left_as_they_are(samples):
    chance = weights(samples, 0.0)
    for epoch in range(3):
        assert sorted(epoch_order(chance, 1, epoch)) == list(range(5))
    assert epoch_order(chance, 1, 0).tolist() != epoch_order(chance, 1, 1).tolist()


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.6), (1.0, 0.5)])
def test_groups_come_as_often_as_the_balance_says(samples, balance, share):
    chance = weights(samples, balance)  # groups a, b, a, b, a
    assert chance.sum() == pytest.approx(1)
    drawn = np.concatenate([epoch_order(chance, 0, epoch) for epoch in range(400)])
    assert np.mean(drawn % 2 == 0) == pytest.approx(share, abs=0.03)


def test_joined_crops_keep_few_objects_and_know_their_crop(samples):
    crops = [random_crop(s, 64, np.random.default_rng(1), (10, 12)) for s in samples]
    found = collate(crops, 3, np.random.default_rng(0))
    assert found.image.tolist() == sorted(found.image.tolist())
    assert torch.bincount(found.image).max() == 3
    for number, place, (x, y) in zip(found.ids, found.image, found.inside):
        assert found.labels[place, int(y), int(x)] == number
    assert found[torch.tensor([1, 4])].ids.tolist() == found.ids[[1, 4]].tolist()
