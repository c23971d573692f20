"""Training of SAC: LoRA in SAM's encoder, the mask decoder, and the U-Net that prompts it, in one loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.errors import CheckpointError, ConfigError
from gigaseg.sam.adapters import Lora
from gigaseg.sam.backend import DEFAULT_CHECKPOINT, Backend
from gigaseg.sam.encoder import encode, normalise
from gigaseg.sam.model import open_checkpoint
from gigaseg.segmenters.sac.config import SacConfig
from gigaseg.segmenters.sac.model import (
    LORA,
    UNET,
    build_lora,
    build_unet,
    mask_logits,
    prompt_maps,
    prompt_sets,
    upsampled,
)
from gigaseg.segmenters.sac.points import select_points
from gigaseg.segmenters.sac.unet import UNet
from gigaseg.train.base import Base
from gigaseg.train.batches import Batch, collate
from gigaseg.train.card import history
from gigaseg.train.colour import vary
from gigaseg.train.crops import Crop, affine, crop, random_affine
from gigaseg.train.data import Sample
from gigaseg.train.losses import dice, focal
from gigaseg.train.sac.config import SacTraining
from gigaseg.train.sam import decays
from gigaseg.train.whole import spread

_DEEP = 24
"""Blocks of an encoder from which on `auto` computes activations again."""


class SacMethod:
    """Trains what SAC adds to a SAM model, and its mask decoder.

    SAM's losses do not reach the U-Net, whose points are picked, nor the U-Net's SAM; with `SacTraining.detail`, our
    addition, the masks' losses do reach the U-Net.

    Parameters
    ----------
    training : how.
    sam : SAM checkpoint by name or file; None: the one that ships.

    Attributes
    ----------
    base : what a checkpoint of this method stores changes over.
    config : sizes of the SAM model.
    sac : sizes of what is added.
    before : what the cards of the checkpoints tell that it goes on from, the first one first.

    Raises
    ------
    CheckpointError
        The checkpoint is missing, damaged, or itself one of changes; the one to start from is for another SAM.
    ConfigError
        Sides do not fit, or `trained` is "sam" or "decoder" without a start.
    """

    name = "sac"
    drops = ()

    def __init__(self, training: SacTraining | None = None, sam: str | None = None) -> None:
        self.training = t = training or SacTraining()
        self._base = Base.open(sam or DEFAULT_CHECKPOINT)
        self.base = self._base.name
        self.config = self._base.config
        if self.config.patch % t.reduction:
            raise ConfigError(
                f"--reduction is {t.reduction}, accepted with '{self.config.name}': divisors of its patch, "
                f"{self.config.patch} px"
            )
        planes = self.config.prompt_dim // 8
        if t.detail not in (-1, 0, planes):
            raise ConfigError(f"--detail is {t.detail}, accepted with '{self.config.name}': 0 or {planes} (-1)")
        if t.detail and t.reduction > self.config.patch // 4:
            raise ConfigError(
                f"--reduction is {t.reduction}, accepted with --detail: up to {self.config.patch // 4}, the px of a "
                "low-res mask's pixel"
            )
        if len(t.classes) != 1:
            raise ConfigError(f"--classes is {' '.join(t.classes)}, accepted: one name, as there is one mask")
        self.sac = SacConfig(
            rank=self.config.embed_dim // 4 if t.rank < 0 else t.rank,
            alpha=t.alpha,
            width=t.width,
            norm=t.norm,
            reduction=t.reduction,
            detail=planes if t.detail else 0,
            pairs=t.pairs,
            rule=t.rule,
            classes=t.classes,
        )
        with torch.device("meta"):
            unet = build_unet(self.sac)
        multiple = math.lcm(self.config.patch, unet.multiple * t.reduction)
        if t.crop % multiple:
            raise ConfigError(f"--crop is {t.crop}, accepted with this SAM and --reduction: multiples of {multiple}")
        self._prompter = t.trained in ("all", "unet")  # whether the U-Net trains
        if not self._prompter and not t.start:
            raise ConfigError(f"--trained is {t.trained}, accepted with --start, which brings a trained U-Net")
        self.before: list[dict[str, Any]] = []
        self.start = self._started(t.start) if t.start else None

    def _started(self, start: str) -> dict[str, Tensor]:
        """All tensors of the checkpoint to go on from."""
        path, state, card = self._base.started(start)
        sizes = ("rank", "alpha", "width", "norm", "reduction", "detail")
        known = SacConfig.from_dict(card["sac"]) if "sac" in card else None
        wrong = [] if known is None else [name for name in sizes if getattr(known, name) != getattr(self.sac, name)]
        if known is None or wrong:
            found = "no SAC" if known is None else f"{wrong[0]} {getattr(known, wrong[0])}"
            wanted = "" if known is None else f", which is {getattr(self.sac, wrong[0])} here"
            raise CheckpointError(f"{path}: has {found}{wanted}; accepted: a checkpoint of the same sizes")
        self.before = history(card)
        return state

    def build(self) -> nn.Module:
        """The SAM model with its parts ``lora`` and ``unet``; what does not train is frozen."""
        model = cast(nn.Module, open_checkpoint(self.base)[0])
        model.unet = build_unet(self.sac)
        model.add_module("lora", build_lora(self.sac, self.config))
        if self.start is not None:
            model.load_state_dict(self.start)
        trainable(model, self.training)
        return model

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The U-Net's weights and SAM's, each with and without decay; none that is frozen."""
        found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                own = name.startswith(UNET)
                decayed = parameter.ndim > 1 if own or name.startswith(LORA) else decays(name, parameter)
                found.setdefault((own, decayed), []).append(parameter)
        return [
            {
                "params": parameters,
                "scale": self.training.unet_scale if own else 1.0,
                **({} if decayed else {"weight_decay": 0.0}),
            }
            for (own, decayed), parameters in sorted(found.items(), key=lambda item: item[0], reverse=True)
        ]

    def prepare(self, sample: Sample, rng: np.random.Generator) -> Crop:
        """A random crop at a random object scale, or the whole image on black."""
        t = self.training
        if not t.letterbox:
            return crop(sample, random_affine(sample, t.crop, rng, (t.smallest, t.largest)), t.crop, rng)
        height, width = sample.labels.shape
        turn, flip = math.pi / 2 * rng.integers(4), bool(rng.random() < 0.5)
        matrix = affine(t.crop / max(height, width), turn, flip, (width / 2, height / 2), t.crop)
        return crop(replace(sample, background=np.zeros(3, np.uint8)), matrix, t.crop, rng)

    def collate(self, items: Sequence[Crop], rng: np.random.Generator) -> Batch:
        """Crops to a batch."""
        return collate(items, max(len(item.ids) for item in items), rng)

    def losses(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """Cross entropy of the U-Net, and focal and Dice loss of the mask from its points.

        SAC's eq. 6 to 8 leave weights and constants open: 20 : 1 as SAM has them, alpha 0.25, gamma 2, smoothing 1.
        """
        t = self.training
        with torch.autocast(batch.images.device.type, enabled=False):
            images = normalise(vary(batch.images, rng, t.colour), self.config)
        truth = (batch.labels > 0).float()
        unet = cast(UNet, model.unet).train(self._prompter)
        with torch.set_grad_enabled(torch.is_grad_enabled() and (self._prompter or t.trained == "sam")):
            maps, detail = prompt_maps(unet, images, t.reduction)
        small = F.avg_pool2d(truth[:, None], t.reduction)[:, 0]
        found = {"bce": F.binary_cross_entropy_with_logits(maps.float(), small)}
        loss = t.bce * found["bce"] if self._prompter else 0.0
        if t.trained != "unet":
            logits = self._masks(model, images, maps, small, detail, rng)
            found |= {"focal": focal(logits, truth).mean(), "dice": dice(logits, truth).mean()}
            loss = loss + t.focal * found["focal"] + t.dice * found["dice"]
        return {"loss": cast(Tensor, loss), **{name: value.detach() for name, value in found.items()}}

    def _masks(
        self,
        model: nn.Module,
        images: Tensor,
        maps: Tensor,
        truth: Tensor,
        detail: Tensor | None,
        rng: np.random.Generator,
    ) -> Tensor:
        """Logits of the masks (b, y, x), from points of the U-Net's maps or of the truth at their size."""
        t = self.training
        pairs = int(rng.integers(t.pairs)) if t.pairs and rng.random() < t.fewer else t.pairs
        own = maps.detach().float().sigmoid()
        told = torch.from_numpy(rng.random(len(own)) < t.truth).to(own.device)
        seen = torch.where(told[:, None, None], truth, own).cpu().numpy()
        points = [select_points(one, pairs, t.rule, rng=rng) for one in seen]
        sets = prompt_sets(points, t.reduction, images.device)
        # a frozen encoder keeps no activations anyway
        again = t.checkpointing == "on" or (t.checkpointing == "auto" and self.config.depth >= _DEEP)
        again &= t.trained != "decoder"
        encoder = cast(Any, model).image_encoder
        encoded = encode(encoder, images, adapter=cast(Lora | None, model.lora), checkpointing=again)
        height, width = images.shape[-2:]
        return upsampled(mask_logits(model, encoded, sets, detail), (height, width))

    def validate(self, model: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """Figures of whole images through the segmenter, see `gigaseg.train.sac.evaluate`; ``score`` is mean Dice.

        While the U-Net trains alone, the figures are those of its own map.
        """
        from gigaseg.segmenters.sac.checkpoint import Loaded
        from gigaseg.segmenters.sac.segmenter import Sac
        from gigaseg.train.sac.evaluate import UnetAlone, seen_as
        from gigaseg.train.whole import segmentation_figures

        t = self.training
        device = next(model.parameters()).device
        half = torch.is_autocast_enabled(device.type)
        some = spread(samples, t.validated)
        backend = Backend.from_model(model, self.config, {}, str(device), precision="bf16" if half else "fp32")
        loaded = Loaded(backend, cast(UNet, model.unet), self.sac, {}, cast(Lora | None, model.lora))
        options, side = seen_as(asdict(t))
        segmenter = (UnetAlone if t.trained == "unet" else Sac).of(loaded, options)
        found = segmentation_figures(segmenter, some, side=side, device=str(device))
        return {**found, "score": found["pixel_dice"]}

    def exported(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All tensors: SAM's by their names, what is added as ``lora.*`` and ``unet.*``."""
        return dict(values)

    def card(self) -> dict[str, Any]:
        """Sizes of SAM and of what is added, the class, the training, and which SAM it was."""
        return {
            "config": self.config.as_dict(),
            "sac": self.sac.as_dict(),
            "classes": list(self.sac.classes),
            "training": asdict(self.training),
            "sam_sha256": self._base.sha256,
            **({"before": self.before} if self.before else {}),
        }


def trainable(model: nn.Module, training: SacTraining) -> None:
    """Let the parameters train that `training` names, and freeze all others: SAM's encoder and prompt encoder.

    Parameters
    ----------
    model : SAM with its parts ``lora`` and ``unet``.
    """
    decoder, detail = "mask_decoder.", f"{UNET}detail."
    parts = {"all": (UNET, LORA, decoder), "unet": (UNET,), "sam": (LORA, decoder, detail), "decoder": (decoder,)}
    neck = ("image_encoder.neck.",) if training.neck and training.trained in ("all", "sam") else ()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith((*parts[training.trained], *neck))
