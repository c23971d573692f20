"""PerSense part by part: ``python benchmarks/persense.py --data dsb2018``, the rows of the paper's Table 2a.

Each image shows one of its own objects, the one of median area; it says what to look for and at which scale. Figures:
F1 of the points (one within half the image's mean diameter of a centroid is right, each object once), median over the
images of the error of their number, AJI and F1 of the instances, and IoU of the foreground as the paper averages it:
pixels pooled by class (here: modality), then the mean over the classes.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy_data import Seen, dsb2018, some
from exemplars import diameter_of, median_object, scaled
from machine import processor

from gigaseg.files import write_json
from gigaseg.metrics.detection import Points, greedy_counts
from gigaseg.metrics.one_shot import ClassTotals, class_miou
from gigaseg.metrics.score import score_labels
from gigaseg.sam.encoder import Encoded
from gigaseg.segmenters.persense.checkpoint import open_persense
from gigaseg.segmenters.persense.segmenter import PerSense
from gigaseg.segmenters.whole import SCALES, segment_image

HERE = Path(__file__).parent
FORMAT = "gigaseg/persense-parts/1"
DENSITIES = {
    "ncc": "correlation of pixels",
    "features": "correlation of SAM's features",
    "regressor": "trained density",
}
STEPS: dict[str, dict[str, Any]] = {
    "IDM": {"select": False, "exemplars": 0},
    "IDM, PPSM": {"exemplars": 0},
    "IDM, PPSM, feedback": {},
}
PAPER = {"IDM": (65.58, 68.12), "IDM, PPSM": (66.95, 70.58), "IDM, PPSM, feedback": (70.96, 71.61)}
"""mIoU on PerSense-D with DSALVANet and with CounTR (Table 2a)."""

SEEN = 26.0
"""Px, diameter of the exemplar in the scaled image."""


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    pictures = some(dsb2018(args.data.parent, Seen()), args.limit)
    loaded = open_persense(args.checkpoint, "cpu", None, "fp32")
    memory = Memory(loaded.backend.encoder)
    loaded = replace(loaded, backend=replace(loaded.backend, encoder=memory))
    wanted = [(d, s) for d in args.densities for s in STEPS]
    rows: dict[str, list[dict[str, float]]] = {f"{d} | {s}": [] for d, s in wanted}
    totals: dict[str, dict[str, ClassTotals]] = {name: {} for name in rows}
    for i, picture in enumerate(pictures, 1):
        image, labels = picture.pixels(), picture.truth()
        memory.clear()
        for density, step in wanted:
            name = f"{density} | {step}"
            options = {"density": density, **STEPS[step]}
            before = memory.seconds
            row, foreground = measure(PerSense.of(loaded, options), image, labels)
            row["seconds"] -= memory.seconds - before
            rows[name].append({**row, "group": picture.parts[-1]})
            totals[name].setdefault(picture.parts[-1], ClassTotals()).add(foreground, labels)
        print(f"\r{i}/{len(pictures)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    content = {
        "format": FORMAT,
        "images": len(pictures),
        "checkpoint": args.checkpoint,
        "step": loaded.card.get("step"),
        "machine": processor(),
        "rows": {name: summary(rows[name], totals[name]) for name in rows},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out.with_suffix(".json"), content)
    args.out.write_text(page(content), encoding="utf-8")
    print(page(content))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--data", type=Path, required=True, help="folder dsb2018")
    found.add_argument("--checkpoint", default="persense-v1", help="with a density regressor (default: persense-v1)")
    found.add_argument("--densities", nargs="+", choices=DENSITIES, default=list(DENSITIES), help="default: all")
    found.add_argument("--limit", type=int, help="images at most, for a quick trial")
    found.add_argument("--out", type=Path, default=HERE / "results" / "persense.md", help="page to write")
    return found


class Memory:
    """An encoder that keeps what it has seen, and counts its time: the rows differ in what follows."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._known: dict[bytes, Encoded] = {}
        self.seconds = 0.0

    def clear(self) -> None:
        """Forget."""
        self._known.clear()

    def __call__(self, encoder: Any, images: torch.Tensor, **settings: Any) -> Encoded:
        """What the encoder gives."""
        key = hashlib.sha256(images.cpu().numpy().tobytes() + str(images.shape).encode()).digest()
        if key not in self._known:
            start = time.process_time()
            self._known[key] = self._encoder(encoder, images, **settings)
            self.seconds += time.process_time() - start
        return self._known[key]


