"""DenseSAM's forward pass: parameter counts of the paper, and what its options change."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gigaseg.errors import CheckpointError
from gigaseg.sam.config import CONFIGS, SamConfig
from gigaseg.sam.encoder import encode, normalise
from gigaseg.sam.model import build
from gigaseg.segmenters.densesam.config import DenseSamConfig
from gigaseg.segmenters.densesam.injection import Injection
from gigaseg.segmenters.densesam.model import Dense, dense_maps
from gigaseg.train.densesam.method import trainable
from sam_models import random_model

TINY = SamConfig("tiny", 64, 8, 48, 2, 2, 4, (1,), 2.0, 32, decoder_heads=2, decoder_mlp=64, iou_hidden=16)


def trained(config, name):
    with torch.device("meta"):
        dense = Dense(config, CONFIGS[name])
    return sum(p.numel() for p in dense.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("name", "dual", "single"),
    [("vit_b", 1_403_456, 1_263_648), ("vit_l", 2_160_064, 2_020_256), ("vit_h", 3_113_280, 2_973_472)],
)
def test_as_many_parameters_train_as_in_the_paper(name, dual, single):
    assert trained(DenseSamConfig(), name) == dual  # 3.11M of Table 1
    assert trained(DenseSamConfig(heads=1), name) == single  # 2.97M of Table 2


def test_parameters_of_the_ablation_are_those_of_table_3():
    rows = [{"local_branch": False}, {"local_branch": False, "global_branch": False}]
    rows.append({**rows[1], "heads": 1})
    assert [trained(DenseSamConfig(**row), "vit_h") for row in rows] == [476_864, 279_872, 140_064]


def test_the_retrained_decoder_is_sam_s_with_one_mask_token():
    """3.63M of Table 3: 3,637,377 with an IoU head for one mask, which no loss reaches."""
    config = DenseSamConfig(heads=1, local_branch=False, global_branch=False, image_token_update=True)
    model = build(CONFIGS["vit_h"], "meta")
    with torch.device("meta"):
        model.densesam = Dense(config, CONFIGS["vit_h"])
    trainable(model, "decoder", update=True)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = sum(p.numel() for p in model.mask_decoder.iou_prediction_head.parameters()) - 3 * 257
    assert (count, count + head) == (3_505_536, 3_637_377)


@pytest.fixture(scope="module")
def sam():
    return random_model(TINY)


@pytest.fixture(scope="module")
def encoded(sam):
    images = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (3, 3, 48, 64)))
    with torch.no_grad():
        return encode(sam.image_encoder, normalise(images.float(), TINY), hidden=True)


def dense_of(sam, config, seed=0):
    torch.manual_seed(seed)
    dense = Dense(config, TINY)
    dense.start_from(sam, config.iou_token)
    return dense


@torch.no_grad()
def maps_of(sam, encoded, seed=0, **options):
    config = DenseSamConfig(**options)
    return dense_maps(sam, dense_of(sam, config, seed), config, encoded)


def test_two_maps_or_one_for_a_batch_without_prompts(sam, encoded):
    dual, single = maps_of(sam, encoded), maps_of(sam, encoded, heads=1)
    assert dual.logits.shape == (3, 2, 24, 32)
    assert single.logits.shape == (3, 1, 24, 32)
    alone = [
        maps_of(sam, type(encoded)(encoded.embedding[i : i + 1], tuple(x[i : i + 1] for x in encoded.hidden))).logits
        for i in range(3)
    ]
    assert torch.allclose(torch.cat(alone), dual.logits, atol=1e-4)
    assert not torch.allclose(dual.logits[:, 0], dual.logits[:, 1], atol=1e-3)


def test_global_tokens_have_unit_length_and_only_they_contrast(sam, encoded):
    found = maps_of(sam, encoded, inner_idx=(0, 1)).contrast
    assert found.shape == (3, 48, 32)
    assert torch.allclose(found.norm(dim=-1), torch.ones(3, 48), atol=1e-5)
    assert maps_of(sam, encoded, global_branch=False).contrast is None


def test_local_terms_are_summed_and_global_ones_averaged_before_they_are_normalised():
    torch.manual_seed(0)
    injection = Injection(48, 32)
    one, two = torch.randn(2, 5, 4, 48), torch.randn(2, 5, 4, 48)
    with torch.no_grad():
        found = injection([one, two])
        local = [injection.local_branch(x.permute(0, 3, 1, 2)).flatten(2).mT for x in (one, two)]
        means = (injection.global_branch(one) + injection.global_branch(two)).flatten(1, 2) / 2
    expected = F.normalize(means, dim=-1)
    assert torch.allclose(found.contrast, expected, atol=1e-6)
    assert torch.allclose(found.term, local[0] + local[1] + expected, atol=1e-5)


def test_without_their_update_image_tokens_have_a_closed_form(sam, encoded):
    """K = LN_1(LN_0(R_0 + R) + R), whatever the queries are (digest of the published code)."""
    config = DenseSamConfig()
    dense = dense_of(sam, config)
    layers = sam.mask_decoder.transformer.layers
    with torch.no_grad():
        found = dense_maps(sam, dense, config, encoded)
        term = dense.injection([encoded.hidden[1]]).term
        start = (encoded.embedding + sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)).flatten(2).mT
        expected = layers[1].norm4(layers[0].norm4(start + term) + term)
    assert torch.allclose(found.cells, expected, atol=1e-5)


@pytest.mark.parametrize("update", [False, True])
def test_attention_of_image_tokens_counts_only_with_their_update(sam, encoded, update):
    before = maps_of(sam, encoded, image_token_update=update).logits
    changed = random_model(TINY)
    changed.load_state_dict(sam.state_dict())
    with torch.no_grad():
        for layer in changed.mask_decoder.transformer.layers:
            for p in layer.cross_attn_image_to_token.parameters():
                p.normal_()
    after = maps_of(changed, encoded, image_token_update=update).logits
    assert torch.equal(before, after) is not update


def test_with_the_update_and_nothing_injected_it_is_sam_s_decoder(sam, encoded):
    """The reference decoder without a prompt, asked for the mask of its second token for ambiguous prompts."""
    config = DenseSamConfig(heads=1, local_branch=False, global_branch=False, image_token_update=True)
    dense = dense_of(sam, config)
    decoder = sam.mask_decoder
    with torch.no_grad():
        for own, theirs in zip(
            [m for m in dense.objects if isinstance(m, torch.nn.Linear)], decoder.output_hypernetworks_mlps[2].layers
        ):
            own.load_state_dict(theirs.state_dict())
        found = dense_maps(sam, dense, config, encoded).cells
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight[2:3]])[None]
        dense_prompt = sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        size = sam.prompt_encoder.pe_layer((6, 8))[None]
        for i in range(3):
            image = encoded.embedding[i : i + 1]
            _, expected = decoder.transformer(image + dense_prompt, size, tokens)
            assert torch.allclose(found[i : i + 1], expected, atol=1e-4)


def test_sites_and_layers_are_different_models(sam, encoded):
    found = [maps_of(sam, encoded, site=site).logits for site in ("before", "after", "end")]
    found += [maps_of(sam, encoded, inner_idx=layers).logits for layers in ((0,), (0, 1))]
    for i, one in enumerate(found):
        assert all(not torch.allclose(one, other, atol=1e-3) for other in found[:i])


def test_the_mask_token_starts_as_sam_s_third_and_the_iou_token_as_sam_s_or_random(sam):
    dense = dense_of(sam, DenseSamConfig())
    decoder = sam.mask_decoder
    assert torch.equal(dense.token[0], decoder.mask_tokens.weight[2])
    assert torch.equal(dense.iou_token, decoder.iou_token.weight)
    assert not dense.iou_token.requires_grad
    drawn = dense_of(sam, DenseSamConfig(iou_token="random")).iou_token
    assert not torch.equal(drawn, dense.iou_token)
    assert torch.equal(drawn, dense_of(sam, DenseSamConfig(iou_token="random")).iou_token)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "heads is '3', accepted: 1 or 2"),
        ({"inner_idx": []}, r"inner_idx is '\(\)', accepted: different whole numbers from 0 on"),
        ({"inner_idx": [1, 1]}, r"inner_idx is '\(1, 1\)', accepted: different"),
        ({"site": "middle"}, "site is 'middle', accepted: before, after, end"),
        ({"local_branch": 1}, "local_branch is '1', accepted: true or false"),
        ({"classes": ["a", "b"]}, r"classes is .*'b'.*, accepted: one name"),
        ({"depth": 3}, "accepted: an object of"),
    ],
)
def test_a_damaged_configuration_is_told(changes, message):
    with pytest.raises(CheckpointError, match=message):
        DenseSamConfig.from_dict({**DenseSamConfig().as_dict(), **changes})


def test_a_configuration_is_read_as_it_was_written_and_fits_its_encoder():
    config = DenseSamConfig(heads=1, inner_idx=(0, 4), site="end", classes=("building",))
    assert DenseSamConfig.from_dict(config.as_dict()) == config
    config.check_fit(4)
    with pytest.raises(CheckpointError, match=r"inner_idx is \[0, 4\], accepted with this SAM: 0 to 2"):
        config.check_fit(2)
