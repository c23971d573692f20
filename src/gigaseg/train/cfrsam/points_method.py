"""Training of CFR-SAM's point learner: a whole model of its own, without SAM."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gigaseg.errors import CheckpointError, ConfigError
from gigaseg.sam.checkpoints import fitted, read_checkpoint, read_state
from gigaseg.segmenters.cfrsam.backbone import ConvNextBackbone
from gigaseg.segmenters.cfrsam.config import PointsConfig
from gigaseg.segmenters.cfrsam.points import PointNet, build_points, normalised
from gigaseg.segmenters.cfrsam.points_checkpoint import PREFIX, points_from
from gigaseg.train.batches import Batch, collate
from gigaseg.train.card import history
from gigaseg.train.cfrsam.crops import diameters
from gigaseg.train.cfrsam.points_config import CfrPointsTraining
from gigaseg.train.cfrsam.points_evaluate import DIAMETER, point_figures
from gigaseg.train.cfrsam.points_losses import point_losses
from gigaseg.train.cfrsam.points_truth import with_points
from gigaseg.train.colour import vary
from gigaseg.train.crops import Crop, crop, random_affine
from gigaseg.train.data import Sample
from gigaseg.train.whole import spread

log = logging.getLogger(__name__)

_CLASSIFIER = "classify.3."
"""The layer whose size follows the number of classes."""


class CfrPointsMethod:
    """Trains a point learner.

    Parameters
    ----------
    training : how.

    Attributes
    ----------
    points : sizes of the net.
    before : what the cards of the checkpoints tell that it goes on from, the first one first.

    Raises
    ------
    CheckpointError
        A file of weights is missing, damaged, another method's, or of another size.
    ConfigError
        Options do not suit each other.
    SegmenterError
        The backbone needs a package that is missing.
    """

    name = "cfrsam-points"
    base = None
    drops = ()

    def __init__(self, training: CfrPointsTraining | None = None) -> None:
        self.training = t = training or CfrPointsTraining()
        sizes = {name: getattr(t, name) for name in PointsConfig.__dataclass_fields__}
        try:
            self.points = PointsConfig.from_dict(sizes)
        except CheckpointError as error:
            name = str(error).removeprefix("points: ")
            raise ConfigError(f"--{name}") from error
        if t.smallest > t.largest:
            raise ConfigError(f"--smallest is {t.smallest:g}, accepted: at most --largest ({t.largest:g})")
        if t.pretrained is not None and t.backbone == "light":
            raise ConfigError("--pretrained: accepted with --backbone convnext_small")
        if t.pretrained is not None and t.start is not None:
            raise ConfigError("--pretrained: accepted without --start, which has all weights")
        with torch.device("meta"):
            net = build_points(self.points)
        self.before: list[dict[str, Any]] = []
        self._begin: dict[str, Tensor] = {}
        if t.start is not None:
            self._begin = self._started(t.start)
        elif t.pretrained is not None:
            self._begin = _pretrained(t.pretrained, cast(ConvNextBackbone, net.backbone))

    def _started(self, start: str) -> dict[str, Tensor]:
        """The tensors of the checkpoint to go on from; without the classifier where that has other classes."""
        path, state, card = read_checkpoint(start)
        try:
            known = points_from({PREFIX + name: tensor for name, tensor in state.items()}, card)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        free = {"dropout", "classes", *(("widths",) if self.points.backbone != "light" else ())}
        for name, wanted in self.points.as_dict().items():
            found = known.config.as_dict()[name]
            if name not in free and found != wanted:
                raise CheckpointError(f"{path}: {name} is {found}, accepted: {wanted}, as in the options of this run")
        self.before = history(card)
        values = known.state_dict()
        if known.config.classes != self.points.classes:
            log.warning("%s: its classes are %s; a fresh classifier is trained", path, ", ".join(known.config.classes))
            values = {name: value for name, value in values.items() if not name.startswith(_CLASSIFIER)}
        return values

    def build(self) -> nn.Module:
        """The net, with the weights that it begins with."""
        net = build_points(self.points)
        net.load_state_dict(self._begin, strict=False)  # what is missing stays fresh, all else was checked
        return net

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Weights with decay, norms and biases without."""
        parameters = list(model.parameters())
        return [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def prepare(self, sample: Sample, rng: np.random.Generator) -> Crop:
        """A random crop at a random object scale; centres are the points that stand for the objects."""
        t = self.training
        matrix = random_affine(sample, t.crop, rng, diameters(t, sample))
        return with_points(crop(sample, matrix, t.crop, rng, classes=t.classes))

    def collate(self, items: Sequence[Crop], rng: np.random.Generator) -> Batch:
        """Crops to a batch, with all their objects."""
        return collate(items, max(len(item.ids) for item in items), rng)

    def losses(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """The three losses of `gigaseg.train.cfrsam.points_losses`."""
        t = self.training
        device = batch.images.device.type
        with torch.autocast(device, enabled=False):
            images = normalised(vary(batch.images, rng, t.colour))
        maps = cast(PointNet, model)(images)
        mine = [batch.image == i for i in range(len(images))]
        with torch.autocast(device, enabled=False):
            return point_losses(
                maps,
                [batch.centres[rows] for rows in mine],
                [batch.classes[rows] for rows in mine],
                batch.labels,
                background=t.background,
                distance=t.distance,
                weights=(t.classification, t.regression, t.mask),
            )

    def validate(self, model: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """Figures of the points of whole images; ``score`` is their F1, of several classes its mean over them."""
        t = self.training
        some = spread(samples, t.validated)
        return point_figures(
            cast(PointNet, model),
            some,
            diameter=None if t.native else DIAMETER,
            radius=t.radius,
            suppression=t.suppression,
            use_mask=t.use_mask,
        )

    def exported(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All tensors."""
        return dict(values)

    def card(self) -> dict[str, Any]:
        """Sizes of the net, classes and training."""
        return {
            "points": self.points.as_dict(),
            "classes": list(self.points.classes),
            "training": asdict(self.training),
            **({"before": self.before} if self.before else {}),
        }


def _pretrained(file: str, backbone: ConvNextBackbone) -> dict[str, Tensor]:
    """The tensors of a file of timm's weights by the net's names."""
    try:
        state = fitted(backbone.own_names(read_state(file)[0]), backbone.state_dict(), "timm's convnext_small")
    except CheckpointError as error:
        raise CheckpointError(str(error) if str(error).startswith(file) else f"{file}: {error}") from error
    return {f"backbone.{name}": tensor for name, tensor in state.items()}
