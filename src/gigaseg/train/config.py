"""What training can be told: the loop, and the SAM trainer with its augmentation and prompts. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from gigaseg.keys import key


@dataclass(frozen=True)
class LoopConfig:
    """Budget, optimiser, precision and records of a run; the same for every method."""

    seed: int = key(0, "seed of weights, data order, augmentation and prompts", low=0)
    steps: int = key(20_000, "optimiser steps; the schedule ends there", low=1)
    minutes: float | None = key(None, "end the schedule after this time, if that comes before the steps", low=0.01)
    batch: int = key(4, "crops a process and micro-batch", low=1)
    accumulate: int = key(1, "micro-batches a step", low=1)
    balance: float = key(0.5, "0: images as they are, 1: groups (such as modalities) equally often", low=0, high=1)
    optimiser: str = key("adamw", "adamw, or muon for the matrices of hidden layers", choices=("adamw", "muon"))
    rate: float = key(5e-4, "peak learning rate", low=0)
    schedule: str = key(
        "cosine", "cosine, down to the last step; or exponential, by epochs", choices=("cosine", "exponential")
    )
    last_rate: float = key(0.01, "final learning rate of the cosine, share of the peak", low=0, high=1)
    epoch: int = key(1000, "steps of an epoch of the exponential schedule", low=1)
    falloff: float = key(0.95, "an epoch's rate over the one's before in the exponential schedule", low=0, high=1)
    warmup: int = key(100, "steps of linear warm-up", low=0)
    decay: float = key(0.05, "weight decay", low=0)
    beta2: float = key(0.98, "second moment's decay of AdamW", low=0, high=1)
    clip: float = key(1.0, "largest norm of the gradient", low=0)
    ema: float = key(0.999, "decay of the averaged weights, which are validated and saved; 0: none", low=0, high=1)
    precision: str = key("bf16", "bf16: autocast; fp32", choices=("bf16", "fp32"))
    device: str = key("auto", "auto, cpu, cuda or cuda:N; auto takes a GPU when there is one")
    threads: int = key(0, "threads of a CPU run; 0: as torch finds", low=0)
    workers: int = key(1, "threads that prepare crops; 0: none beside the loop", low=0)
    log_every: int = key(50, "steps between rows of the log", low=1)
    save_every: int = key(100, "steps between saved states", low=1)
    validate_every: int = key(500, "steps between validations", low=1)
    patience: int = key(0, "validations without a better score before an early stop; 0: never", low=0)
    patience_after: int = key(0, "steps before which there is no early stop", low=0)


@dataclass(frozen=True)
class ColourConfig:
    """How strongly colours vary; chances are per image."""

    stain: float = key(0.2, "stain jitter: sd of each stain's log gain; H&E-like images only", low=0, high=1)
    stretch: float = key(0.3, "chance of contrast stretched to the image's own range (0.5 to 99.8 %)", low=0, high=1)
    gain: float = key(0.25, "sd of the log contrast about the image's mean", low=0, high=1)
    shift: float = key(0.08, "sd of the brightness shift, share of the full range", low=0, high=1)
    channel: float = key(0.06, "sd of the colour cast of each channel, share of the full range", low=0, high=1)
    gamma: float = key(0.3, "sd of the log gamma", low=0, high=1)
    saturation: float = key(0.4, "saturation factors range over 1 - s .. 1 + s", low=0, high=1)
    invert: float = key(0.1, "chance of a negative", low=0, high=1)
    grey: float = key(0.15, "chance of a grey image", low=0, high=1)
    permute: float = key(0.1, "chance of channels in another order", low=0, high=1)
    blur: float = key(0.25, "chance of a gaussian blur", low=0, high=1)
    blur_sigma: float = key(1.5, "largest sigma of the blur, px", low=0, high=8)
    noise: float = key(0.3, "chance of gaussian noise", low=0, high=1)
    noise_sigma: float = key(0.06, "largest sigma of the noise, share of the full range", low=0, high=1)


@dataclass(frozen=True)
class PromptConfig:
    """How often a first prompt is what; the rest are random points inside the object."""

    box: float = key(0.3, "share of jittered boxes", low=0, high=1)
    exact_box: float = key(0.15, "share of exact boxes", low=0, high=1)
    centre: float = key(0.3, "share of centre points", low=0, high=1)
    jitter: float = key(0.1, "sd of a box side's place, share of the side, at most 20 px", low=0, high=1)


@dataclass(frozen=True)
class SamTraining:
    """How a SAM model is trained."""

    crop: int = key(256, "side of a training crop, px", low=32, high=4096)
    objects: int = key(16, "objects of a crop that are prompted, at most", low=1, high=1024)
    smallest: float = key(10.0, "least median object diameter of a crop, px", low=1)
    largest: float = key(36.0, "largest median object diameter of a crop, px", low=1)
    corrected: float = key(0.35, "share of steps with corrections by points after the first prompt", low=0, high=1)
    corrections: int = key(2, "most corrections; their number is drawn a step", low=1)
    remember: float = key(0.5, "share of corrections that also get the last mask's logits as a prompt", low=0, high=1)
    multimask: float = key(0.15, "share of steps that train the three-mask output", low=0, high=1)
    window: int = key(10, "side of the decoding window, embedding cells; 0: none", low=0)
    full: float = key(0.1, "share of steps that decode the whole crop instead", low=0, high=1)
    fine: bool = key(False, "losses at the input's resolution, not at the low-res masks'")
    focal: float = key(2.0, "weight of the focal loss, summed over pixels and divided by twice the box area", low=0)
    dice: float = key(1.0, "weight of the Dice loss", low=0)
    quality: float = key(1.0, "weight of the squared error of the predicted IoU", low=0)
    dense: float = key(1.0, "weight of the dense targets on the embedding (`gigaseg.train.auxiliary`); 0: none", low=0)
    frequencies: float = key(6.0, "positions are encoded with frequencies scaled from 1 to this; 1: as SAM", low=1)
    colour: ColourConfig = key(ColourConfig, "see ColourConfig")
    prompts: PromptConfig = key(PromptConfig, "see PromptConfig")
