"""`--trained decoder`: the mask decoder learns over a start, the encoder with its LoRA and the U-Net stay."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gigaseg.errors import ConfigError
from gigaseg.train.config import LoopConfig
from gigaseg.train.loop import run
from gigaseg.train.sac.config import SacTraining
from gigaseg.train.sac.method import SacMethod
from samples import write_random_sam

TRAINING = SacTraining(rank=2, width=4, crop=64, letterbox=True)
LOOP = LoopConfig(
    steps=2, batch=2, rate=1e-3, warmup=0, ema=0, precision="fp32", device="cpu", threads=1, workers=0
)  # fmt: skip


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    path = tmp_path_factory.mktemp("sam") / "sam.safetensors"
    write_random_sam(path)
    return str(path)


def test_only_the_mask_decoder_learns(sam, samples, tmp_path):
    run(SacMethod(TRAINING, sam), LOOP, samples, [], tmp_path)
    start = str(tmp_path / "best.safetensors")
    method = SacMethod(replace(TRAINING, trained="decoder", start=start, neck=True), sam)
    model = method.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.SGD(method.groups(model), lr=0.1)
    rng = np.random.default_rng(0)
    batch = method.collate([method.prepare(samples[0], rng)], rng)
    losses = method.losses(model, batch, rng)
    assert losses["loss"].item() == pytest.approx(20 * float(losses["focal"]) + float(losses["dice"]), rel=1e-4)
    losses["loss"].backward()
    optimiser.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("mask_decoder.") for name in changed)


def test_it_needs_a_start(sam):
    with pytest.raises(ConfigError, match="--trained is decoder, accepted with --start"):
        SacMethod(replace(TRAINING, trained="decoder"), sam)
