"""The SAM trainer learns, and is measured on known answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from gigaseg.sam.config import CONFIGS, SamConfig
from gigaseg.train.config import ColourConfig, SamTraining
from gigaseg.train.evaluate import PROMPTS, object_iou, prompted_iou, tiles
from gigaseg.train.sam import SamMethod
from gigaseg.train.windows import targets
from training import sample

TINY = SamConfig("tiny", 64, 8, 48, 2, 2, 4, (1,), 2.0, 32, decoder_heads=2, decoder_mlp=64, iou_hidden=16)
STILL = ColourConfig(
    stain=0, stretch=0, gain=0, shift=0, channel=0, gamma=0, saturation=0, invert=0, grey=0, permute=0, blur=0, noise=0
)
TRAINING = SamTraining(crop=64, objects=6, smallest=14, largest=20, window=6, full=0, colour=STILL)


def batch_of(method, samples, seed=0):
    items = [method.prepare(s, np.random.default_rng([seed, i])) for i, s in enumerate(samples)]
    return method.collate(items, np.random.default_rng(seed))


def test_one_batch_can_be_learnt_by_heart(samples):
    method = SamMethod(TINY, replace(TRAINING, corrected=0, multimask=0))
    torch.manual_seed(0)
    model = method.build().train()
    batch = batch_of(method, samples[:2])
    optimiser = torch.optim.AdamW(method.groups(model), lr=3e-3)
    found = []
    for step in range(150):
        losses = method.losses(model, batch, np.random.default_rng(step))
        losses["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        found.append({name: float(value.detach()) for name, value in losses.items()})
    assert found[-1]["iou"] > 0.6 > found[0]["iou"]
    assert found[-1]["dense"] < 0.5 * found[0]["dense"]


@pytest.mark.parametrize("multimask", [0.0, 1.0])
@pytest.mark.parametrize("remember", [0.0, 1.0])
@pytest.mark.parametrize("window", [0, 5])
def test_every_kind_of_step_gives_finite_losses_and_gradients(samples, multimask, remember, window):
    training = replace(TRAINING, corrected=1, multimask=multimask, remember=remember, window=window, fine=window == 0)
    method = SamMethod(TINY, training)
    model = method.build().train()
    losses = method.losses(model, batch_of(method, samples), np.random.default_rng(1))
    losses["loss"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    given = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert "image_encoder.patch_embed.proj.weight" in given
    assert ("prompt_encoder.mask_downscaling.0.weight" in given) == bool(remember)
    assert ("mask_decoder.output_hypernetworks_mlps.3.layers.0.weight" in given) <= bool(multimask)


def test_crops_without_objects_give_a_step(samples):
    empty = replace(samples[0], labels=np.zeros_like(samples[0].labels), diameter=float("nan"))
    method = SamMethod(TINY, TRAINING)
    model = method.build().train()
    losses = method.losses(model, batch_of(method, [empty]), np.random.default_rng(0))
    losses["loss"].backward()
    assert losses["iou"] == 0
    assert torch.isfinite(losses["loss"])


def test_only_weights_decay_and_no_parameter_is_forgotten():
    method = SamMethod(TINY, TRAINING)
    model = method.build()
    decayed, others = (group["params"] for group in method.groups(model))
    assert len(decayed) + len(others) == len(list(model.parameters()))
    assert all(p.ndim >= 2 for p in decayed)
    assert any(p is model.image_encoder.pos_embed for p in others)
    assert any(p is model.image_encoder.patch_embed.proj.weight for p in decayed)


def test_small_is_small():
    model = SamMethod(CONFIGS["small"]).build()
    encoder = sum(p.numel() for p in model.image_encoder.parameters())
    assert 4e6 < encoder < 12e6
    assert 2 * sum(p.numel() for p in model.parameters()) < 50e6


@pytest.mark.parametrize("diameter", [None, 12.0])
def test_each_object_is_measured_once_in_the_tile_where_it_is_most_central(diameter):
    whole = sample(3, side=150, count=12, radius=8)
    found = list(tiles(whole, 64, diameter, 0.25, None))
    assert len(found) > 4
    ids = torch.cat([tile.ids for tile in found]).tolist()
    assert sorted(ids) == sorted(set(ids))
    assert set(ids) == set(np.unique(whole.labels)[1:].tolist())
    sides = torch.cat([tile.boxes[:, 2:] - tile.boxes[:, :2] for tile in found])
    assert sides.max() <= (16 if diameter is None else 13)


@pytest.mark.parametrize("window", [8, 4])
def test_perfect_logits_have_iou_1_and_opposite_ones_0(samples, window):
    batch = batch_of(SamMethod(TINY, TRAINING), samples)
    truth = batch.labels[batch.image] == batch.ids[:, None, None]
    coarse = avg_pool2d(truth.float(), 2) - 0.5
    origin = (4 * (batch.centres / 8 - window / 2).round().clamp(0, 8 - window)).long()
    side = torch.arange(4 * window)
    rows = torch.arange(len(truth))[:, None, None]
    logits = coarse[rows, (origin[:, 1:] + side)[:, :, None], (origin[:, :1] + side)[:, None]][:, None]
    inside = targets(batch, origin, logits.shape[-2:], 2).flatten(1).sum(1)
    share = inside / truth.flatten(1).sum(1)  # what of an object its window holds
    found = object_iou(logits, origin, batch, 2)
    assert ((found > share - 0.3) & (found <= share + 1e-6)).all()
    assert (object_iou(-1 - logits, origin, batch, 2) < 1e-6).all()


def test_the_figures_are_means_over_objects_by_prompt_and_group(samples):
    model = SamMethod(TINY, TRAINING).build()
    found = prompted_iou(model, TINY, samples, window=5, diameter=18.0, most=None)
    assert found["objects"] == sum(len(np.unique(s.labels)) - 1 for s in samples)
    for prompt in PROMPTS:
        parts = [found[f"{prompt}/{group}"] * found[f"objects/{group}"] for group in "ab"]
        assert found[prompt] == pytest.approx(sum(parts) / found["objects"])
    assert found["score"] == pytest.approx(np.mean([found[prompt] for prompt in PROMPTS]))
    again = prompted_iou(model, TINY, samples, window=5, diameter=18.0, most=None, batch=8)
    assert again == found
