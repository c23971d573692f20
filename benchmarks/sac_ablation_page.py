"""The page of benchmarks/sac_ablation.py: figures of each setting beside those that the paper prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gigaseg.metrics import bootstrap
from gigaseg.metrics.pixel import PixelCounts

PAPER = {
    "1 centroid": (81.35, 68.68, 81.46, 10), "3 centroid": (81.46, 68.79, 81.57, 10),
    "256 centroid": (83.95, 72.44, 83.95, 23), "1 random": (81.40, 68.76, 81.57, 10),
    "3 random": (81.24, 68.50, 81.39, 10), "256 random": (81.60, 69.04, 81.73, 12),
}  # fmt: skip
"""Table 5: Dice, IoU, F1 in %, seconds an epoch of 30 images of MoNuSeg."""

DRAWS = 2000
"""Bootstrap draws of each interval."""

NOTE = """
*Paper*: Table 5 of arXiv 2401.13220, one seed, 14 images of MoNuSeg. It does not say which model the table is
of. Its rows R-1, R-3 and R-256 are, to the last digit, Table 3's "SAM-FT" with 1 point and 1 of an expert, 1 and 3,
3 and 3, so the table is probably of SAM-FT (no LoRA; `--rank 0 --neck`), of which Table 3 has 80.89 / 68.00 / 79.78 for
n = 0. With LoRA it has 84.01 / 72.52 / 84.03 for n = 0 and 84.11 / 72.61 / 84.03 for n = 1: the points add 0.1 of Dice.
"""


def page(kept: Mapping[str, Any]) -> str:
    """Markdown of the sections that there are."""
    lines = [
        "# SAC: how many points, and which",
        "",
        "n positive and n negative points of each image (of each tile without `--letterbox`) from the U-Net's map: "
        "centroids of its largest regions (the paper's O) or random sure pixels (R). In %; Dice and IoU are means over "
        "the images, F1 is of all their pixels pooled. Intervals are 95 % bootstraps over images; Δ is Dice less that "
        "of n = 0 on the same images.",
    ]
    if "training" in kept:
        lines += ["", *training_section(kept["training"])]
    if "evaluation" in kept:
        lines += ["", *evaluation_section(kept["evaluation"])]
    return "\n".join([*lines, ""])


def figures(counts: list[list[float]]) -> tuple[np.ndarray, np.ndarray, float]:
    """Dice and IoU of each image, and the pooled F1."""
    images = [PixelCounts(*row) for row in counts]
    pooled = sum(images, PixelCounts(0, 0, 0)).dice
    return np.array([one.dice for one in images]), np.array([one.iou for one in images]), pooled


def training_section(section: Mapping[str, Any]) -> list[str]:
    about, rows = section["about"], section["rows"]
    by_setting: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        setting, seed = name.split(" seed ")
        by_setting.setdefault(setting, {})[seed] = row
    files = [about[key] for key in ("start", "sam") if about[key]]
    start = " over ".join(f"`{file['name']}` (sha256 {file['sha256'][:12]})" for file in files)
    budget = f"{about['loop']['steps']} steps"
    if about["loop"]["minutes"] is not None:
        budget = f"{about['loop']['minutes']:g} minutes, at most {budget},"
    batch = about["loop"]["batch"] * about["loop"]["accumulate"]
    rank = about["training"]["rank"]
    lines = [
        "## Trained with n points",
        "",
        f"Each setting for {budget} of batch {batch} from {start}; `--trained {about['training']['trained']}`, "
        f"LoRA of rank {'D / 4' if rank < 0 else rank}. Mean ± standard deviation over seeds; Δ is of the mean over "
        "them.",
        "",
        *_source(section),
        "",
        "| n | rule | seeds | Dice | IoU | F1 pooled | Δ Dice | s a step | *paper* Dice / IoU / F1, s an epoch |",
        "| --- |" + " --- |" * 8,
    ]
    for setting in sorted(by_setting, key=_order):
        seeds = by_setting[setting]
        found = {seed: figures(row["counts"]) for seed, row in seeds.items()}
        cells = [
            _spread([100 * float(np.mean(one[0])) for one in found.values()]),
            _spread([100 * float(np.mean(one[1])) for one in found.values()]),
            _spread([100 * one[2] for one in found.values()]),
            _training_gain(found, by_setting.get("0", {})) if setting != "0" else "",
            _spread([row["seconds"] for row in seeds.values()]),
            _paper(setting),
        ]
        lines.append(f"| {_words(setting)} | {len(seeds)} | {' | '.join(cells)} |")
    return [*lines, NOTE.rstrip(), "", *_machines(rows)]


def evaluation_section(section: Mapping[str, Any]) -> list[str]:
    about, rows = section["about"], section["rows"]
    none = figures(rows["0"]["counts"])[0]
    checkpoint = about["checkpoint"]
    lines = [
        "## One checkpoint with n points",
        "",
        f"`{checkpoint['name']}` (sha256 {checkpoint['sha256'][:12]}), {about['precision']}, nothing trained.",
        "",
        *_source(section),
        "",
        "| n | rule | Dice | IoU | F1 pooled | Δ Dice |",
        "| --- |" + " --- |" * 5,
    ]
    for setting in sorted(rows, key=_order):
        dice, iou, f1 = figures(rows[setting]["counts"])
        gain = _with_interval(dice - none, signed=True) if setting != "0" else ""
        cells = [_with_interval(dice), _with_interval(iou), f"{100 * f1:.2f}", gain]
        lines.append(f"| {_words(setting)} | {' | '.join(cells)} |")
    return [*lines, "", *_machines(rows)]


def _order(setting: str) -> tuple[int, str]:
    n, _, rule = setting.partition(" ")
    return int(n), rule


def _words(setting: str) -> str:
    n, _, rule = setting.partition(" ")
    return f"{n} | {rule or '–'}"


def _paper(setting: str) -> str:
    if setting not in PAPER:
        return "–"
    dice, iou, f1, seconds = PAPER[setting]
    return f"*{dice:.2f} / {iou:.2f} / {f1:.2f}, {seconds}*"


def _source(section: Mapping[str, Any]) -> list[str]:
    about = section["about"]
    fold = "" if about["fold"] is None else f" --fold {about['fold']}"
    split = "" if about["part"] == "all" else f" --split {about['split']}{fold}"
    trained = f"{about['trained_images']} images train, " if "trained_images" in about else ""
    return [
        f"{about['data']} (`--layout {about['layout']}{split}`): {trained}{about['images']} are measured (part "
        f"{about['part']}).",
        "",
        "```",
        section["command"],
        "```",
    ]


def _machines(rows: Mapping[str, Any]) -> list[str]:
    return [f"Machine: {', '.join(sorted({row['machine'] for row in rows.values()}))}; shared with other work."]


def _spread(values: list[float]) -> str:
    mean = f"{np.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.2f}"


def _training_gain(found: Mapping[str, Any], none: Mapping[str, Any]) -> str:
    """Interval of the difference of the means over those seeds that both have."""
    seeds = [seed for seed in found if seed in none]
    if not seeds:
        return "–"
    gains = [found[seed][0] - figures(none[seed]["counts"])[0] for seed in seeds]
    return _with_interval(np.mean(gains, axis=0), signed=True)


def _with_interval(values: np.ndarray, signed: bool = False) -> str:
    """Mean over the images in %, with its interval where there are several."""
    form = "+.2f" if signed else ".2f"
    low, high = bootstrap.interval(bootstrap.mean_statistic(values), bootstrap.weights(len(values), DRAWS))
    mean = f"{100 * float(values.mean()):{form}}"
    return mean if np.isnan(low) else f"{mean} ({100 * low:{form}} to {100 * high:{form}})"
