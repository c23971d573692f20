"""Prompts of many images as one batch, embedded as the reference does."""

import dataclasses

import pytest
import torch

from gigaseg.sam.prompting import PromptSets, box_sets, concatenate, embed_prompts, grid_positions, groups, point_sets
from sam_reference import KINDS, decoder_of, some_sets


@pytest.fixture(scope="module")
def model():
    return decoder_of("tiny")


@pytest.mark.parametrize("kind", KINDS)
def test_embedding_equals_the_reference_prompt_encoder(model, kind):
    sets = some_sets(kind, (6, 10), 8)
    prompts = model.prompt_encoder
    kept = prompts.image_embedding_size, prompts.input_image_size
    prompts.image_embedding_size, prompts.input_image_size = (6, 10), (48, 80)
    try:
        points = (sets.points, sets.labels) if sets.points.shape[1] else None
        sparse, dense = prompts(points, sets.boxes, sets.masks)
        positions = prompts.get_dense_pe()
    finally:
        prompts.image_embedding_size, prompts.input_image_size = kept
    own_sparse, own_dense = embed_prompts(model, sets, (48, 80))
    assert torch.equal(own_sparse, sparse)
    assert torch.equal(own_dense.expand_as(dense), dense)
    assert torch.equal(grid_positions(model, (6, 10)), positions[0].flatten(1).T)


def test_positions_are_no_coarser_under_autocast(model):
    sets = some_sets("both", (6, 10), 8)
    expected, _ = embed_prompts(model, sets, (48, 80))
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = embed_prompts(model, sets, (48, 80))
        positions = grid_positions(model, (6, 10))
    assert torch.equal(found, expected)
    assert torch.equal(positions, grid_positions(model, (6, 10)))


def test_no_prompts_have_no_tokens_but_a_shape(model):
    none = point_sets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2))
    assert embed_prompts(model, none, (64, 64))[0].shape == (0, 2, 32)
    empty = PromptSets(torch.zeros(3, dtype=torch.int64), torch.zeros(3, 0, 2), torch.zeros(3, 0, dtype=torch.int8))
    assert embed_prompts(model, empty, (64, 64))[0].shape == (3, 0, 32)


def test_sets_with_and_without_a_box_must_be_split_first(model):
    sets = some_sets("both", (8, 8), 8)
    sets.boxes[1] = torch.nan
    with pytest.raises(ValueError, match="groups"):
        embed_prompts(model, sets, (64, 64))
    parts = groups(sets)
    assert sorted(index.tolist() for index, _ in parts) == [[0, 2, 3, 4, 5], [1]]
    for index, part in parts:
        embed_prompts(model, part, (64, 64))
        assert torch.equal(part.image, sets.image[index])
        assert torch.equal(part.points, sets.points[index])


def test_without_padding_sets_keep_their_real_points_in_order():
    points = torch.arange(18.0).view(3, 3, 2)
    points[0, 1] = torch.nan
    labels = torch.tensor([[1, -1, 0], [1, 0, 1], [-1, 0, 1]], dtype=torch.int8)
    sets = PromptSets(torch.tensor([0, 0, 1]), points, labels)
    parts = {tuple(index.tolist()): part for index, part in groups(sets, drop_padding=True)}
    assert parts.keys() == {(0, 2), (1,)}
    assert parts[0, 2].points.tolist() == [[[0, 1], [4, 5]], [[14, 15], [16, 17]]]
    assert parts[0, 2].labels.tolist() == [[1, 0], [0, 1]]
    assert torch.equal(parts[1,].points, points[1:2])


def test_concatenated_sets_are_padded_and_come_apart_again():
    one = point_sets(torch.tensor([0]), torch.tensor([[3.0, 4.0]]))
    box = box_sets(torch.tensor([1]), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    three = dataclasses.replace(some_sets("points", (8, 8), 8, images=1, each=2), image=torch.tensor([2, 2]))
    whole = concatenate([one, box, three])
    assert whole.points.shape == (4, 3, 2)
    assert whole.labels[:2].tolist() == [[1, -1, -1], [-1, -1, -1]]
    parts = {tuple(index.tolist()): part for index, part in groups(whole, drop_padding=True)}
    assert torch.equal(parts[0,].points, one.points)
    assert torch.equal(parts[1,].boxes, box.boxes)
    assert parts[1,].points.shape[1] == 0
    assert torch.equal(parts[2, 3].points, three.points)
