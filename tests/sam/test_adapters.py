"""The hooks of the encoder, and low-rank adaptation."""

import copy
import hashlib

import pytest
import torch

from gigaseg.sam.adapters import Adapter, Lora
from gigaseg.sam.config import CONFIGS
from gigaseg.sam.encoder import encode
from sam_models import TINY, random_model

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def encoder():
    return random_model(TINY).image_encoder.requires_grad_(False)


def lora(rank=3, alpha=None, *, trained=False):
    torch.manual_seed(5)
    made = Lora(TINY.depth, TINY.embed_dim, rank, alpha)
    if trained:
        for up in [*made.b_q, *made.b_v]:
            torch.nn.init.normal_(up, std=0.1)
    return made


def digest(module):
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in module.state_dict().values())).hexdigest()


class Spy(Adapter):
    """Records what the hooks are given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def qkv(self, block, x, out):
        self.seen.append(("qkv", block, tuple(x.shape), tuple(out.shape)))
        return out

    def attention(self, block, x):
        self.seen.append(("attention", block, tuple(x.shape)))
        return x

    def output(self, block, x):
        self.seen.append(("output", block, tuple(x.shape)))
        return x


def test_every_hook_is_called_in_every_block_with_its_shapes(encoder):
    spy = Spy()
    with torch.no_grad():
        encode(encoder, IMAGES, adapter=spy)
    image = (2, 8, 12, 64)
    expected = []
    for block in range(TINY.depth):
        windows = image if block in TINY.global_blocks else (2 * 2 * 3, 5, 5, 64)
        expected += [("qkv", block, image, (2, 8, 12, 192)), ("attention", block, windows), ("output", block, image)]
    assert spy.seen == expected


def test_the_attention_hook_sees_what_the_references_attention_yields_padding_included(encoder):
    class Keep(Adapter):
        def attention(self, block, x):
            if block == 0:
                self.first = x
            return x

    theirs = {}
    keep, images = Keep(), torch.randn(2, 3, 96, 96)
    handle = encoder.blocks[0].attn.register_forward_hook(lambda module, inputs, out: theirs.update(first=out))
    with torch.no_grad():
        encoder(images)
        encode(encoder, images, adapter=keep)
    handle.remove()
    assert keep.first.shape == theirs["first"].shape == (2 * 9, 5, 5, 64)
    torch.testing.assert_close(keep.first, theirs["first"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("hook", ["attention", "output"])
def test_what_a_hook_returns_takes_the_place_of_what_it_got(encoder, hook):
    """The same change made inside the reference, by forward hooks, gives the same embedding."""
    images = torch.randn(1, 3, 96, 96)
    adapter = type("Double", (Adapter,), {hook: lambda self, block, x: x * (1.5 + block)})()
    changed = copy.deepcopy(encoder)
    for index, block in enumerate(changed.blocks):
        module = block.attn if hook == "attention" else block
        module.register_forward_hook(lambda module, inputs, out, index=index: out * (1.5 + index))
    with torch.no_grad():
        expected, found = changed(images), encode(encoder, images, adapter=adapter).embedding
        assert (found - encode(encoder, images).embedding).abs().max() > 0.1
    assert (found - expected).abs().max() <= 1e-4


def test_lora_is_exactly_the_original_at_the_start(encoder):
    with torch.inference_mode():
        assert torch.equal(
            encode(encoder, IMAGES, adapter=lora()).embedding, encode(encoder, IMAGES, adapter=Adapter()).embedding
        )


@pytest.mark.parametrize(
    ("name", "rank", "count"),
    [("vit_h", 320, 52_428_800), ("vit_h", 4, 655_360), ("vit_b", 192, 7_077_888), ("vit_l", 256, 25_165_824)],
)
def test_lora_has_4_rank_width_depth_parameters(name, rank, count):
    config = CONFIGS[name]
    with torch.device("meta"):
        made = Lora(config.depth, config.embed_dim, rank)
    assert sum(p.numel() for p in made.parameters()) == count == 4 * rank * config.embed_dim * config.depth


def test_lora_changes_queries_and_values_and_leaves_keys():
    made, x, out = lora(alpha=6, trained=True), torch.randn(2, 5, 5, 64), torch.randn(2, 5, 5, 192)
    before = out.clone()
    found = made.qkv(1, x, out)
    assert torch.equal(out, before)  # not in place
    assert torch.equal(found[..., 64:128], out[..., 64:128])
    expected = 2.0 * x @ made.a_q[1].T @ made.b_q[1].T
    torch.testing.assert_close(found[..., :64] - out[..., :64], expected, rtol=1e-4, atol=1e-5)
    expected = 2.0 * x @ made.a_v[1].T @ made.b_v[1].T
    torch.testing.assert_close(found[..., 128:] - out[..., 128:], expected, rtol=1e-4, atol=1e-5)


def test_at_the_start_only_the_second_factor_has_a_gradient_and_a_step_leaves_the_base_alone(encoder):
    made, before = lora(), digest(encoder)
    optimiser = torch.optim.SGD(made.parameters(), lr=0.1)
    encode(encoder, IMAGES, adapter=made).embedding.square().sum().backward()
    assert all(float(a.grad.abs().max()) == 0 for a in [*made.a_q, *made.a_v])
    assert all(float(b.grad.abs().max()) > 0 for b in [*made.b_q, *made.b_v])
    optimiser.step()
    assert digest(encoder) == before
    with torch.no_grad():
        moved = encode(encoder, IMAGES, adapter=made).embedding - encode(encoder, IMAGES).embedding
    assert moved.abs().max() > 1e-3


def test_checkpointing_gives_an_adapter_the_same_gradients(encoder):
    found = []
    for checkpointing in (False, True):
        made = lora(trained=True)
        encode(encoder, IMAGES, adapter=made, checkpointing=checkpointing).embedding.square().sum().backward()
        found.append([parameter.grad for parameter in made.parameters()])
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(one.abs().max()))


def test_merged_weights_give_the_same_embedding_without_the_adapter(encoder):
    made = lora(alpha=6, trained=True)
    with torch.no_grad():
        adapted = encode(encoder, IMAGES, adapter=made).embedding
        merged = copy.deepcopy(encoder)
        made.merge(merged)
        found = encode(merged, IMAGES).embedding
    assert (adapted - encode(encoder, IMAGES).embedding).abs().max() > 0.1
    assert (found - adapted).abs().max() <= 2e-5


def test_an_adapter_of_another_encoder_is_not_merged(encoder):
    with pytest.raises(ValueError, match="2 blocks of width 64 does not fit an encoder of 4 blocks of width 64"):
        Lora(2, 64, 4).merge(encoder)


def test_a_rank_below_one_is_refused():
    with pytest.raises(ValueError, match="rank is 0"):
        Lora(2, 64, 0)
