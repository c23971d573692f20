"""Training of DenseSAM: injection, mask token and heads, while all of SAM stays as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gigaseg.errors import CheckpointError, ConfigError
from gigaseg.files import sha256_file
from gigaseg.sam.backend import DEFAULT_CHECKPOINT, Backend
from gigaseg.sam.checkpoints import checkpoint_path, read_checkpoint
from gigaseg.sam.encoder import Encoded, encode, normalise
from gigaseg.sam.model import open_checkpoint
from gigaseg.segmenters.densesam.config import DenseSamConfig
from gigaseg.segmenters.densesam.model import DENSE, Dense, dense_maps, upsampled
from gigaseg.train.base import Base
from gigaseg.train.batches import Batch, collate
from gigaseg.train.card import history
from gigaseg.train.colour import vary
from gigaseg.train.crops import Crop, affine, crop, random_affine
from gigaseg.train.data import Sample
from gigaseg.train.densesam.cache import FeatureCache
from gigaseg.train.densesam.config import DenseSamTraining
from gigaseg.train.densesam.losses import contrastive, point_losses
from gigaseg.train.densesam.targets import boundary_target, token_labels
from gigaseg.train.sam import decays
from gigaseg.train.whole import spread


class DenseSamMethod:
    """Trains what DenseSAM adds to a SAM model.

    Parameters
    ----------
    training : how.
    sam : SAM checkpoint by name or file; None: the one that ships.

    Attributes
    ----------
    base : what a checkpoint of this method stores changes over.
    config : sizes of the SAM model.
    densesam : what is added.
    before : what the cards of the checkpoints tell that it goes on from, the first one first.

    Raises
    ------
    CheckpointError
        The checkpoint is missing, damaged, or itself one of changes; the one to start from is for another SAM.
    ConfigError
        The crop's side, a layer or the use of a cache does not fit.
    """

    name = "densesam"
    drops = ()

    def __init__(self, training: DenseSamTraining | None = None, sam: str | None = None) -> None:
        self.training = t = training or DenseSamTraining()
        self._base = Base.open(sam or DEFAULT_CHECKPOINT)
        self.base = self._base.name
        self.config = self._base.config
        if t.crop % self.config.patch:
            raise ConfigError(f"--crop is {t.crop}, accepted with this SAM: multiples of {self.config.patch}")
        if len(t.classes) != 1:
            raise ConfigError(f"--classes is {' '.join(t.classes)}, accepted: one name, as there is one kind of object")
        if t.cache is not None and t.views == "free":
            raise ConfigError("--cache: accepted with --views fixed or whole; free views never come again")
        if t.cache is not None and t.trained == "all":
            raise ConfigError("--cache: accepted with a frozen encoder; --trained all changes it")
        self.densesam = DenseSamConfig(
            heads=t.heads,
            local_branch=t.local_branch,
            global_branch=t.global_branch,
            inner_idx=t.inner_idx,
            site=t.site,
            image_token_update=t.image_token_update,
            iou_token=t.iou_token,
            classes=t.classes,
        )
        try:
            DenseSamConfig.from_dict(self.densesam.as_dict()).check_fit(len(self.config.global_blocks))
        except CheckpointError as error:
            raise ConfigError(f"--inner-idx: {error}") from error
        self.before: list[dict[str, Any]] = []
        self.start = self._started(t.start) if t.start else None
        self._cache = None
        if t.cache is not None:
            # the layers also where nothing is injected: so an ablation's rows share their files
            self._cache = FeatureCache(Path(t.cache), self._encoder_sha256(), t.inner_idx)

    def _started(self, start: str) -> dict[str, Tensor]:
        """All tensors of the checkpoint to go on from."""
        path, state, card = self._base.started(start)
        if "densesam" not in card:
            raise CheckpointError(f"{path}: holds no DenseSAM; accepted: a checkpoint of `gigaseg train densesam`")
        try:
            known = DenseSamConfig.from_dict(card["densesam"])
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        for name in ("heads", "local_branch", "global_branch", "inner_idx", "site", "image_token_update", "iou_token"):
            found, wanted = getattr(known, name), getattr(self.densesam, name)
            if found != wanted:
                raise CheckpointError(f"{path}: {name} is {found}, accepted: {wanted}, as in the options of this run")
        self.before = history(card)
        return state

    def _encoder_sha256(self) -> str:
        """Of the file whose encoder the model has: the start's, where that has trained one, else the base's."""
        known = read_checkpoint(self.base)[1]
        encoder = {name: tensor for name, tensor in (self.start or {}).items() if name.startswith("image_encoder.")}
        if all(torch.equal(tensor.float(), known[name].float()) for name, tensor in encoder.items()):
            return self._base.sha256
        return sha256_file(checkpoint_path(str(self.training.start)))

    def build(self) -> nn.Module:
        """The SAM model with its part ``densesam``; what does not train is frozen."""
        model = cast(nn.Module, open_checkpoint(self.base)[0])
        dense = Dense(self.densesam, self.config)
        dense.start_from(model, self.densesam.iou_token)
        model.add_module(DENSE.rstrip("."), dense)
        if self.start is not None:
            model.load_state_dict(self.start)
        trainable(model, self.training.trained, update=self.densesam.image_token_update)
        return model

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """What is added and SAM's own, each with and without decay; none that is frozen."""
        found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                own = name.startswith(DENSE)
                decayed = parameter.ndim > 1 and "token" not in name if own else decays(name, parameter)
                found.setdefault((own, decayed), []).append(parameter)
        return [
            {
                "params": parameters,
                "scale": 1.0 if own else self.training.sam_scale,
                **({} if decayed else {"weight_decay": 0.0}),
            }
            for (own, decayed), parameters in sorted(found.items(), key=lambda item: item[0], reverse=True)
        ]

    def prepare(self, sample: Sample, rng: np.random.Generator) -> Crop:
        """One view of an image."""
        t = self.training
        if t.views == "free":
            return crop(sample, random_affine(sample, t.crop, rng, (t.smallest, t.largest)), t.crop, rng)
        turn, flip = (int(rng.integers(4)), bool(rng.integers(2))) if t.turned else (0, False)
        if t.views == "whole":
            height, width = sample.labels.shape
            scale, centre = t.crop / max(height, width), (width / 2, height / 2)
            sample = replace(sample, background=np.zeros(3, np.uint8))
        else:
            scale = self._scale(sample)
            places = grid(sample.labels.shape, t.crop / scale)
            centre = places[int(rng.integers(len(places)))]
        return crop(sample, affine(scale, math.pi / 2 * turn, flip, centre, t.crop), t.crop, rng)

    def _scale(self, sample: Sample) -> float:
        middle = math.sqrt(self.training.smallest * self.training.largest)
        return min(middle / sample.diameter, 8.0) if sample.diameter > 0 else 1.0

    def collate(self, items: Sequence[Crop], rng: np.random.Generator) -> Batch:
        """Crops to a batch."""
        return collate(items, 0, rng)  # the label images are all that is asked for

    def losses(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """Cross entropy and Dice at points of both maps, which count the same, and the contrastive loss."""
        t = self.training
        net = cast(Any, model)
        with torch.autocast(batch.images.device.type, enabled=False):
            images = batch.images if t.views != "free" else vary(batch.images, rng, t.colour)
            pixels = normalise(images, self.config)
        with torch.set_grad_enabled(torch.is_grad_enabled() and t.trained == "all"):
            encoded = self._encoded(net, pixels)
        found = dense_maps(net, net.densesam, self.densesam, encoded)
        targets = [batch.labels > 0]
        if t.heads == 2:
            targets.append(boundary_target(batch.labels, t.thicker))
        truth = torch.stack(targets, 1).float()
        logits = upsampled(found.logits, (truth.shape[2], truth.shape[3]))
        cross, dice = point_losses(logits.flatten(0, 1), truth.flatten(0, 1), t.points)
        parts = {"bce": cross, "dice": dice}
        loss = t.bce * cross + t.dice * dice
        if found.contrast is not None and t.contrastive:
            h, w = encoded.embedding.shape[2:]
            own = token_labels(truth[:, 0], (h, w))
            parts["contrastive"] = contrastive(found.contrast.flatten(0, 1), own.flatten())
            loss = loss + t.contrastive * parts["contrastive"]
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}

    def _encoded(self, net: Any, pixels: Tensor) -> Encoded:
        def run(some: Tensor) -> Encoded:
            return encode(net.image_encoder, some, hidden=True)

        return run(pixels) if self._cache is None else self._cache.encode(pixels, run)

    def validate(self, model: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """Figures of whole images through the segmenter; ``score`` is the mean AJI, with one head the pixels' IoU."""
        from gigaseg.segmenters.densesam.checkpoint import Loaded
        from gigaseg.segmenters.densesam.segmenter import DenseSam
        from gigaseg.train.densesam.evaluate import seen_as
        from gigaseg.train.whole import segmentation_figures

        device = next(model.parameters()).device
        half = torch.is_autocast_enabled(device.type)
        backend = Backend.from_model(model, self.config, {}, str(device), precision="bf16" if half else "fp32")
        loaded = Loaded(backend, cast(Dense, model.densesam), self.densesam, {})
        options, seen = seen_as(asdict(self.training))
        segmenter = DenseSam.of(loaded, options)
        some = spread(samples, self.training.validated)
        found = segmentation_figures(segmenter, some, device=str(device), **seen)
        return {**found, "score": found["aji" if self.densesam.heads == 2 else "pixel_iou"]}

    def exported(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All tensors: SAM's by their names, what is added as ``densesam.*``."""
        return dict(values)

    def card(self) -> dict[str, Any]:
        """Sizes of SAM, what is added, the class, the training, and which SAM it was."""
        training = {name: value for name, value in asdict(self.training).items() if name != "cache"}
        return {
            "config": self.config.as_dict(),
            "densesam": self.densesam.as_dict(),
            "classes": list(self.densesam.classes),
            "training": training,
            "sam_sha256": self._base.sha256,
            **({"before": self.before} if self.before else {}),
        }


def trainable(model: nn.Module, trained: str, *, update: bool) -> None:
    """Let only what is added train, but its IoU token; with "decoder" SAM's transformer and upscaling and that too.

    "all": the encoder beside them; the prompt encoder stays.

    Parameters
    ----------
    model : SAM with its part ``densesam``.
    update : image tokens take in what they attend to; without it no loss reaches that attention.
    """
    decoder = ("mask_decoder.transformer.", "mask_decoder.output_upscaling.")
    more = {"added": (), "decoder": decoder, "all": (*decoder, "image_encoder.")}[trained]
    for name, parameter in model.named_parameters():
        idle = name == f"{DENSE}iou_token" if not more else not update and "cross_attn_image_to_token" in name
        parameter.requires_grad = name.startswith((DENSE, *more)) and not idle


def grid(shape: tuple[int, int], side: float) -> list[tuple[float, float]]:
    """Middles x, y of the tiles of a grid over an image, the last ones moved back to its border.

    Parameters
    ----------
    shape : height and width, px.
    side : of a tile, px. A shorter image lies in the middle of its tile.
    """
    axes = []
    for length in shape:
        if length <= side:
            axes.append([length / 2])
        else:
            axes.append(np.linspace(side / 2, length - side / 2, math.ceil(length / side)).tolist())
    return [(x, y) for y in axes[0] for x in axes[1]]
