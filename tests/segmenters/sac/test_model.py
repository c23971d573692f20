"""Parameter counts of the paper, the forward pass in parts, and whose gradients reach what."""

import numpy as np
import pytest
import torch
from torch import nn

from gigaseg.sam.config import CONFIGS
from gigaseg.sam.encoder import encode, normalise
from gigaseg.sam.model import build
from gigaseg.sam.prompting import embed_prompts
from gigaseg.segmenters.sac.config import SacConfig
from gigaseg.segmenters.sac.model import (
    build_lora,
    build_unet,
    mask_logits,
    prompt_maps,
    prompt_sets,
    upsampled,
)
from gigaseg.segmenters.sac.points import select_points
from gigaseg.segmenters.sac.unet import UNet
from gigaseg.train.sac.config import SacTraining
from gigaseg.train.sac.method import trainable
from sam_models import random_model
from samples import SIZES

SMALL = SacConfig(rank=4, width=4, pairs=2)


def parameters(module, *, trained=None):
    return sum(p.numel() for p in module.parameters() if trained is None or p.requires_grad == trained)


def on_paper(config, training, *, unet=True):
    """SAM with what SAC adds, of no memory; trainable as the paper's Table 6 counts: the prompt encoder is too."""
    sam = CONFIGS[config]
    with torch.device("meta"):
        model = build(sam, "meta")
        rank = sam.embed_dim // 4 if training.rank < 0 else training.rank
        model.add_module("lora", build_lora(SacConfig(rank), sam))
        if unet:
            model.unet = build_unet(SacConfig(rank, width=training.width))
    trainable(model, training)
    model.prompt_encoder.requires_grad_(True)
    return model


class Msa(nn.Module):
    """Two adapters a block of width D to D / 4, with bias: the paper's baseline MSA, to be counted alone."""

    def __init__(self, width, depth):
        super().__init__()
        self.pairs = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width // 4), nn.Linear(width // 4, width)) for _ in range(2 * depth)
        )


def test_table_6_row_by_row():
    sam_ft = on_paper("vit_h", SacTraining(rank=0, neck=True))
    assert parameters(sam_ft, trained=True) == 12_746_129
    assert parameters(sam_ft, trained=False) == 636_107_520
    assert parameters(sam_ft) == 648_853_649

    msa = on_paper("vit_h", SacTraining(rank=0), unet=False)
    with torch.device("meta"):
        msa.adapters = Msa(1280, 32)
    assert parameters(msa, trained=True) == 56_595_760
    assert parameters(msa, trained=False) == 637_026_048
    assert parameters(msa) == 693_621_808

    sac = on_paper("vit_h", SacTraining(), unet=False)
    assert parameters(sac, trained=True) == 56_493_360
    assert parameters(sac, trained=False) == 637_026_048
    assert parameters(sac) == 693_519_408


def test_the_complete_sac_has_its_u_net_as_well():
    sac = on_paper("vit_h", SacTraining())
    assert parameters(sac, trained=True) == 64_256_401
    assert parameters(sac) == 701_282_449
    trainable(sac, SacTraining())  # as it is trained here, the prompt encoder frozen
    assert parameters(sac, trained=True) == 64_250_181


@pytest.mark.parametrize(
    ("config", "rank", "count"),
    [
        ("vit_h", 4, 655_360), ("vit_h", 8, 1_310_720), ("vit_h", 16, 2_621_440), ("vit_h", 64, 10_485_760),
        ("vit_h", 320, 52_428_800), ("vit_b", 192, 7_077_888), ("vit_l", 256, 25_165_824), ("small", 64, 393_216),
    ],
)  # fmt: skip
def test_lora_counts_of_the_digest(config, rank, count):
    with torch.device("meta"):
        assert parameters(build_lora(SacConfig(rank), CONFIGS[config])) == count


@pytest.mark.parametrize(
    ("width", "levels", "count"), [(32, 4, 7_763_041), (16, 4, 1_942_577), (64, 4, 31_037_633), (32, 3, 1_927_009)]
)
def test_u_net_counts(width, levels, count):
    with torch.device("meta"):
        assert parameters(UNet(width, levels)) == count


MAPS = np.zeros((2, 64, 64), np.float32)
"""Of the U-Net: discs at other places in each image."""
for _i, _places in enumerate((((14, 20, 9), (44, 40, 6), (20, 52, 4)), ((40, 12, 8), (12, 44, 7)))):
    for _x, _y, _radius in _places:
        MAPS[_i] += np.hypot(*(np.mgrid[:64, :64][::-1] + 0.5 - np.array([_x, _y])[:, None, None])) < _radius


