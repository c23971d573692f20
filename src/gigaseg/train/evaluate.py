"""How well a SAM model answers prompts: mean IoU over objects by kind of prompt and group of images."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigaseg.sam.backend import trained_window
from gigaseg.sam.config import SamConfig
from gigaseg.sam.decoder import decode
from gigaseg.sam.encoder import encode, normalise
from gigaseg.sam.model import open_checkpoint
from gigaseg.sam.prompting import PromptSets, box_sets, point_sets
from gigaseg.train.batches import Batch, collate
from gigaseg.train.crops import Crop, affine, crop
from gigaseg.train.data import Sample
from gigaseg.train.losses import mask_iou
from gigaseg.train.simulate import PIXEL_CENTRE, jitter_boxes
from gigaseg.train.windows import targets

PROMPTS = ("centre", "point", "jittered", "box")
"""One centre point, one random point, a box with jittered sides (sd 0.1 of the side), the exact box."""


DIAMETER = 20.0
"""Median object diameter, px, that images are scaled to."""


def tiles(sample: Sample, size: int, diameter: float | None, overlap: float, most: int | None) -> Iterator[Crop]:
    """Cut an image into tiles; each object is listed in the one where it lies most centrally.

    Parameters
    ----------
    diameter : px that the image's median object diameter is scaled to; None keeps the image's own resolution.
    overlap : of neighbouring tiles, share of their side.
    most : most tiles, evenly spread over the image; None: all.
    """
    scale = diameter / sample.diameter if diameter and sample.diameter > 0 else 1.0
    height, width = (math.ceil(side * scale) for side in sample.labels.shape)
    starts = [
        np.linspace(0, max(side - size, 0), 1 + max(0, math.ceil((side - size) / (size * (1 - overlap)))))
        for side in (height, width)
    ]
    places = [(y, x) for y in starts[0] for x in starts[1]]
    if most is not None and len(places) > most:
        places = [places[i] for i in np.linspace(0, len(places) - 1, most).round().astype(int)]
    rng = np.random.default_rng(0)
    found = [
        crop(sample, affine(scale, 0.0, False, ((x + size / 2) / scale, (y + size / 2) / scale), size), size, rng)
        for y, x in places
    ]
    best: dict[int, tuple[float, int]] = {}
    for i, tile in enumerate(found):
        low, high = tile.boxes[:, :2], size - tile.boxes[:, 2:]
        for number, margin in zip(tile.ids.tolist(), torch.cat([low, high], 1).amin(1).tolist()):
            best[number] = max(best.get(number, (-math.inf, 0)), (margin, -i))
    for i, tile in enumerate(found):
        own = torch.tensor([best[number][1] == -i for number in tile.ids.tolist()], dtype=torch.bool)
        if own.any():
            yield tile[own]


@torch.inference_mode()
def prompted_iou(
    model: nn.Module,
    config: SamConfig,
    samples: Sequence[Sample],
    *,
    window: int | None,
    diameter: float | None = DIAMETER,
    size: int | None = None,
    overlap: float = 0.25,
    most: int | None = 2,
    batch: int = 8,
    jitter: float = 0.1,
) -> dict[str, float]:
    """Mean IoU of the single mask for one prompt, over objects.

    Parameters
    ----------
    window : of local decoding, cells; None decodes whole tiles.
    diameter, overlap, most : see `tiles`; `size` is the tile's side (default: the model's input).

    Returns
    -------
    ``PROMPT`` and ``PROMPT/GROUP`` (see `PROMPTS`), ``objects`` and ``objects/GROUP``, and ``score``: the mean over the
    prompts.
    """
    device = next(model.parameters()).device
    kept: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    rng = np.random.default_rng(0)
    waiting: list[tuple[Crop, str]] = []

    def flush() -> None:
        joined = collate([c for c, _ in waiting], 10**9, rng).to(device)
        encoded = encode(cast(Any, model).image_encoder, normalise(joined.images, config))
        for prompt, sets in _prompts(joined, rng, jitter):
            decoded = decode(model, encoded, sets, window=window)
            iou = object_iou(decoded.logits, decoded.origin, joined, config.patch // 4).cpu()
            for i, (_, group) in enumerate(waiting):
                kept[prompt, group].append(iou[joined.image.cpu() == i])
        waiting.clear()

    for sample in samples:
        for tile in tiles(sample, size or config.image_size, diameter, overlap, most):
            waiting.append((tile, sample.group))
            if len(waiting) == batch:
                flush()
    if waiting:
        flush()
    figures: dict[str, float] = {"objects": 0.0}
    for prompt in PROMPTS:
        by_group = {group: torch.cat(parts) for (name, group), parts in kept.items() if name == prompt}
        everything = torch.cat(list(by_group.values())) if by_group else torch.zeros(0)
        figures[prompt] = float(everything.mean()) if len(everything) else 0.0
        figures["objects"] = float(len(everything))
        for group, values in sorted(by_group.items()):
            if group:
                figures[f"{prompt}/{group}"] = float(values.mean())
                figures[f"objects/{group}"] = float(len(values))
    figures["score"] = sum(figures[prompt] for prompt in PROMPTS) / len(PROMPTS)
    return figures


def checkpoint_figures(
    checkpoint: Path, samples: Sequence[Sample], device: str, precision: str
) -> list[dict[str, float]]:
    """Mean IoU by prompt over the objects of each sample, in all of its tiles, decoded as the weights were trained.

    Raises
    ------
    CheckpointError
        The checkpoint is missing or damaged.
    """
    model, config, card = open_checkpoint(checkpoint, device=device)
    window = trained_window(card) or None
    rows = []
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
        for sample in samples:
            found = prompted_iou(model.eval(), config, [sample], window=window, most=None)
            known = found["objects"] > 0
            rows.append({prompt: found[prompt] if known else math.nan for prompt in PROMPTS})
    return rows


def _prompts(batch: Batch, rng: np.random.Generator, jitter: float) -> Iterator[tuple[str, PromptSets]]:
    yield "centre", point_sets(batch.image, batch.centres - PIXEL_CENTRE)
    yield "point", point_sets(batch.image, batch.inside - PIXEL_CENTRE)
    yield "jittered", box_sets(batch.image, jitter_boxes(batch.boxes, rng, jitter, batch.labels.shape))
    yield "box", box_sets(batch.image, batch.boxes)


def object_iou(logits: Tensor, origin: Tensor, batch: Batch, stride: int) -> Tensor:
    """IoU of each object's mask with the whole object, of which a window may hold only a part.

    Parameters
    ----------
    logits : (n, 1, y, x) of windows at `origin` (n, 2), low-res px of `stride` input px each.

    Returns
    -------
    (n,) float32.
    """
    found = F.interpolate(logits.float(), scale_factor=float(stride), mode="bilinear", align_corners=False)
    inside = targets(batch, origin, tuple(logits.shape[-2:]), stride)
    iou = mask_iou(found[:, 0], inside.float())
    # what of the object lies outside the window was missed: IoU = both / (found + whole - both)
    whole = torch.stack([(batch.labels[i] == number).sum() for i, number in zip(batch.image, batch.ids)])
    both = ((found[:, 0] > 0) & inside).flatten(1).sum(1)
    union = (found[:, 0] > 0).flatten(1).sum(1) + whole - both
    return torch.where(whole == inside.flatten(1).sum(1), iou, both / union.clamp(min=1))
