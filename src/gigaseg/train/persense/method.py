"""Training of PerSense's density regressor, which stands beside a SAM model that stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gigaseg.errors import CheckpointError, ConfigError
from gigaseg.sam.backend import DEFAULT_CHECKPOINT, trained_window
from gigaseg.sam.checkpoints import fitted, part_of, read_checkpoint
from gigaseg.segmenters.persense.config import DensityConfig
from gigaseg.segmenters.persense.density_net import DENSITY, DensityNet
from gigaseg.train.base import Base
from gigaseg.train.batches import Batch, collate
from gigaseg.train.card import history
from gigaseg.train.cfrsam.points_truth import image_points
from gigaseg.train.colour import vary
from gigaseg.train.crops import Crop, crop, random_affine
from gigaseg.train.data import Sample
from gigaseg.train.persense.config import PersenseTraining
from gigaseg.train.persense.crops import thinned
from gigaseg.train.persense.targets import density_targets, with_centres
from gigaseg.train.whole import spread


class PersenseMethod:
    """Trains the density regressor alone.

    Parameters
    ----------
    training : how.
    sam : SAM checkpoint by name or file that the regressor stands beside; None: the one that ships.

    Attributes
    ----------
    base : what a checkpoint of this method stores changes over.
    density : sizes of the regressor.
    before : what the cards of the checkpoints tell that it goes on from, the first one first.

    Raises
    ------
    CheckpointError
        The checkpoint is missing, damaged, or itself one of changes; the one to start from has other sizes.
    ConfigError
        Sides do not fit.
    """

    name = "persense"
    drops = ()

    def __init__(self, training: PersenseTraining | None = None, sam: str | None = None) -> None:
        self.training = t = training or PersenseTraining()
        self._base = Base.open(sam or DEFAULT_CHECKPOINT)
        self.base = self._base.name
        if len(t.classes) != 1:
            raise ConfigError(f"--classes is {' '.join(t.classes)}, accepted: one name, as there is one map")
        self.density = DensityConfig(t.width, t.levels, t.norm, t.reduction, t.diameter, t.sigma, t.classes)
        with torch.device("meta"):
            multiple = DensityNet(self.density).multiple
        if t.crop % multiple:
            raise ConfigError(f"--crop is {t.crop}, accepted with --levels and --reduction: multiples of {multiple}")
        self.before: list[dict[str, Any]] = []
        self._start = self._started(t.start) if t.start else None
        self._points: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def _started(self, start: str) -> dict[str, Tensor]:
        """The regressor's tensors in the checkpoint to go on from."""
        path, state, card = self._base.started(start)
        known = DensityConfig.from_dict(card["persense"]) if "persense" in card else None
        if known is None:
            raise CheckpointError(f"{path}: has no density regressor; accepted: a checkpoint of this method")
        for name in ("width", "levels", "norm", "reduction", "diameter", "sigma"):
            found, wanted = getattr(known, name), getattr(self.density, name)
            if found != wanted:
                raise CheckpointError(f"{path}: has {name} {found}, which is {wanted} here; accepted: the same sizes")
        self.before = history(card)
        with torch.device("meta"):
            expected = DensityNet(self.density).state_dict()
        try:
            return fitted(part_of(state, DENSITY), expected, "the density regressor")
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    def build(self) -> nn.Module:
        """The regressor."""
        net = DensityNet(self.density)
        if self._start is not None:
            net.load_state_dict(self._start)
        return net

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Weights with decay, norms and biases without."""
        parameters = list(model.parameters())
        return [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def prepare(self, sample: Sample, rng: np.random.Generator) -> Crop:
        """A random crop at a random object scale, of the objects whose points lie in it."""
        t = self.training
        matrix = random_affine(sample, t.crop, rng, (t.smallest, t.largest))
        found = with_centres(crop(sample, matrix, t.crop, rng, min_area=1), self._points_of(sample), matrix)
        return thinned(found, rng) if rng.random() < t.thinned else found

    def _points_of(self, sample: Sample) -> np.ndarray:
        """Points of all objects of an image by their ids; they are looked for once."""
        known = self._points.get(sample.name)
        if known is None or known[0] is not sample.labels:
            points = np.full((int(sample.labels.max()) + 1, 2), np.nan)
            points[np.unique(sample.labels[sample.labels > 0])] = image_points(sample.labels)
            known = self._points[sample.name] = (sample.labels, points)
        return known[1]

    def collate(self, items: Sequence[Crop], rng: np.random.Generator) -> Batch:
        """Crops to a batch, with all their objects."""
        return collate(items, max(len(item.ids) for item in items), rng)

    def losses(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """Mean squared error of the map in units of a lone object's peak; how far counts are off is only logged."""
        t, net = self.training, cast(DensityNet, model)
        device = batch.images.device.type
        with torch.autocast(device, enabled=False):
            images = vary(batch.images, rng, t.colour)
        maps = net(images)
        with torch.autocast(device, enabled=False):
            centres, shape = batch.centres / t.reduction, (len(maps), maps.shape[1], maps.shape[2])
            truth = density_targets(centres, batch.image, shape, t.sigma / t.reduction) / net.unit
            error = ((maps - truth) ** 2).mean()
            number = truth.sum((1, 2)) * net.unit
            count = (maps.detach().clamp(min=0).sum((1, 2)) * net.unit - number).abs() / (number + 1)
        return {"loss": error, "count_error": count.mean()}

    def validate(self, model: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """Figures of whole images, see `gigaseg.train.persense.evaluate`; ``score`` is the points' mean F1."""
        from gigaseg.segmenters.persense.regressed import RegressedDensity
        from gigaseg.train.persense.evaluate import density_figures

        half = torch.is_autocast_enabled(next(model.parameters()).device.type)
        dtype = torch.bfloat16 if half else torch.float32
        density = RegressedDensity(cast(DensityNet, model), self.density, "in training", dtype)
        found = density_figures(density, spread(samples, self.training.validated))
        return {**found, "score": found["f1"]}

    def exported(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """SAM's tensors as its checkpoint has them, the regressor's as ``density.*``."""
        state = read_checkpoint(self.base)[1]
        return {**state, **{DENSITY + name: value for name, value in values.items()}}

    def card(self) -> dict[str, Any]:
        """Sizes of SAM and of the regressor, the class, the training, and which SAM it was."""
        return {
            "config": self._base.config.as_dict(),
            "persense": self.density.as_dict(),
            "classes": list(self.density.classes),
            # SAM is not trained here: its decoding windows are those of its own training
            "training": {**asdict(self.training), "window": trained_window(self._base.card)},
            "sam_sha256": self._base.sha256,
            **({"before": self.before} if self.before else {}),
        }