def measure(segmenter: PerSense, image: np.ndarray, labels: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """Figures of one image, and its foreground as found."""
    exemplar = median_object(labels)
    scale = float(np.clip(SEEN / diameter_of(exemplar), *SCALES))
    start = time.process_time()
    pixels, mask = scaled(image, exemplar, scale)
    segmenter.learn(pixels, [mask])
    segmenter.record = []
    found = segment_image(segmenter, image, scale=scale, overlap=96)
    seconds = time.process_time() - start
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    rows, cols = np.nonzero(labels)
    index = np.searchsorted(ids, labels[rows, cols])
    centres = np.column_stack([np.bincount(index, values) for values in (cols + 0.5, rows + 0.5)]) / areas[:, None]
    radius = float(np.sqrt(4 * areas / np.pi).mean()) / 2
    height, width = pixels.shape[:2]
    xy, score = owned(segmenter.record, width, height)
    counts, _ = greedy_counts(Points(centres), Points(xy / scale, score=score), radius=radius)
    scores = score_labels(labels, found, (0.5,))
    return {
        "point_f1": counts.f1,
        "count_error": abs(len(xy) - len(ids)) / len(ids),
        "aji": scores["aji"],
        "f1_50": scores["f1_50"],
        "seconds": seconds,
    }, found > 0


def owned(record: list[Any], width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of all tiles in px of the scaled image, each from the tile in whose core it lies; their scores."""
    xy, score = [np.empty((0, 2))], [np.empty(0)]
    for tile, points in record:
        place = points.xy + (tile.bounds.xmin, tile.bounds.ymin)
        low, high = np.array(tile.core[:2]), np.minimum(tile.core[2:], (width, height))
        mine = ((place >= low) & (place < high)).all(1)
        xy.append(place[mine])
        score.append(points.score[mine])
    return np.concatenate(xy), np.concatenate(score)


def summary(rows: list[dict[str, Any]], totals: Mapping[str, ClassTotals]) -> dict[str, Any]:
    """Over all images, and over those of each modality."""
    groups = {"all": rows, **{group: [row for row in rows if row["group"] == group] for group in sorted(totals)}}
    found: dict[str, Any] = {}
    for group, mine in groups.items():
        found[group] = {
            "images": len(mine),
            "point_f1": statistics.fmean(row["point_f1"] for row in mine),
            "count_error": statistics.median(row["count_error"] for row in mine),
            "aji": statistics.fmean(row["aji"] for row in mine),
            "f1_50": statistics.fmean(row["f1_50"] for row in mine),
            "miou": class_miou(totals if group == "all" else {group: totals[group]}).value,
            "seconds": statistics.median(row["seconds"] for row in mine),
        }
    return found


def page(content: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "# PerSense, part by part",
        "",
        f"`python benchmarks/persense.py --data dsb2018`: {content['images']} images of dsb2018 val, `"
        f"{content['checkpoint']}` over `small-v1`, one exemplar an image (docs/persense.md). Seconds: CPU time of one "
        f"thread on {content['machine']}, median, without SAM's encoder, which the rows share. Paper: mIoU in % on "
        "PerSense-D, with DSALVANet and CounTR, other images and weights.",
        "",
        "| density | steps | point F1 | count error | AJI | F1 at 0.5 | mIoU | s an image | *paper's mIoU* |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, groups in content["rows"].items():
        density, step = name.split(" | ")
        paper = " / ".join(f"{value:.2f}" for value in PAPER[step])
        lines.append(f"| {DENSITIES[density]} | {step} | {figures(groups['all'])} | *{paper}* |")
    for group in next(iter(content["rows"].values())):
        if group != "all":
            lines += ["", f"## {group}", "", "| density | steps | point F1 | count error | AJI | F1 at 0.5 | IoU | s |"]
            lines.append("| --- |" + " --- |" * 7)
            for name, groups in content["rows"].items():
                density, step = name.split(" | ")
                lines.append(f"| {DENSITIES[density]} | {step} | {figures(groups[group])} |")
    return "\n".join([*lines, ""])


def figures(row: Mapping[str, float]) -> str:
    names = ("point_f1", "count_error", "aji", "f1_50", "miou")
    seconds = row["seconds"]
    return " | ".join([*(f"{row[name]:.3f}" for name in names), "–" if seconds is None else f"{seconds:.2g}"])


if __name__ == "__main__":
    main()
