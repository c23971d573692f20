"""The fast encoder computes what the reference modules compute."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from gigaseg.sam.adapters import Adapter
from gigaseg.sam.config import CONFIGS
from gigaseg.sam.encoder import absolute_positions, encode, normalise, relative_positions
from sam_models import TINY, random_model

SIZES = {"own": (96, 96), "smaller": (40, 40), "wide": (64, 136), "tall": (160, 56), "one patch": (8, 8)}


def reference(encoder, height, width):
    """The reference module for another input: its relative positions adapt by themselves, the absolute ones do not."""
    resized = copy.deepcopy(encoder)
    grid = (height // encoder.patch_embed.proj.kernel_size[0], width // encoder.patch_embed.proj.kernel_size[1])
    table = encoder.pos_embed.detach().permute(0, 3, 1, 2)
    table = F.interpolate(table, grid, mode="bicubic", align_corners=False)
    resized.pos_embed = torch.nn.Parameter(table.permute(0, 2, 3, 1))
    return resized


@pytest.fixture(scope="module")
def tiny():
    return random_model(TINY).image_encoder


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "gradients"])
def test_embedding_equals_the_reference_for_any_size(tiny, size, grad):
    images = torch.randn(2, 3, *size)
    with torch.set_grad_enabled(grad):
        expected, found = reference(tiny, *size)(images), encode(tiny, images).embedding
    assert expected.std() > 0.5
    assert (found - expected).abs().max() <= 2e-5


@pytest.mark.parametrize(
    ("name", "size"), [("small", (256, 256)), ("small", (200, 328)), ("vit_b", (272, 240))], ids=str
)
def test_the_real_configurations_equal_the_reference(name, size):
    encoder = random_model(CONFIGS[name]).image_encoder
    images = torch.randn(1, 3, *size)
    with torch.inference_mode():
        expected, found = reference(encoder, *size)(images), encode(encoder, images).embedding
    assert found.shape == (1, 128 if name == "small" else 256, *(s // CONFIGS[name].patch for s in size))
    assert (found - expected).abs().max() <= 1e-4


def test_bf16_is_as_close_as_the_reference_in_bf16(tiny):
    images = torch.randn(4, 3, 96, 96)
    with torch.inference_mode():
        exact = tiny(images)
        with torch.autocast("cpu", torch.bfloat16):
            theirs, ours = tiny(images).float(), encode(tiny, images).embedding.float()
    assert (ours - exact).abs().mean() <= 1.2 * (theirs - exact).abs().mean()
    assert (ours - exact).abs().mean() <= 0.02 * exact.std()


def test_hidden_features_are_the_patch_embedding_and_the_outputs_of_global_blocks(tiny):
    seen = []
    handles = [
        tiny.blocks[index].register_forward_hook(lambda module, inputs, out: seen.append(out))
        for index in TINY.global_blocks
    ]
    first = tiny.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        tiny(images)
        for handle in [*handles, first]:
            handle.remove()
        hidden = encode(tiny, images, hidden=True).hidden
        assert encode(tiny, images).hidden == ()
        chosen = encode(tiny, images, hidden=[2, 1]).hidden
        alone = encode(tiny, images, hidden=[]).hidden
    assert [tuple(t.shape) for t in hidden] == [(2, 12, 12, 64)] * 3
    for found, expected in zip(hidden, seen, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert all(map(torch.equal, chosen[:2], hidden[:2]))  # block 1 is the first global one
    assert len(chosen) == 3
    assert len(alone) == 1
    assert torch.equal(alone[0], hidden[0])


def gradients(encoder, run):
    for parameter in encoder.parameters():
        parameter.grad = None
    run().embedding.square().sum().backward()
    return {name: parameter.grad for name, parameter in encoder.named_parameters()}


def test_gradients_equal_the_references_and_do_not_depend_on_checkpointing(tiny):
    images = torch.randn(2, 3, 64, 96)
    tiny(torch.zeros(1, 3, 96, 96))
    ours = gradients(tiny, lambda: encode(tiny, images))
    again = gradients(tiny, lambda: encode(tiny, images, checkpointing=True))
    module = reference(tiny, 64, 96)
    module(images).square().sum().backward()
    for name, parameter in module.named_parameters():
        if name != "pos_embed":  # the test's own resizing
            scale = parameter.grad.abs().max()
            assert (ours[name] - parameter.grad).abs().max() <= 1e-4 * scale, name
    assert ours["pos_embed"].abs().sum() > 0
    for name, gradient in ours.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()))


def test_checkpointing_keeps_fewer_activations(tiny):
    def kept(**options):
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encode(tiny, torch.randn(1, 3, 96, 96), **options)
        return total

    assert kept(checkpointing=True) < 0.3 * kept()


def test_tables_that_were_trained_are_seen_by_the_next_call(tiny):
    encoder, images = copy.deepcopy(tiny), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = encode(encoder, images).embedding
        encoder.blocks[1].attn.rel_pos_h.mul_(3)
        after = encode(encoder, images).embedding
        expected = reference(encoder, 64, 64)(images)
    assert (after - before).abs().max() > 1e-2
    assert (after - expected).abs().max() <= 2e-5


@pytest.mark.parametrize("queries", [1, 50, 144, 10 * 144], ids="{} queries at a time".format)
def test_long_attention_is_cut_into_pieces_without_a_change(tiny, monkeypatch, queries):
    images = torch.randn(2, 3, 96, 96)  # 12 x 12 = 144 tokens in the global blocks, and 4 heads
    with torch.inference_mode():
        expected = tiny(images)
        monkeypatch.setattr("gigaseg.sam.encoder._LOGIT_BYTES", 4 * 144 * queries)
        assert (encode(tiny, images).embedding - expected).abs().max() <= 2e-5


def test_the_fused_kernels_of_gpus_and_of_compiled_encoders_give_the_same(tiny, monkeypatch):
    images = torch.randn(1, 3, 96, 96)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    with torch.inference_mode():
        whole = encode(tiny, images).embedding
        assert (whole - tiny(images)).abs().max() <= 2e-5
        monkeypatch.setattr("gigaseg.sam.encoder._BIAS_BYTES", 4 * 4 * 144 * 50)  # 50 of 144 queries
        assert (encode(tiny, images).embedding - whole).abs().max() <= 1e-5


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated", "ignore::torch.jit.TracerWarning")
def test_a_traced_encoder_gives_the_same_for_other_images(tiny):
    encoder, images = copy.deepcopy(tiny).requires_grad_(False), torch.randn(2, 1, 3, 96, 96)
    with torch.no_grad():
        traced = torch.jit.trace(lambda x: encode(encoder, x).embedding, images[0])
        assert (traced(images[1]) - tiny(images[1])).abs().max() <= 2e-5


def test_the_batch_does_not_matter(tiny):
    images = torch.randn(3, 3, 96, 96)
    with torch.inference_mode():
        together = encode(tiny, images).embedding
        for index in range(3):
            alone = encode(tiny, images[index : index + 1]).embedding
            assert (together[index] - alone[0]).abs().max() <= 1e-5


def test_an_adapter_that_does_nothing_changes_nothing(tiny):
    class Nothing(Adapter):
        def attention(self, block, x):
            return x

    images = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        plain = encode(tiny, images).embedding
        assert torch.equal(encode(tiny, images, adapter=Adapter()).embedding, plain)
        assert (encode(tiny, images, adapter=Nothing()).embedding - plain).abs().max() <= 1e-5


def test_a_size_that_is_no_multiple_of_the_patch_is_told(tiny):
    with pytest.raises(ValueError, match="96 x 100 px, accepted: multiples of the patch side, 8"):
        encode(tiny, torch.zeros(1, 3, 96, 100))


def test_normalise_gives_the_published_mean_and_deviation():
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(0 - 123.675) / 58.395, (128 - 116.28) / 57.12, (255 - 103.53) / 57.375]
    assert normalise(images, CONFIGS["vit_b"]).flatten().tolist() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(normalise(images.float(), CONFIGS["vit_b"]), normalise(images, CONFIGS["vit_b"]))
    black = replace(CONFIGS["vit_b"], pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0))
    assert torch.equal(normalise(images, black), images.float())


def test_relative_positions_are_a_table_of_distances():
    table = torch.arange(9.0)[:, None]  # distances -4..4
    found = relative_positions(table, 5)[..., 0]
    assert torch.equal(found, torch.arange(5.0)[:, None] - torch.arange(5.0) + 4)
    assert relative_positions(table, 3).shape == (3, 3, 1)


def test_absolute_positions_of_their_own_grid_are_the_table_itself():
    table = torch.randn(1, 6, 6, 4)
    assert absolute_positions(table, (6, 6)) is table
    assert absolute_positions(torch.ones(1, 6, 6, 4), (3, 9)).allclose(torch.ones(1, 3, 9, 4), atol=1e-6)