@pytest.fixture
def parts():
    """A tiny SAM with random weights, a U-Net, and two images."""
    model = random_model(SIZES).eval()
    torch.manual_seed(1)
    unet = build_unet(SMALL).eval()
    images = normalise(torch.randint(0, 256, (2, 3, 128, 128), generator=torch.Generator().manual_seed(0)), SIZES)
    return model, unet, images


def points_of(count, pairs=2):
    return [select_points(one, pairs) for one in MAPS[:count]]


def run(model, images, points, lora=None, detail=None):
    encoded = encode(model.image_encoder, images, adapter=lora)
    return mask_logits(model, encoded, prompt_sets(points, 2, images.device), detail)


def test_shapes_of_prompts_and_mask(parts):
    model, unet, images = parts
    maps, detail = prompt_maps(unet, images, 2)
    assert maps.shape == (2, 64, 64)
    assert detail is None
    for pairs in (0, 1, 5):
        sparse, _ = embed_prompts(model, prompt_sets(points_of(2, pairs), 2, images.device), (128, 128))
        assert sparse.shape == (2, 2 * pairs + 1 if pairs else 0, SIZES.prompt_dim)
    assert run(model, images, points_of(2)).shape == (2, 64, 64)  # four times 128 / 8


def test_a_batch_of_two_is_two_single_calls_each_with_its_own_points(parts):
    model, _, images = parts
    points = points_of(2)
    assert all(p.labels.tolist() == [1, 1, 0, 0] for p in points)
    with torch.no_grad():
        both = run(model, images, points)
        single = torch.cat([run(model, images[i : i + 1], points[i : i + 1]) for i in range(2)])
        swapped = run(model, images, points[::-1])
    assert torch.allclose(both, single, atol=1e-4)
    assert (both - swapped).abs().amax((1, 2)).min() > 1e-2


def test_one_set_of_points_is_the_reference_s_one_mask(parts):
    """Points as segment-anything takes them: x, y of pixels in the input's frame, all in one call."""
    model, _, images = parts
    points = points_of(1, 3)
    assert points[0].labels.tolist() == [1, 1, 1, 0, 0, 0]
    xy = torch.from_numpy(points[0].xy)[None] * 2 - 0.5
    labels = torch.from_numpy(points[0].labels)[None].int()
    with torch.no_grad():
        sparse, dense = model.prompt_encoder(points=(xy, labels), boxes=None, masks=None)
        embedding = model.image_encoder(images[:1])
        wanted, _ = model.mask_decoder(embedding, model.prompt_encoder.get_dense_pe(), sparse, dense, False)
        found = run(model, images[:1], points)
    assert torch.allclose(found[0], wanted[0, 0], atol=1e-3)


def test_without_lora_or_with_a_fresh_one_the_mask_is_that_of_plain_sam(parts):
    model, _, images = parts
    assert build_lora(SacConfig(0), SIZES) is None
    with torch.no_grad():
        plain = run(model, images, points_of(2))
        assert torch.equal(run(model, images, points_of(2), lora=build_lora(SMALL, SIZES)), plain)


def test_sides_that_do_not_fit_the_u_net_are_filled_up(parts):
    _, unet, images = parts
    maps, _ = prompt_maps(unet, images[:, :, :72, :104], 2)
    assert maps.shape == (2, 36, 52)
    with pytest.raises(ValueError, match="images are 72 x 104 px, accepted: multiples of 16 px"):
        unet(images[:, :, :72, :104])


def test_fresh_detail_changes_nothing_and_trained_detail_does(parts):
    model, _, images = parts
    torch.manual_seed(2)
    fine = build_unet(SacConfig(4, width=4, detail=SIZES.prompt_dim // 8)).eval()
    with torch.no_grad():
        _, detail = prompt_maps(fine, images, 2)
        plain = run(model, images, points_of(2))
        assert torch.equal(run(model, images, points_of(2), detail=detail), plain)
        fine.detail.weight.normal_()
        _, detail = prompt_maps(fine, images, 2)
        assert not torch.equal(run(model, images, points_of(2), detail=detail), plain)


def test_group_norm_sees_an_image_alone_as_in_a_batch():
    torch.manual_seed(0)
    unet = UNet(12, norm="group").train()  # 8 does not divide 12
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(unet(x)[0][:1], unet(x[:1])[0], atol=1e-5)


def test_maps_are_resized_as_sam_resizes_its_masks():
    ramp = torch.arange(4.0).repeat(4, 1)[None]
    assert upsampled(ramp, (4, 4)) is ramp
    assert np.diff(upsampled(ramp, (8, 8))[0, 0, 1:-1].numpy()) == pytest.approx(0.5)
