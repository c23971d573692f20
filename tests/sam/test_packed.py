"""Masks in one buffer: a sequence of them, and the picture in which the higher score keeps shared pixels."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gigaseg.sam.packed import PackedMasks, label_map, to_instances

HEIGHT, WIDTH = 12, 15


@st.composite
def overlapping(draw):
    """Boxes in a tile, masks of them, some empty, and scores with ties."""
    n = draw(st.integers(0, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    low = rng.integers(0, [WIDTH - 1, HEIGHT - 1], (n, 2))
    high = low + 1 + rng.integers(0, [WIDTH, HEIGHT], (n, 2)) % ([WIDTH, HEIGHT] - low)
    masks = [torch.from_numpy(rng.random((y1 - y0, x1 - x0)) < 0.8) for (x0, y0), (x1, y1) in zip(low, high)]
    scores = rng.choice([0.2, 0.5, 0.9], n).astype(np.float32)
    return np.concatenate([low, high], 1).astype(np.int32).reshape(n, 4), masks, scores


@settings(max_examples=200, deadline=None)
@given(overlapping(), st.integers(1, HEIGHT), st.integers(1, WIDTH))
def test_the_higher_score_keeps_a_pixel_and_the_earlier_among_equals(found, height, width):
    boxes, masks, scores = found
    expected = np.zeros((HEIGHT, WIDTH), np.int32)
    for i in sorted(range(len(masks)), key=lambda i: (scores[i], -i)):
        x0, y0, x1, y1 = boxes[i]
        expected[y0:y1, x0:x1][masks[i].numpy()] = i + 1
    packed = PackedMasks.of(torch.from_numpy(boxes), masks, torch.from_numpy(scores))
    labels, pixels = label_map(packed, (height, width))
    np.testing.assert_array_equal(labels.numpy(), expected[:height, :width])
    inside = [m[: max(0, height - y), : max(0, width - x)].sum() for m, (x, y) in zip(masks, boxes[:, :2])]
    assert pixels.tolist() == [int(n) for n in inside]


def test_a_pack_is_a_sequence_of_its_masks():
    boxes = torch.tensor([[0, 0, 2, 1], [3, 3, 4, 6]], dtype=torch.int32)
    masks = [torch.tensor([[True, False]]), torch.tensor([[True], [True], [False]])]
    packed = PackedMasks.of(boxes, masks, torch.tensor([0.1, 0.7]))
    assert len(packed) == 2
    assert [mask.tolist() for mask in packed] == [mask.tolist() for mask in masks]
    assert packed[1].tolist() == masks[1].tolist()
    again = PackedMasks.of(boxes, packed, torch.tensor([0.5, 0.6]))
    assert again.bits is packed.bits
    assert again.scores.tolist() == torch.tensor([0.5, 0.6]).tolist()


def test_instances_of_a_batch_keep_their_order_and_have_scores_that_are_scores():
    boxes = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0], [2, 2, 3, 3], [4, 4, 5, 5]], dtype=torch.int32)
    bits = torch.ones(3, dtype=torch.bool)
    masks = PackedMasks(boxes, bits, torch.tensor([0, 0, 1, 2]), torch.tensor([1.2, 0.9, -0.1, 0.4]))
    prob = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.3, 0.7], [0.0, 1.0]])
    first, second, third = to_instances(masks, torch.tensor([1, 0, 0, 1]), 3, prob)
    assert first.boxes.tolist() == [[2, 2, 3, 3]]
    assert first.scores.tolist() == [0.0]
    assert second.boxes.tolist() == [[0, 0, 1, 1], [4, 4, 5, 5]]
    assert second.scores.tolist() == [1.0, torch.tensor(0.4).item()]
    assert second.class_prob.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert len(third.masks) == len(third.boxes) == 0
