"""The refinement: what is split is the same as over concatenations, and its parts do what the paper says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cfrsam_models import shaken
from gigaseg.errors import CheckpointError
from gigaseg.segmenters.cfrsam.config import CfrSamConfig
from gigaseg.segmenters.cfrsam.refine import Attention, Enhancement, Refinement, average, cut

KINDS = {
    "full": {},
    "no enhancement": {"enhancement": False},
    "no guidance": {"guidance": False},
    "mlp": {"refinement": "mlp"},
}


def upsampled(x):
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def plain(net, features, embedding, pixels, image):
    """As the digest of the published code has it: everything a prompt, convolutions over concatenations."""
    image_up = embedding
    for layer in net.from_embedding:
        image_up = layer(upsampled(image_up))
    x = net.fuse(torch.cat([features, image_up[image]], 1))
    for layer in net.ups:
        x = layer(upsampled(x))
    if net.kind == "mlp":
        return net.mlp(x)[:, 0], None
    detail = net.enhance(net.image(pixels))[image]
    if net.guided:
        first, second = x.chunk(2, 1)
        a = net.squeeze(torch.cat([detail, first], 1)).relu()
        b = net.deform(torch.cat([detail, second], 1))
        joined = net.join(torch.cat([attend(part) for attend, part in zip(net.attend, (a, b))], 1))
    else:
        joined = net.join(torch.cat([detail, x], 1))
    moved = net.widen(net.follow(net.narrow(joined.sigmoid() * x)))
    return net.mask(x + moved)[:, 0], net.boundary(joined)[:, 0]


def inputs(n, patch=8, rows=4, cols=6, seed=0):
    """Features of n prompts, embeddings and pixels of two images, and whose each prompt is."""
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(2, 32, rows, cols, generator=generator)
    pixels = torch.randn(2, 3, patch * rows, patch * cols, generator=generator)
    features = torch.randn(n, 4, 4 * rows, 4 * cols, generator=generator)
    return features, embedding, pixels, torch.arange(n) * 2 // max(n, 1)


@torch.no_grad()
@pytest.mark.parametrize("patch", [4, 8, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_plain_implementation_with_every_concatenation_written_out(kind, patch):
    net = shaken(Refinement(32, patch, CfrSamConfig(**KINDS[kind]))).eval()
    features, embedding, pixels, image = inputs(5, patch)
    found = net(features, net.images(pixels, embedding), image, torch.zeros(5, 2, dtype=torch.int64))
    masks, boundaries = plain(net, features, embedding, pixels, image)
    assert found.masks.shape == (5, patch * 4, patch * 6)
    assert masks.std() > 1e-3
    torch.testing.assert_close(found.masks, masks, rtol=1e-5, atol=1e-5)
    assert (boundaries is None) == (found.boundaries is None) == (kind == "mlp")
    if boundaries is not None:
        torch.testing.assert_close(found.boundaries, boundaries, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_shapes_are_those_of_the_paper():
    with torch.device("meta"):
        net = Refinement(256, 16, CfrSamConfig(unused=True))
        maps = net.images(torch.empty(1, 3, 256, 256), torch.empty(1, 256, 16, 16))
        zero = torch.zeros(8, dtype=torch.int64)
        found = net(torch.empty(8, 32, 64, 64), maps, zero, torch.zeros(8, 2, dtype=torch.int64))
    assert net.fine == 4
    assert maps.fused.shape == (1, 32, 64, 64)
    assert (maps.detail.shape, maps.squeezed.shape, maps.offsets.shape) == (
        (1, 32, 256, 256), (1, 16, 256, 256), (1, 27, 256, 256),
    )  # fmt: skip
    assert found.masks.shape == found.boundaries.shape == (8, 256, 256)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_refine_is_no_mistake(kind):
    net = Refinement(32, 8, CfrSamConfig(**KINDS[kind])).eval()
    features, embedding, pixels, image = inputs(0)
    found = net(features, net.images(pixels, embedding), image, torch.zeros(0, 2, dtype=torch.int64))
    assert found.masks.shape == (0, 32, 48)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_windows_are_cut_from_their_own_image_at_their_place(data):
    draw = data.draw
    b, height, width = draw(st.integers(1, 3)), draw(st.integers(2, 8)), draw(st.integers(2, 8))
    shape = (draw(st.integers(1, height)), draw(st.integers(1, width)))
    n = draw(st.integers(0, 4))
    places = [
        (draw(st.integers(0, b - 1)), draw(st.integers(0, width - shape[1])), draw(st.integers(0, height - shape[0])))
        for _ in range(n)
    ]
    maps = torch.arange(b * 2 * height * width, dtype=torch.float32).view(b, 2, height, width).requires_grad_()
    image = torch.tensor([i for i, _, _ in places], dtype=torch.int64)
    origin = torch.tensor([(x, y) for _, x, y in places], dtype=torch.int64).view(n, 2)
    found = cut(maps, image, origin, shape)
    assert found.shape == (n, 2, *shape)
    expected = [maps[i, :, y : y + shape[0], x : x + shape[1]] for i, x, y in places]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    if n:
        weights = torch.arange(found.numel(), dtype=torch.float32).view(found.shape)
        (ours,) = torch.autograd.grad((found * weights).sum(), maps, retain_graph=True)
        (theirs,) = torch.autograd.grad((torch.stack(expected) * weights).sum(), maps)
        assert torch.equal(ours, theirs)


@torch.no_grad()
def test_a_plain_image_has_no_frame():
    """Averages with zeros beyond the border would draw one."""
    constant = torch.tensor([0.3, -1.0, 2.0, 0.7]).view(1, 4, 1, 1).expand(2, 4, 9, 7)
    torch.testing.assert_close(average(constant), constant)
    found = shaken(Enhancement(4)).eval()(constant)
    torch.testing.assert_close(found, found[:, :, 4:5, 3:4].expand(2, 4, 9, 7))
    assert not torch.allclose(found, constant, atol=1e-2)


@torch.no_grad()
def test_averages_are_over_three_by_three():
    x = torch.zeros(1, 1, 5, 6)
    x[0, 0, 2, 3] = 9
    expected = torch.zeros(5, 6)
    expected[1:4, 2:5] = 1
    torch.testing.assert_close(average(x)[0, 0], expected)


@torch.no_grad()
def test_edges_are_enhanced():
    net = shaken(Enhancement(4)).eval()
    step = torch.zeros(1, 4, 8, 12)
    step[..., 6:] = 1
    found = net(step)
    flat = [found[..., 0], found[..., -1]]
    assert all((found[..., k] - side).abs().max() > 1e-4 for k in (5, 6) for side in flat)


@torch.no_grad()
def test_attention_without_weights_scales_by_its_bias():
    attention = Attention()
    attention.conv.weight.zero_()
    attention.conv.bias.fill_(0.7)
    x = torch.randn(2, 5, 6, 7)
    torch.testing.assert_close(attention(x), 1.7 * x)


@torch.no_grad()
def test_attention_s_sigmoid_comes_before_its_convolution():
    attention = Attention()
    attention.conv.weight.zero_()
    attention.conv.bias.zero_()
    attention.conv.weight[0, :, 3, 3] = torch.tensor([10.0, 20.0])
    x = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    weight = 10 * x.mean(1, keepdim=True).sigmoid() + 20 * x.max(1, keepdim=True).values.sigmoid()
    torch.testing.assert_close(attention(x), x * (1 + weight))


@pytest.mark.parametrize(("embedding", "patch"), [(24, 8), (32, 2), (32, 12), (32, 14)])
def test_a_sam_that_does_not_suit_it_is_told(embedding, patch):
    with pytest.raises(CheckpointError, match=f"a SAM with patches of {patch} px and {embedding} channels, accepted"):
        Refinement(embedding, patch, CfrSamConfig())
