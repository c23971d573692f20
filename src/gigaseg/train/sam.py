"""Training of a SAM model: simulated prompts, interactive rounds, mask and quality losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.sam.config import CONFIGS, SamConfig
from gigaseg.sam.decoder import Decoded, decode
from gigaseg.sam.detail import with_detail
from gigaseg.sam.encoder import Encoded, encode, normalise
from gigaseg.sam.model import build, load
from gigaseg.sam.prompting import PromptSets
from gigaseg.train.auxiliary import dense_loss, dense_targets, head
from gigaseg.train.batches import Batch, collate
from gigaseg.train.colour import vary
from gigaseg.train.config import SamTraining
from gigaseg.train.crops import Crop, random_crop
from gigaseg.train.data import Sample
from gigaseg.train.losses import dice, focal, mask_iou
from gigaseg.train.simulate import PIXEL_CENTRE, correction, first_prompts
from gigaseg.train.windows import paste, targets


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter decays: weights do; biases, norms, tokens and position tables do not."""
    plain = parameter.ndim < 2 or any(word in name for word in ("embed.", "pos", "token", "point_embeddings"))
    return not plain or name.endswith("proj.weight")


NUCLEUS = 8.0
"""Diameter of a nucleus, µm, from which a nominal pixel size follows for images that state none."""


