"""The fast decoder equals segment-anything's, and a window of it what that sees of the window."""

import dataclasses

import pytest
import torch

from gigaseg.sam.decoder import decode
from gigaseg.sam.encoder import Encoded
from gigaseg.sam.prompting import PromptSets, box_sets, concatenate, point_sets
from sam_reference import KINDS, decoder_of, reference, some_sets

GRIDS = {"square": (8, 8), "wide": (6, 11)}


@pytest.fixture(scope="module", params=["tiny", "small", "vit_b"])
def any_model(request):
    return decoder_of(request.param)


@pytest.fixture(scope="module")
def model():
    return decoder_of("tiny")


def embedding_of(model, grid, images=2, seed=3):
    channels = model.mask_decoder.transformer_dim
    return torch.randn(images, channels, *grid, generator=torch.Generator().manual_seed(seed))


def patch_of(model):
    return model.image_encoder.patch_embed.proj.stride[0]


def close(found, expected, tolerance=1e-4):
    assert found.shape == expected.shape
    assert expected.numel() == 1 or expected.std() > 0.03, "nothing to compare"
    assert (found - expected).abs().max() <= tolerance * max(1, float(expected.detach().abs().max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@torch.no_grad()
def test_decoding_a_flat_batch_equals_the_reference_image_by_image(any_model, grid, kind):
    sets = some_sets(kind, grid, patch_of(any_model))
    embedding = embedding_of(any_model, grid)
    for multimask in (False, True):
        logits, quality = reference(any_model, embedding, sets, multimask=multimask)
        found = decode(any_model, Encoded(embedding), sets, multimask=multimask)
        close(found.logits, logits)
        close(found.quality, quality)
        assert found.logits.dtype == torch.float32
        assert (found.origin == 0).all()


@torch.no_grad()
def test_half_precision_gives_the_same_masks_but_for_pixels_at_the_threshold(any_model):
    sets = some_sets("both", (8, 8), patch_of(any_model))
    embedding = embedding_of(any_model, (8, 8))
    expected = decode(any_model, Encoded(embedding), sets).logits
    with torch.autocast("cpu", torch.bfloat16):
        found = decode(any_model, Encoded(embedding), sets).logits
    assert found.dtype == torch.float32
    ours, theirs = found > 0, expected > 0
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.97
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("kind", ["points", "boxes", "all"])
@torch.no_grad()
def test_a_window_as_large_as_the_grid_equals_full_decoding(model, kind):
    sets = some_sets(kind, (6, 11), 8)
    embedding = embedding_of(model, (6, 11))
    full = decode(model, Encoded(embedding), sets, multimask=True)
    for window in (11, 30):
        local = decode(model, Encoded(embedding), sets, multimask=True, window=window)
        close(local.logits, full.logits)
        assert (local.origin == 0).all()


@pytest.mark.parametrize("kind", ["points", "boxes", "all"])
@torch.no_grad()
def test_a_window_sees_its_cells_at_their_positions_in_an_image_of_the_models_own_size(model, kind):
    sets = some_sets(kind, (8, 8), 8)
    embedding = embedding_of(model, (8, 8))
    found = decode(model, Encoded(embedding), sets, window=4)
    assert found.logits.shape == (6, 1, 16, 16)
    assert len(set(map(tuple, found.origin.tolist()))) > 2
    for i in range(6):
        window = cells(found.origin[i], 4)
        close_to_the_reference(model, found, i, sets, embedding, window, window)


@pytest.mark.parametrize("kind", ["points", "boxes", "all"])
@torch.no_grad()
def test_in_an_image_of_another_size_a_window_stands_in_the_middle_of_one_of_that_size(model, kind):
    sets = some_sets(kind, (10, 12), 8)
    embedding = embedding_of(model, (10, 12))
    found = decode(model, Encoded(embedding), sets, window=4)
    middle = cells(torch.tensor([8, 8]), 4)
    for i in range(6):
        shift = (8 - found.origin[i].float()) * 2  # a low-res px is 2 input px, the middle window's first is (8, 8)
        moved = dataclasses.replace(
            sets, points=sets.points + shift, boxes=None if sets.boxes is None else sets.boxes + shift.repeat(2)
        )
        close_to_the_reference(model, found, i, moved, embedding, cells(found.origin[i], 4), middle)


@torch.no_grad()
def test_a_mask_does_not_depend_on_where_in_a_larger_image_its_object_lies(model):
    scene = embedding_of(model, (6, 6), images=1)
    masks = []
    for y, x in ((0, 0), (7, 10), (3, 5)):
        embedding = torch.zeros(1, scene.shape[1], 16, 20)
        embedding[:, :, y : y + 6, x : x + 6] = scene
        box = torch.tensor([[12.0, 15.0, 30.0, 33.0]]) + 8 * torch.tensor([x, y, x, y])
        masks.append(decode(model, Encoded(embedding), box_sets(torch.zeros(1).long(), box), window=4))
    for other in masks[1:]:
        close(other.logits, masks[0].logits)
        close(other.quality, masks[0].quality)


def cells(origin, side):
    """Index of a window's cells, from its origin in low-res px."""
    x, y = (origin // 4).tolist()
    assert (origin % 4 == 0).all()
    return (..., slice(y, y + side), slice(x, x + side))


def close_to_the_reference(model, found, i, sets, embedding, window, place):
    """Prompt `i` decoded by the reference modules, the cells in `window` at the positions in `place`."""
    one = sets[torch.tensor([i])]
    points = (one.points, one.labels) if one.points.shape[1] else None
    prompts = model.prompt_encoder
    sparse, none = prompts(points, one.boxes, None)
    dense = none[place] if one.masks is None else prompts._embed_masks(one.masks)[window]
    positions = prompts.get_dense_pe()[place]
    logits, quality = model.mask_decoder(embedding[one.image][window], positions, sparse, dense, False)
    close(found.logits[i], logits[0])
    assert torch.allclose(found.quality[i], quality[0], atol=1e-5)


@torch.no_grad()
def test_what_a_prompt_yields_does_not_depend_on_the_others(model):
    sets = concatenate([some_sets("both", (8, 8), 8, images=1), some_sets("both", (8, 8), 8, images=1, seed=5)])
    sets = dataclasses.replace(sets, image=torch.tensor([0, 0, 0, 1, 1, 1]))
    sets.boxes[2] = torch.nan  # without a box: other tokens, other group
    embedding = embedding_of(model, (8, 8))
    for window in (None, 4):
        together = decode(model, Encoded(embedding), sets, window=window, features=True)
        for i in range(6):
            alone = decode(model, Encoded(embedding), sets[torch.tensor([i])], window=window, features=True)
            close(together.logits[i], alone.logits[0], 1e-5)
            close(together.features[i], alone.features[0], 1e-5)
            assert torch.equal(together.origin[i], alone.origin[0])


@pytest.mark.parametrize("window", [None, 4])
@torch.no_grad()
def test_the_result_does_not_depend_on_the_chunk(model, window):
    sets = some_sets("points", (8, 8), 8, each=7)
    embedding = embedding_of(model, (8, 8))
    expected = decode(model, Encoded(embedding), sets, window=window, features=True)
    for chunk in (1, 3, 100):
        found = decode(model, Encoded(embedding), sets, window=window, chunk=chunk, features=True)
        close(found.logits, expected.logits, 1e-5)
        close(found.features, expected.features, 1e-5)
        close(found.quality, expected.quality, 1e-5)


def test_features_times_the_mask_weights_are_the_logits(model):
    sets = some_sets("points", (8, 8), 8)
    embedding = embedding_of(model, (8, 8))
    kept = []
    handle = model.mask_decoder.output_upscaling.register_forward_hook(lambda _m, _i, out: kept.append(out))
    reference(model, embedding, sets)
    handle.remove()
    found = decode(model, Encoded(embedding), sets, features=True)
    assert found.features.shape == (6, 4, 32, 32)
    close(found.features, torch.cat(kept))
    with torch.no_grad():
        close(decode(model, Encoded(embedding), sets, features=True).features, torch.cat(kept))


def test_no_prompts_give_nothing_of_the_right_shape(model):
    none = point_sets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2))
    found = decode(model, Encoded(embedding_of(model, (8, 6))), none, multimask=True, features=True)
    assert found.logits.shape == (0, 3, 32, 24)
    assert found.quality.shape == (0, 3)
    assert found.features.shape == (0, 4, 32, 24)
    local = decode(model, Encoded(embedding_of(model, (8, 6))), none, window=4)
    assert local.logits.shape == (0, 1, 16, 16)
    assert local.origin.shape == (0, 2)


def test_a_set_without_any_prompt_is_decoded_as_the_reference_does(model):
    empty = PromptSets(torch.tensor([0, 1]), torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.int8))
    embedding = embedding_of(model, (8, 8))
    close(decode(model, Encoded(embedding), empty).logits, reference(model, embedding, empty)[0])


