"""A tiny SAC that has learnt to see bright discs, after some seconds of training."""

import numpy as np

from gigaseg.sam.checkpoints import read_state
from gigaseg.train.config import ColourConfig, LoopConfig
from gigaseg.train.data import Sample
from gigaseg.train.loop import run
from gigaseg.train.sac.config import SacTraining
from gigaseg.train.sac.method import SacMethod
from samples import write_random_sam

SIDE = 128
RADIUS = 13
"""Px: the segmenter's nominal diameter is 26."""

STILL = ColourConfig(
    **dict.fromkeys(
        ("stain", "stretch", "gain", "shift", "channel", "gamma", "saturation", "invert", "grey", "permute", "blur",
         "noise"), 0.0,
    )
)  # fmt: skip


def scene(centres, side=SIDE, radius=RADIUS):
    """Image (side, side, 3) uint8 of bright discs about x, y on a dark ground, and its label image."""
    y, x = np.mgrid[:side, :side] + 0.5
    labels = np.zeros((side, side), np.int32)
    for number, (cx, cy) in enumerate(centres, 1):
        labels[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = number
    image = np.where(labels[..., None] > 0, (60, 190, 110), 25)
    noise = np.random.default_rng(0).normal(0, 4, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8), labels


def disc_samples(count):
    rng = np.random.default_rng(0)
    for i in range(count):
        image, labels = scene(rng.uniform(0, SIDE, (4, 2)))
        yield Sample(f"s{i}", "", image, labels, 2.0 * RADIUS, np.full(3, 25, np.uint8))


def write_learnt_sac(folder, steps=60, **changes):
    """Train it; returns the file of its checkpoint."""
    base = folder / "sam.safetensors"
    write_random_sam(base)
    training = SacTraining(
        rank=4, width=8, crop=96, smallest=22, largest=30, fewer=0.4, unet_scale=2, colour=STILL, **changes
    )  # fmt: skip
    loop = LoopConfig(
        steps=steps, batch=4, rate=5e-3, warmup=10, beta2=0.95, ema=0.9, precision="fp32", device="cpu", threads=1,
        workers=0, log_every=1000, save_every=1000, validate_every=1000,
    )  # fmt: skip
    run(SacMethod(training, str(base)), loop, list(disc_samples(16)), [], folder)
    path = folder / "best.safetensors"
    assert read_state(path)[1]["step"] == steps
    return path