class SamMethod:
    """Trains a SAM model from scratch, or further from given weights.

    Parameters
    ----------
    model : configuration of the model.
    training : how it is trained.
    weights : checkpoint to go on from, by name or file; None: from scratch.
    """

    name = "sam"
    base = None
    drops = ()

    def __init__(
        self, model: SamConfig = CONFIGS["small"], training: SamTraining | None = None, weights: str | None = None
    ) -> None:
        self.config = model
        self.weights = weights
        self.training = training or SamTraining()

    def build(self) -> nn.Module:
        """The model; random weights have their positional frequencies spread as `SamTraining.frequencies` says."""
        if self.weights:
            return self._with_head(load(self.weights, self.config))
        model: nn.Module = build(self.config)
        for name, parameter in model.named_parameters():
            if name.endswith("pos_embed"):
                nn.init.trunc_normal_(parameter, std=0.02)
        matrix = cast(Any, model).prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        # a geometric spread: broad features find the region, fine ones tell neighbours apart
        matrix *= torch.logspace(0, np.log10(self.training.frequencies), matrix.shape[1])
        return self._with_head(model)

    def _with_head(self, model: nn.Module) -> nn.Module:
        if self.training.dense:
            model.auxiliary = head(self.config.prompt_dim, self.config.patch, self.stride)
        return model

    @property
    def stride(self) -> int:
        """Input px of a px of the low-res masks."""
        return self.config.patch // 4

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Weights decay; biases, norms, tokens and position tables do not."""
        decayed: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            (decayed if decays(name, parameter) else others).append(parameter)
        return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]

    def prepare(self, sample: Sample, rng: np.random.Generator) -> Crop:
        """A random crop at a random object scale."""
        t = self.training
        return random_crop(sample, t.crop, rng, (t.smallest, t.largest))

    def collate(self, items: Sequence[Crop], rng: np.random.Generator) -> Batch:
        """Crops to a batch."""
        return collate(items, self.training.objects, rng)

    def losses(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses over the first prompts and the corrections that follow, each round weighted equally."""
        t = self.training
        with torch.autocast(batch.images.device.type, enabled=False):
            images = vary(batch.images, rng, t.colour)
        encoded = encode(cast(Any, model).image_encoder, normalise(images, self.config))
        losses = self.mask_losses(model, encoded, batch, rng)
        if t.dense:
            dense = dense_loss(cast(Any, model).auxiliary(encoded.embedding), dense_targets(batch.labels, self.stride))
            losses |= {"loss": losses["loss"] + t.dense * dense, "dense": dense}
        return losses

    def mask_losses(
        self,
        model: nn.Module,
        encoded: Encoded,
        batch: Batch,
        rng: np.random.Generator,
        detail: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of the masks that simulated prompts on encoded crops give, see `losses`; `detail` is added to them."""
        t = self.training
        multimask = bool(rng.random() < t.multimask)
        window = None if t.window == 0 or rng.random() < t.full else t.window
        rounds = 1 + (int(rng.integers(t.corrections)) + 1 if rng.random() < t.corrected else 0)
        remember = bool(rng.random() < t.remember)
        found: list[dict[str, Tensor]] = []
        for rows, sets in first_prompts(batch, rng, t.prompts):
            part, share = batch[rows], len(rows) / len(batch.ids) / rounds
            for turn in range(rounds):
                decoded = decode(model, encoded, sets, multimask=multimask and turn == 0, window=window)
                decoded = with_detail(decoded, detail, sets.image)
                parts, best = self._mask_losses(decoded, part)
                found.append({name: value * share for name, value in parts.items()})
                if turn + 1 < rounds:
                    sets = self._correct(sets, decoded, best, part, rng, remember)
        names = ("loss", "focal", "dice", "quality", "iou")
        zero = encoded.embedding.sum() * 0  # crops may have no object, and every process takes its step
        return {name: torch.stack([zero, *(parts[name] for parts in found)]).sum() for name in names}

    def _mask_losses(self, decoded: Decoded, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of one round, and which of the m masks counted, (n,)."""
        t = self.training
        stride = self.stride
        logits = decoded.logits.float()
        target = targets(batch, decoded.origin, tuple(logits.shape[-2:]), stride)
        if t.fine:
            logits = F.interpolate(logits, scale_factor=float(stride), mode="bilinear", align_corners=False)
            truth = target.float()[:, None].expand_as(logits)
        else:
            truth = F.avg_pool2d(target.float()[:, None], stride).expand_as(logits)
        side = batch.boxes[:, 2:] - batch.boxes[:, :2]
        area = (2 * side.prod(1)).clamp(min=200) / (1 if t.fine else stride**2)
        pixels = logits.shape[-1] * logits.shape[-2]
        spread = focal(logits, truth) * (pixels / area)[:, None]
        overlap = dice(logits, truth)
        iou = mask_iou(logits.detach(), truth)
        total = t.focal * spread + t.dice * overlap
        best = total.detach().argmin(1)
        quality = (decoded.quality.float() - iou).square()
        if logits.shape[1] > 1:
            rows = torch.arange(len(best), device=best.device)
            total, spread, overlap, iou = (x[rows, best][:, None] for x in (total, spread, overlap, iou))
        loss = total.mean() + t.quality * quality.mean()
        parts = {"loss": loss, "focal": spread, "dice": overlap, "quality": quality, "iou": iou}
        return {name: x if name == "loss" else x.detach().mean() for name, x in parts.items()}, best

    def _correct(
        self,
        sets: PromptSets,
        decoded: Decoded,
        best: Tensor,
        batch: Batch,
        rng: np.random.Generator,
        remember: bool,
    ) -> PromptSets:
        """The prompts with a corrective point, and the last logits as mask if wanted."""
        stride = self.stride
        rows = torch.arange(len(best), device=best.device)
        logits = decoded.logits.detach().float()[rows, best]
        target = targets(batch, decoded.origin, tuple(logits.shape[-2:]), stride)
        coarse = F.avg_pool2d(target.float()[:, None], stride)[:, 0] > 0.5
        first = batch.centres / stride - decoded.origin
        points, labels = correction(logits, coarse, first, rng)
        points = (points + decoded.origin) * stride - PIXEL_CENTRE
        full = tuple(side // stride for side in batch.labels.shape[-2:])
        return replace(
            sets,
            points=torch.cat([sets.points, points[:, None].to(sets.points)], 1),
            labels=torch.cat([sets.labels, labels[:, None]], 1),
            masks=paste(logits, decoded.origin, cast("tuple[int, int]", full))[:, None] if remember else None,
        )

    def validate(self, model: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """Mean IoU by prompt and group, see `gigaseg.train.evaluate`; ``score`` is the mean over the prompts."""
        from gigaseg.train.evaluate import prompted_iou

        return prompted_iou(model, self.config, samples, window=self.training.window or None)

    def exported(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a SAM model, without the layer that only training has."""
        return {name: value for name, value in values.items() if not name.startswith("auxiliary.")}

    def card(self) -> dict[str, Any]:
        """The model's configuration and the training's, and the size of objects that the figures are about."""
        from gigaseg.train.evaluate import DIAMETER

        nominal = {"object_diameter_px": DIAMETER, "pixel_size_um": NUCLEUS / DIAMETER}
        config, training = self.config.as_dict(), asdict(self.training)
        return {"config": config, "training": training, "weights": self.weights, "nominal": nominal}