@pytest.mark.parametrize("kind", ["points", "boxes", "all"])
@pytest.mark.parametrize("window", [None, 8], ids=["full", "window"])
def test_gradients_equal_the_reference(model, kind, window):
    sets = some_sets(kind, (8, 8), 8)
    embedding = embedding_of(model, (8, 8)).requires_grad_()
    leaves = {"embedding": embedding}
    leaves |= {k: v for k, v in model.named_parameters() if not k.startswith("image_encoder")}
    if sets.masks is not None:
        leaves["masks"] = sets.masks.requires_grad_()

    def gradients(logits, quality):
        weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
        loss = (weight * logits).sum() + quality.square().sum()
        return torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)

    expected = gradients(*reference(model, embedding, sets, multimask=True))
    found = decode(model, Encoded(embedding), sets, multimask=True, window=window)
    compared = 0
    for name, ours, theirs in zip(leaves, gradients(found.logits, found.quality), expected):
        size = 0 if theirs is None else float(theirs.abs().max())
        if ours is None:  # not used, or the bias of keys, which no softmax feels
            assert size < 1e-3, name
        elif theirs is not None:
            assert (ours - theirs).abs().max() <= 1e-3 * max(1, size), name
            compared += size > 0.01
    assert compared > 40


def test_training_in_half_precision_reaches_every_parameter_that_the_reference_trains(model):
    sets = some_sets("points", (8, 8), 8)
    embedding = embedding_of(model, (8, 8)).requires_grad_()
    full = torch.autograd.grad(decode(model, Encoded(embedding), sets, window=4).logits.square().mean(), embedding)[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = decode(model, Encoded(embedding), sets, window=4).logits.square().mean()
    half = torch.autograd.grad(loss, embedding)[0]
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.1 * full.norm()
