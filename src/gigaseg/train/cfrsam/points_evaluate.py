"""How well a point learner finds the objects of whole images, and the score threshold that suits it best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gigaseg.geometry import Bounds, Shape2d
from gigaseg.metrics.detection import Points, greedy_counts, paired_counts
from gigaseg.metrics.instance import Counts
from gigaseg.prompts.suppression import point_nms
from gigaseg.segmenters.base import Proposals
from gigaseg.segmenters.cfrsam.points import PointNet, normalised, points_of
from gigaseg.segmenters.cfrsam.points_checkpoint import open_points
from gigaseg.slides.resample import resample
from gigaseg.train.cfrsam.points_config import CfrPointsTraining
from gigaseg.train.cfrsam.points_truth import image_points
from gigaseg.train.data import Sample
from gigaseg.train.whole import SCALES, mean_figure

DIAMETER = 26.0
"""Px to which the median object diameter of an image is scaled, as the truth has it."""

THRESHOLDS = tuple(round(0.1 + 0.05 * i, 2) for i in range(17))
"""Scores that are tried as thresholds."""

TILE, OVERLAP = 1024, 128
"""Px of the tiles that larger images are seen in, and what neighbours share at least."""


@dataclass(frozen=True)
class Look:
    """Points of an image beside the truth, px of the scaled image.

    Attributes
    ----------
    truth : its objects' points.
    found : the proposed points, above the least threshold.
    mask_iou : of the mask's foreground; NaN without any.
    """

    truth: Points
    found: Points
    mask_iou: float

    def above(self, threshold: float) -> Points:
        """The proposed points of a greater score."""
        kept = np.asarray(self.found.score) > threshold
        kinds = None if self.found.class_index is None else self.found.class_index[kept]
        return Points(self.found.xy[kept], kinds, np.asarray(self.found.score)[kept])


def look(
    net: PointNet,
    sample: Sample,
    *,
    diameter: float | None = DIAMETER,
    suppression: float = 12.0,
    use_mask: bool = False,
    least: float = THRESHOLDS[0],
) -> Look:
    """See the whole image of a sample.

    Parameters
    ----------
    net : in evaluation mode.
    diameter : px to which its median object diameter is scaled; None: no scaling.
    suppression, use_mask : `radius` and `use_mask` of `points_of`.
    least : threshold of the points.
    """
    height, width = sample.labels.shape
    scale = 1.0
    if diameter is not None and sample.diameter > 0:
        scale = float(np.clip(diameter / sample.diameter, *SCALES))
    shape = Shape2d(max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = resample(sample.image, Bounds(0, 0, width, height), shape) if scale != 1 else sample.image
    proposals, mask = propose_in(net, pixels, threshold=least, radius=suppression, use_mask=use_mask)
    rows, cols = (((np.arange(n) + 0.5) * m / n).astype(int) for m, n in zip((height, width), shape))
    true = sample.labels[np.ix_(rows, cols)] > 0
    union = np.count_nonzero(mask | true)
    classes = net.config.classes if sample.classes is not None and len(net.config.classes) > 1 else ()
    truth = image_points(sample.labels) * (shape.width / width, shape.height / height)
    kinds = np.array([classes.index(name) for name in sample.classes or ()], np.int64) if classes else None
    guessed = proposals.class_prob.argmax(1).astype(np.int64) if classes else None
    return Look(
        Points(truth, kinds),
        Points(proposals.xy, guessed, proposals.score.astype(np.float64)),
        np.count_nonzero(mask & true) / union if union else math.nan,
    )


@torch.no_grad()
def propose_in(net: PointNet, image: npt.NDArray[np.uint8], **settings: Any) -> tuple[Proposals, npt.NDArray[np.bool_]]:
    """Points of an image (y, x, 3) uint8 of any size, and where the mask says foreground: (y, x).

    Parameters
    ----------
    settings : of `points_of`. A large image is seen in tiles, each of which answers for its middle.
    """
    height, width = image.shape[:2]
    device = next(net.parameters()).device
    mask, parts = np.zeros((height, width), bool), []
    for y0, y1 in _spans(height):
        for x0, x1 in _spans(width):
            pixels = torch.from_numpy(image[y0:y1, x0:x1].copy()).permute(2, 0, 1)[None].to(device)
            maps = net(normalised(pixels))
            (found,) = points_of(maps, **settings)
            # half of what neighbours share is theirs
            low = [0 if start == 0 else start + OVERLAP // 2 for start in (x0, y0)]
            high = [end if end == side else end - OVERLAP // 2 for end, side in ((x1, width), (y1, height))]
            own = maps.mask[0, low[1] - y0 : high[1] - y0, low[0] - x0 : high[0] - x0]
            mask[low[1] : high[1], low[0] : high[0]] = (own > 0).cpu().numpy()
            xy = found.xy + (x0, y0)
            inside = ((xy >= low) & (xy < high)).all(1)
            parts.append(Proposals(xy[inside], found.score[inside], found.class_prob[inside]))
    joined = Proposals(*(np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS))
    rows = (
        point_nms(joined.xy, joined.score, settings.get("radius", 12.0))
        if len(parts) > 1
        else np.arange(len(joined.xy))
    )
    return Proposals(joined.xy[rows], joined.score[rows], joined.class_prob[rows]), mask


_FIELDS = ("xy", "score", "class_prob")


def _spans(side: int) -> list[tuple[int, int]]:
    """Begin and end of the tiles along a side, evenly spread."""
    if side <= TILE:
        return [(0, side)]
    count = math.ceil((side - OVERLAP) / (TILE - OVERLAP))
    return [(start, start + TILE) for start in np.linspace(0, side - TILE, count).round().astype(int).tolist()]


def point_figures(
    net: PointNet,
    samples: Sequence[Sample],
    *,
    diameter: float | None = DIAMETER,
    radius: float = 12.0,
    suppression: float = 12.0,
    use_mask: bool = False,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, float]:
    """Find the points of whole images and compare them with the truth by `greedy_counts`, pooled over the images.

    Parameters
    ----------
    radius : px within which points are one, at the scale of `diameter`.
    diameter, suppression, use_mask : as `look` takes them.
    thresholds : the one with the best score is picked, the first among equals.

    Returns
    -------
    ``threshold``, ``precision``, ``recall``, ``f1``, ``f1/GROUP``; of several classes ``f1_CLASS``; ``mask_iou``, mean
    over images; ``images``; ``score``: f1, of several classes the mean of theirs. Undefined figures are 0.
    """
    names = net.config.classes if len(net.config.classes) > 1 else ()
    seen = [
        look(net, s, diameter=diameter, suppression=suppression, use_mask=use_mask, least=min(thresholds))
        for s in samples
    ]
    table = [[greedy_counts(one.truth, one.above(t), len(names), radius) for one in seen] for t in thresholds]

    def f1_of(rows: Sequence[tuple[Counts, list[Counts]]], k: int | None = None) -> float:
        return _known(_total(rows, (lambda row: row[0]) if k is None else (lambda row: row[1][k])).f1)

    def score(rows: Sequence[tuple[Counts, list[Counts]]]) -> float:
        return float(np.mean([f1_of(rows, k) for k in range(len(names))])) if names else f1_of(rows)

    scores = [score(rows) for rows in table]
    picked = int(np.argmax(scores))
    rows, total = table[picked], _total(table[picked], lambda row: row[0])
    found = {
        "threshold": float(thresholds[picked]),
        "precision": _known(total.precision),
        "recall": _known(total.recall),
        "f1": _known(total.f1),
    }
    for group in sorted({sample.group for sample in samples} - {""}):
        found[f"f1/{group}"] = f1_of([row for row, sample in zip(rows, samples) if sample.group == group])
    found |= {f"f1_{name}": f1_of(rows, k) for k, name in enumerate(names)}
    found["mask_iou"] = mean_figure(np.array([one.mask_iou for one in seen]))
    return {**found, "images": float(len(samples)), "score": scores[picked]}


def _total(rows: Sequence[tuple[Counts, list[Counts]]], of: Callable[[tuple[Counts, list[Counts]]], Counts]) -> Counts:
    return reduce(add, map(of, rows), Counts(0, 0, 0))


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def checkpoint_figures(
    checkpoint: Path, samples: Sequence[Sample], device: str, precision: str
) -> list[dict[str, float]]:
    """Figures of each sample at the threshold of the checkpoint's card, seen as the training's validation sees it.

    Returns
    -------
    precision, recall, f1 and f1_CLASS by `greedy_counts`, paired_f1 and paired_f1_CLASS by `paired_counts`, mask_iou;
    NaN where a figure is undefined.

    Raises
    ------
    CheckpointError
        The checkpoint is missing or damaged.
    """
    loaded = open_points(checkpoint, device, precision)
    training = loaded.card.get("training", {})
    seeing = {
        name: training.get(name, getattr(CfrPointsTraining, name)) for name in ("radius", "suppression", "use_mask")
    }
    seeing["diameter"] = None if training.get("native") else DIAMETER
    radius, names = seeing.pop("radius"), loaded.config.classes if len(loaded.config.classes) > 1 else ()
    rows = []
    with loaded.running():
        for sample in samples:
            one = look(loaded.net, sample, **seeing, least=loaded.threshold)
            total, each = greedy_counts(one.truth, one.found, len(names), radius)
            paired, own = paired_counts(one.truth, one.found, len(names), radius)
            row = {"precision": total.precision, "recall": total.recall, "f1": total.f1, "paired_f1": paired.f1}
            for name, mine, theirs in zip(names, each, own):
                row |= {f"f1_{name}": mine.f1, f"paired_f1_{name}": theirs.f1}
            rows.append({**row, "mask_iou": one.mask_iou})
    return rows
