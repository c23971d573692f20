"""Training of CenterSAM: a detector whose boxes prompt SAM, over a SAM that stays as it is or is trained a little."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gigaseg.errors import ConfigError
from gigaseg.sam.backend import DEFAULT_CHECKPOINT, Backend, trained_window
from gigaseg.sam.encoder import Encoded, encode, normalise
from gigaseg.sam.model import open_checkpoint
from gigaseg.segmenters.centersam.detector import Detector, DetectorConfig, build_detector
from gigaseg.train.base import Base
from gigaseg.train.batches import Batch, collate
from gigaseg.train.card import history
from gigaseg.train.centersam.config import CenterSamTraining
from gigaseg.train.centersam.crops import letterbox_affine, only_visible
from gigaseg.train.centersam.losses import detector_losses, foreground_loss
from gigaseg.train.centersam.targets import detector_targets
from gigaseg.train.colour import vary, vary_as_centernet
from gigaseg.train.config import PromptConfig, SamTraining
from gigaseg.train.crops import Crop, crop, random_affine
from gigaseg.train.data import Sample
from gigaseg.train.sam import SamMethod, decays
from gigaseg.train.whole import spread

log = logging.getLogger(__name__)

_TRAINED: dict[str, tuple[str, ...]] = {
    "none": (), "decoder": ("mask_decoder.",), "all": ("image_encoder.", "mask_decoder.")
}  # fmt: skip
"""Parts of SAM that fine-tuning changes; the prompt encoder stays."""


class CenterSamMethod:
    """Trains a detector, alone or with the SAM model that it prompts.

    Parameters
    ----------
    training : how.
    sam : SAM checkpoint by name or file; None: the one that ships.

    Attributes
    ----------
    base : what a checkpoint of this method stores changes over.
    config : sizes of the SAM model.
    detector : sizes of the detector.
    drops : shares of the run at which the learning rate falls to a tenth.
    before : what the cards of the checkpoints tell that it goes on from, the first one first.

    Raises
    ------
    CheckpointError
        The checkpoint is missing, damaged, or itself one of changes.
    ConfigError
        The crop's side or SAM's does not suit the detector or SAM.
    """

    name = "centersam"

    def __init__(self, training: CenterSamTraining | None = None, sam: str | None = None) -> None:
        t = training or CenterSamTraining()
        self._base = Base.open(sam or DEFAULT_CHECKPOINT)
        self.base = self._base.name
        self.config = self._base.config
        self.training = t = replace(t, window=t.window if t.window >= 0 else trained_window(self._base.card))
        sizes = {name: value for name in ("width", "dims", "counts", "stacks") if (value := getattr(t, name))}
        self.detector = DetectorConfig.from_dict(
            {
                "kind": t.detector,
                "classes": t.classes,
                "embedding": self.config.prompt_dim,
                "patch": self.config.patch,
                "detail": t.detail if t.detector == "light" else 0,
                **sizes,
            }
        )
        self.before: list[dict[str, Any]] = []
        self.start = self._started(t.start) if t.start else None
        with torch.device("meta"):
            multiple = build_detector(self.detector).multiple
        multiple = max(multiple, self.config.patch)
        if t.crop % multiple:
            raise ConfigError(f"--crop is {t.crop}, accepted with {t.detector} and this SAM: multiples of {multiple}")
        if t.sam_size and (not t.letterbox or t.detector == "light" or t.sam_size % self.config.patch):
            raise ConfigError(
                f"--sam-size is {t.sam_size}, accepted: multiples of {self.config.patch} with --letterbox and a "
                "detector on the image alone"
            )
        self.drops = t.drops
        prompts = PromptConfig(box=0.5, exact_box=0.5, centre=0.0)
        self._masks = SamMethod(
            self.config,
            SamTraining(
                crop=t.crop,
                corrected=0,
                multimask=0,
                dense=0,
                window=t.window,
                full=t.full,
                fine=t.fine,
                prompts=prompts,
            ),
        )

    def _started(self, start: str) -> dict[str, Tensor]:
        """SAM's tensors of the checkpoint to go on from, and those of its detector if that is like this one."""
        path, state, card = self._base.started(start)
        self.before = history(card)
        if DetectorConfig.from_dict(card["detector"]) == self.detector:
            return state
        log.warning("%s: its detector has other sizes or classes; a fresh one is trained over its SAM", path)
        return {name: value for name, value in state.items() if not name.startswith("detector.")}

    def build(self) -> nn.Module:
        """The SAM model, with the detector as its part ``detector``; what does not train is frozen."""
        model = cast(nn.Module, open_checkpoint(self.base)[0])
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name.startswith(_TRAINED[self.training.finetune])
        model.detector = build_detector(self.detector)
        if self.start is not None:
            model.load_state_dict(self.start, strict=False)  # without a detector's tensors that is fresh
        return model

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The detector's weights and SAM's, each with and without decay; none that is frozen."""
        found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                own = name.startswith("detector.")
                found.setdefault((own, parameter.ndim > 1 if own else decays(name, parameter)), []).append(parameter)
        return [
            {
                "params": parameters,
                "scale": 1.0 if own else self.training.finetune_scale,
                **({} if decayed else {"weight_decay": 0.0}),
            }
            for (own, decayed), parameters in sorted(found.items(), key=lambda item: item[0], reverse=True)
        ]

    def prepare(self, sample: Sample, rng: np.random.Generator) -> Crop:
        """A random crop at a random object scale, or as the paper cuts it."""
        t = self.training
        if t.letterbox:
            matrix = letterbox_affine(sample, t.crop, rng)
            sample = replace(sample, background=np.zeros(3, np.uint8))
        else:
            matrix = random_affine(sample, t.crop, rng, (t.smallest, t.largest))
        item = crop(sample, matrix, t.crop, rng, classes=t.classes)
        item = only_visible(item, sample, matrix, t.visible)
        if t.clahe:
            from gigaseg.segmenters.centersam.clahe import clahe

            image = clahe(item.image[None].round().clamp(0, 255).to(torch.uint8))[0].float()
            item = replace(item, image=image)
        return item

    def collate(self, items: Sequence[Crop], rng: np.random.Generator) -> Batch:
        """Crops to a batch, with all their objects."""
        return collate(items, max(len(item.ids) for item in items), rng)

    def losses(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of the detector, and of masks from true boxes when SAM is trained too."""
        t = self.training
        detector = cast(Detector, model.detector)
        with torch.autocast(batch.images.device.type, enabled=False):
            published = t.colours == "centernet"
            images = vary_as_centernet(batch.images, rng) if published else vary(batch.images, rng, t.colour)
        masks = t.finetune != "none" or self.detector.detail > 0
        encoded = self._encoded(model, images) if masks or detector.uses_embedding else None
        embedding = encoded.embedding if encoded is not None and detector.uses_embedding else None
        stacks = detector(detector.normalise(images), embedding)
        targets = detector_targets(batch, len(t.classes), batch.classes, t.margin)
        with torch.autocast(batch.images.device.type, enabled=False):
            losses = detector_losses(stacks, targets, size=t.size, offset=t.offset, variant=t.box_losses)
            detail, foreground = stacks[-1].detail, stacks[-1].foreground
            if foreground is not None:
                ground = foreground_loss(foreground, batch.labels)
                losses |= {"loss": losses["loss"] + t.foreground * ground, "foreground": ground}
        if masks and encoded is not None:
            found = self._masks.mask_losses(model, encoded, self._some(batch, rng), rng, detail)
            losses |= {"loss": losses["loss"] + t.masks * found["loss"], "masks": found["loss"], "iou": found["iou"]}
        return {name: value if name == "loss" else value.detach() for name, value in losses.items()}

    def _encoded(self, model: nn.Module, images: Tensor) -> Encoded:
        with torch.set_grad_enabled(self.training.finetune == "all" and torch.is_grad_enabled()):
            return encode(cast(Any, model).image_encoder, normalise(images, self.config))

    def _some(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """At most `objects` of each crop, at random."""
        image = batch.image.cpu().numpy()
        order = rng.permutation(len(image))
        order = order[np.argsort(image[order], kind="stable")]
        rank = np.arange(len(image)) - np.searchsorted(image, image)
        rows = np.sort(order[rank < self.training.objects])
        return batch[torch.from_numpy(rows).to(batch.image.device)]

    def validate(self, model: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """Figures of whole images through the segmenter, see `gigaseg.train.centersam.evaluate`.

        Images are scaled to the segmenter's nominal object diameter (letterbox: to fill a black square). ``threshold``
        is the best one, ``score`` the mean panoptic quality.
        """
        from gigaseg.segmenters.centersam.checkpoint import Loaded
        from gigaseg.segmenters.centersam.segmenter import CenterSam
        from gigaseg.train.centersam.evaluate import THRESHOLDS, options_of, seeing_of, segmentation_figures

        t = self.training
        device = next(model.parameters()).device
        half = torch.is_autocast_enabled(device.type)
        backend = Backend.from_model(model, self.config, {}, str(device), precision="bf16" if half else "fp32")
        loaded = Loaded(backend, cast(Detector, model.detector), {})
        segmenter = CenterSam.of(loaded, {**options_of(t), "threshold": min(THRESHOLDS)})
        return segmentation_figures(
            segmenter,
            spread(samples, t.validated),
            native=t.native and not t.letterbox,
            device=str(device),
            **seeing_of(t, segmenter.card.object_diameter),
        )

    def exported(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All tensors: SAM's by their names, the detector's as ``detector.*``."""
        return dict(values)

    def card(self) -> dict[str, Any]:
        """Sizes of SAM and the detector, the classes, the training, and which SAM it was."""
        return {
            "config": self.config.as_dict(),
            "detector": self.detector.as_dict(),
            "classes": list(self.detector.classes),
            "training": asdict(self.training),
            "sam_sha256": self._base.sha256,
            **({"before": self.before} if self.before else {}),
        }
