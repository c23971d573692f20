"""Training of CFR-SAM's second stage: adapters, fusion, refinement and SAM's mask decoder; the rest of SAM stays."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.errors import CheckpointError, ConfigError
from gigaseg.sam.backend import DEFAULT_CHECKPOINT, Backend, trained_window
from gigaseg.sam.decoder import decode
from gigaseg.sam.encoder import normalise
from gigaseg.sam.model import open_checkpoint
from gigaseg.sam.prompting import point_sets
from gigaseg.segmenters.cfrsam.config import CfrSamConfig, PointsConfig
from gigaseg.segmenters.cfrsam.model import ADDED, Added, Images, coarse, encode_images, refined
from gigaseg.segmenters.cfrsam.points import PointNet, build_points, propose_points
from gigaseg.segmenters.cfrsam.points_checkpoint import PREFIX, LoadedPoints, open_points
from gigaseg.train.base import Base
from gigaseg.train.batches import Batch, collate
from gigaseg.train.card import history
from gigaseg.train.cfrsam.config import CfrSamTraining
from gigaseg.train.cfrsam.crops import diameters
from gigaseg.train.cfrsam.losses import Weights, inner_boundary, mask_losses, total
from gigaseg.train.cfrsam.prompts import prompt_points, told_points
from gigaseg.train.colour import vary
from gigaseg.train.crops import Crop, crop, random_affine
from gigaseg.train.data import Sample
from gigaseg.train.sam import decays
from gigaseg.train.whole import spread
from gigaseg.train.windows import targets

log = logging.getLogger(__name__)


class CfrSamMethod:
    """Trains what CFR-SAM adds to a SAM model, and its mask decoder.

    Parameters
    ----------
    training : how.
    sam : SAM checkpoint by name or file; None: the one that ships.

    Attributes
    ----------
    base : what a checkpoint of this method stores changes over.
    config : sizes of the SAM model.
    cfrsam : what is added.
    before : what the cards of the checkpoints tell that it goes on from, the first one first.

    Raises
    ------
    CheckpointError
        A checkpoint is missing or damaged, the base itself one of changes; the one to start from is for another SAM.
    ConfigError
        The crop's side does not fit SAM, or classes are not those of the point learner.
    """

    name = "cfrsam"

    def __init__(self, training: CfrSamTraining | None = None, sam: str | None = None) -> None:
        t = training or CfrSamTraining()
        self._base = Base.open(sam or DEFAULT_CHECKPOINT)
        self.base = self._base.name
        self.config = self._base.config
        t = replace(t, window=t.window if t.window >= 0 else trained_window(self._base.card))
        if t.crop % self.config.patch:
            raise ConfigError(f"--crop is {t.crop}, accepted with this SAM: multiples of {self.config.patch}")
        self.cfrsam = CfrSamConfig(t.rank, t.kernels, t.fusion, t.refinement, t.enhancement, t.guidance, t.base)
        with torch.device("meta"):
            Added(self.cfrsam, self.config)  # raises where SAM does not suit it
        self._points: LoadedPoints | None = open_points(t.points) if t.points else None
        known = self._points.config.classes if self._points else ("nucleus",)
        if t.classes and self._points and t.classes != known:
            raise ConfigError(
                f"--classes is {' '.join(t.classes)}, accepted: those of {t.points}, {' '.join(known)}, or none"
            )
        self.training = t = replace(t, classes=t.classes or known)
        self.drops = t.drops
        self.before: list[dict[str, Any]] = []
        self.start = self._started(t.start) if t.start else None

    def _started(self, start: str) -> dict[str, Tensor]:
        """SAM's tensors of the checkpoint to go on from, and those that are added."""
        path, state, card = self._base.started(start)
        known = CfrSamConfig.from_dict(card["cfrsam"]) if "cfrsam" in card else None
        if known != self.cfrsam:
            found = "no CFR-SAM" if known is None else str(known.as_dict())
            raise CheckpointError(f"{path}: has {found}, accepted: {self.cfrsam.as_dict()}, as in the options")
        self.before = history(card)
        return {name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)}

    def build(self) -> nn.Module:
        """The SAM model with its parts ``cfrsam`` and, with a learner, ``points``; what does not train is frozen."""
        model = cast(nn.Module, open_checkpoint(self.base)[0])
        model.add_module(ADDED.rstrip("."), Added(self.cfrsam, self.config))
        if self.start is not None:
            model.load_state_dict(self.start)
        if self._points is not None:
            with torch.device("meta"):
                net = build_points(self._points.config)
            net.load_state_dict(
                {name: value.clone() for name, value in self._points.net.state_dict().items()}, assign=True
            )
            model.add_module(PREFIX.rstrip("."), net)
        unused = tuple(f"mask_decoder.output_hypernetworks_mlps.{i}." for i in (1, 2, 3))  # of the three other masks
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name.startswith((ADDED, "mask_decoder.")) and not name.startswith(unused)
        return model

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """What is added and SAM's own, each with and without decay; none that is frozen."""
        found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                own = name.startswith(ADDED)
                decayed = parameter.ndim > 1 and not name.endswith("scale") if own else decays(name, parameter)
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
        """A random crop at a random object scale."""
        t = self.training
        return crop(sample, random_affine(sample, t.crop, rng, diameters(t, sample)), t.crop, rng)

    def collate(self, items: Sequence[Crop], rng: np.random.Generator) -> Batch:
        """Crops to a batch, with at most `objects` objects each."""
        return collate(items, self.training.objects, rng)

    def losses(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of coarse and refined masks from one point an object, and of the refined ones' boundaries."""
        t = self.training
        net = cast(Any, model)
        with torch.autocast(batch.images.device.type, enabled=False):
            varied = vary(batch.images, rng, t.colour)
            pixels = normalise(varied, self.config)
        told = told_points(batch, self._found(net.points.eval(), varied)) if self._points and t.told else None
        rows, points = prompt_points(batch, told, t.told, t.random, rng)
        if not len(rows):  # every process takes its step
            zero = net.mask_decoder.iou_token.weight.sum() * 0  # what trains in any configuration
            names = ("loss", "focal", "dice", "quality", "boundary", "coarse")
            return {name: zero if name == "loss" else zero.detach() for name in names}
        seen = encode_images(net, net.cfrsam, pixels)
        part = batch[rows]
        weights = Weights(t.focal, t.dice, t.quality, t.boundary)
        rough, fine, edges, truth = self._masks(net, seen, part, points)
        with torch.autocast(batch.images.device.type, enabled=False):
            parts = [
                mask_losses(some.float(), truth.float(), quality, each=t.each)
                for some, quality in ([rough] if fine is None else [rough, fine])
            ]
            boundary = None
            if edges is not None:
                boundary = F.binary_cross_entropy_with_logits(edges.float(), inner_boundary(truth).float())
            loss = total(parts, boundary, weights)
        last = {name: value.detach() for name, value in parts[-1].items()}
        none = torch.zeros((), device=loss.device)
        return {
            "loss": loss,
            **last,
            "boundary": none if boundary is None else boundary.detach(),
            "coarse": parts[0]["dice"].detach(),
        }

    def _found(self, net: PointNet, images: Tensor) -> list[Any]:
        threshold = self._points.threshold if self._points else 0.0
        t = self.training
        return propose_points(net, images, threshold=threshold, radius=t.radius, use_mask=t.use_mask)

    def _masks(
        self, model: Any, seen: Images, part: Batch, points: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None, Tensor | None, Tensor]:
        """Coarse and refined logits (n, y, x) with their predicted IoU, boundaries, and the truth, all in windows.

        Without a refinement there are the coarse ones alone.
        """
        added = cast(Added, model.cfrsam)
        sets = point_sets(part.image, points - 0.5)
        decoded = decode(
            model, seen.encoded, sets, window=self.training.window or None, features=added.refine is not None
        )
        stride = self.config.patch // 4
        truth = targets(part, decoded.origin, tuple(decoded.logits.shape[-2:]), stride)
        quality = decoded.quality[:, 0]
        rough = coarse(decoded.logits, stride)[:, 0]
        if seen.maps is None:
            return (rough, quality), None, None, truth
        finer, edges = refined(added, decoded, seen.maps, part.image)
        return (rough, quality), (finer.logits[:, 0], quality), edges, truth

    def validate(self, model: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """Figures of whole images through the segmenter; ``score`` is the mean AJI.

        Without a point learner: mean IoU of masks from the objects' middles, see `gigaseg.train.cfrsam.evaluate`.
        """
        from gigaseg.segmenters.cfrsam.checkpoint import Adapted, Loaded
        from gigaseg.segmenters.cfrsam.segmenter import CfrSam
        from gigaseg.train.cfrsam.evaluate import middles_iou
        from gigaseg.train.whole import segmentation_figures

        device = next(model.parameters()).device
        half = torch.is_autocast_enabled(device.type)
        backend = Backend.from_model(model, self.config, {}, str(device), precision="bf16" if half else "fp32")
        adapted = Adapted(backend, cast(Added, model.cfrsam))
        some = spread(samples, self.training.validated)
        if self._points is None:
            return middles_iou(adapted, some, self.training)
        points = replace(self._points, net=cast(PointNet, model.points))
        loaded = Loaded(points, self.cfrsam, self.card(), lambda: adapted)
        t = self.training
        segmenter = CfrSam.of(loaded, {"window": t.window, "radius": t.radius, "use_mask": t.use_mask})
        found = segmentation_figures(segmenter, some, device=str(device), native=t.native)
        return {**found, "score": found["aji"]}

    def exported(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All tensors: SAM's by their names, what is added as ``cfrsam.*``, the learner's as ``points.*``."""
        return dict(values)

    def card(self) -> dict[str, Any]:
        """Sizes of SAM, of what is added and of the learner, the classes, the training, and which SAM it was."""
        points: dict[str, Any] = {}
        if self._points is not None:
            config: PointsConfig = self._points.config
            points = {"points": config.as_dict(), "threshold": self._points.threshold}
            points["points_trained"] = history(self._points.card)
        return {
            "config": self.config.as_dict(),
            "cfrsam": self.cfrsam.as_dict(),
            "classes": list(self.training.classes),
            **points,
            "training": asdict(self.training),
            "sam_sha256": self._base.sha256,
            **({"before": self.before} if self.before else {}),
        }
