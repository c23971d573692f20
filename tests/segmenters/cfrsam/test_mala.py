"""The adapters: one kernel a pixel, mirrored borders, and nothing added at first."""

import pytest
import torch
from torch.nn import functional as F

from cfrsam_models import shaken
from gigaseg.sam.encoder import encode
from gigaseg.segmenters.cfrsam.mala import LEAST, SIZES, Mala, MalaAdapter, dynamic
from sam_models import TINY, random_model


def unfolded(z, kernels):
    """Y[c, p] = sum over q of K[q, p] Z[c, p + q], by copies of each pixel's surroundings."""
    b, c, h, w = z.shape
    found = 0
    for kernel in kernels:
        side = round(kernel.shape[1] ** 0.5)
        seen = F.unfold(F.pad(z, (side // 2,) * 4, mode="reflect"), side).view(b, c, side * side, h, w)
        found = found + (seen * kernel[:, None]).sum(2)
    return found


@pytest.mark.parametrize("sizes", [SIZES, (3,), (7, 3)])
def test_one_kernel_a_pixel_in_value_and_gradients(sizes):
    torch.manual_seed(0)
    z = torch.randn(2, 3, 6, 9, dtype=torch.float64, requires_grad=True)
    kernels = [torch.randn(2, k * k, 6, 9, dtype=torch.float64, requires_grad=True) for k in sizes]
    weights = torch.randn(2, 3, 6, 9, dtype=torch.float64)
    ours, plain = dynamic(z, kernels), unfolded(z, kernels)
    torch.testing.assert_close(ours, plain)
    found = torch.autograd.grad((ours * weights).sum(), [z, *kernels])
    expected = torch.autograd.grad((plain * weights).sum(), [z, *kernels])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_a_constant_map_is_doubled_and_mixed_whatever_the_kernels_are():
    mala = shaken(Mala(8, 5))
    c = torch.randn(5, generator=torch.Generator().manual_seed(1))
    found = mala.core(c.view(1, 5, 1, 1).expand(1, 5, 7, 6))
    expected = 2 * c + mala.mix.weight[:, :, 0, 0] @ (2 * c) + mala.mix.bias
    torch.testing.assert_close(found, expected.view(1, 5, 1, 1).expand(1, 5, 7, 6), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_without_a_preference_it_is_the_mean_of_three_box_filters_with_mirrored_borders():
    mala = Mala(8, 5)
    for conv in mala.kernels:
        conv.weight.zero_()
        conv.bias.zero_()
    mala.mix.weight.zero_()
    mala.mix.bias.zero_()
    z = torch.randn(2, 5, 6, 8, generator=torch.Generator().manual_seed(2))
    boxes = [F.avg_pool2d(F.pad(z, (k // 2,) * 4, mode="reflect"), k, stride=1) for k in SIZES]
    torch.testing.assert_close(mala.core(z), z + sum(boxes) / 3, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_static_kernels_are_depth_wise_with_mirrored_borders():
    mala = shaken(Mala(8, 5, "static"))
    z = torch.randn(2, 5, 6, 8, generator=torch.Generator().manual_seed(3))
    y = sum(
        F.conv2d(F.pad(z, (k // 2,) * 4, mode="reflect"), conv.weight, conv.bias, groups=5)
        for k, conv in zip(SIZES, mala.kernels, strict=True)
    )
    u = z + y / 3
    torch.testing.assert_close(mala.core(z), u + mala.mix(u), rtol=1e-5, atol=1e-5)
    x = torch.randn(2, 6, 8, 8)
    assert mala.eval()(x).shape == x.shape


@pytest.mark.parametrize("kernels", ["dynamic", "static"])
def test_maps_smaller_than_the_largest_kernel_s_mirror_image_are_refused(kernels):
    mala = Mala(8, 5, kernels)
    assert mala(torch.randn(1, LEAST, LEAST, 8)).shape == (1, LEAST, LEAST, 8)
    with pytest.raises(ValueError, match="a map of 9 x 3 tokens, accepted: at least 4 x 4"):
        mala(torch.randn(1, 9, LEAST - 1, 8))


@pytest.mark.parametrize("rank", [16, 32, 64, 128])
@pytest.mark.parametrize("width", [768, 1280])
def test_it_has_as_many_parameters_as_the_published_one(width, rank):
    with torch.device("meta"):
        mala = Mala(width, rank)
    expected = 2 * width * rank + 5 * width + rank**2 + 749 * rank + 83
    assert sum(p.numel() for p in mala.parameters()) == expected
    assert (width, rank) != (768, 64) or expected == 154_259


@pytest.fixture(scope="module")
def vit():
    return random_model(TINY).image_encoder


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
@pytest.mark.parametrize("kernels", ["dynamic", "static"])
def test_at_first_the_adapted_encoder_is_sam_s(vit, pixels, kernels):
    adapter = MalaAdapter(TINY.depth, TINY.embed_dim, 4, kernels).eval()
    plain, adapted = encode(vit, pixels, hidden=(0, 1, 2, 3)), encode(vit, pixels, hidden=(0, 1, 2, 3), adapter=adapter)
    torch.testing.assert_close(adapted.embedding, plain.embedding, rtol=1e-6, atol=1e-5)
    for one, other in zip(adapted.hidden, plain.hidden, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("part", ["inner", "outer"])
@pytest.mark.parametrize("block", range(TINY.depth))
def test_each_adapter_counts_from_its_block_on(vit, pixels, part, block):
    adapter = MalaAdapter(TINY.depth, TINY.embed_dim, 4).eval()
    plain = encode(vit, pixels, hidden=(0, 1, 2, 3), adapter=adapter).hidden[1:]
    getattr(adapter, part)[block].up.bias.fill_(0.5)
    found = encode(vit, pixels, hidden=(0, 1, 2, 3), adapter=adapter).hidden[1:]
    assert [torch.equal(one, other) for one, other in zip(found, plain)] == [i < block for i in range(TINY.depth)]


@torch.no_grad()
def test_attention_is_adapted_window_by_window_and_outputs_whole(vit, pixels):
    adapter = MalaAdapter(TINY.depth, TINY.embed_dim, 4).eval()
    seen = {"inner": [], "outer": []}
    for part, shapes in seen.items():
        for mala in getattr(adapter, part):
            mala.register_forward_pre_hook(lambda _, inputs, shapes=shapes: shapes.append(tuple(inputs[0].shape[:3])))
    encode(vit, pixels, adapter=adapter)
    windows, whole = (2 * 3 * 2, 5, 5), (2, 12, 8)
    assert seen == {"inner": [windows, whole, windows, whole], "outer": [whole] * 4}
