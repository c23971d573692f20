"""Guidance inside the decoder."""

import pytest
import torch

from gigaseg.sam.prompting import box_sets, embed_prompts, point_sets
from gigaseg.segmenters.persense.guidance import Guidance, guided_masks
from gigaseg.segmenters.persense.target import Target
from sam_reference import TINY, decoder_of

NONE = Guidance(None, None)


@pytest.fixture(scope="module")
def model():
    return decoder_of("tiny").eval()


@pytest.fixture(scope="module")
def features():
    torch.manual_seed(2)
    return torch.randn(TINY.prompt_dim, 8, 8)


def points():
    return point_sets(torch.zeros(3, dtype=torch.int64), torch.tensor([[5.0, 9.0], [40.0, 40.0], [63.0, 1.0]]))


def boxes():
    return box_sets(torch.zeros(2, dtype=torch.int64), torch.tensor([[5.0, 9.0, 20.0, 30.0], [0.0, 0.0, 63.0, 63.0]]))


@pytest.mark.parametrize("sets", [points, boxes])
def test_without_guidance_it_is_sams_own_decoder_bit_for_bit(model, features, sets):
    found = guided_masks(model, features, sets(), NONE)
    with torch.inference_mode():
        sparse, dense = embed_prompts(model, sets(), (64, 64))
        place = model.prompt_encoder.pe_layer((8, 8))[None]
        logits, quality = model.mask_decoder(features[None], place, sparse, dense.expand(-1, -1, 8, 8), True)
    assert torch.equal(found.logits, logits)
    assert torch.equal(found.quality, quality)


def test_a_constant_added_to_the_attention_changes_nothing(model, features):
    bias = torch.rand(64)
    one, other = (guided_masks(model, features, points(), Guidance(added, None)).logits for added in (bias, bias + 3))
    assert torch.allclose(one, other, atol=1e-4)


def test_guidance_changes_what_is_found(model, features):
    target = Target.of(features, torch.ones(64, 64, dtype=torch.bool).numpy())
    guidance = Guidance.of(features, target)
    plain = guided_masks(model, features, points(), NONE).logits
    for some in (guidance, Guidance(guidance.attention, None), Guidance(None, guidance.semantic)):
        assert not torch.allclose(guided_masks(model, features, points(), some).logits, plain, atol=1e-3)


def test_guidance_is_highest_where_the_target_is(features):
    shown = torch.zeros(64, 64, dtype=torch.bool)
    shown[16:24, 40:48] = True
    guidance = Guidance.of(features, Target.of(features, shown.numpy()))
    assert int(guidance.attention.argmax()) == 2 * 8 + 5
    assert bool(((guidance.attention > 0) & (guidance.attention < 1)).all())
