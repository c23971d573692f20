"""Telling touching nuclei apart in true foregrounds: ``python benchmarks/regions.py [--data FOLDER]``.

The mask of each image is the union of its true nuclei, scaled so that their median diameter is the nominal one;
`gigaseg.segmenters.regions` makes instances of it, and they are compared with the truth. So the figures are what the
post-processing alone costs. The settings were chosen on the training images; val shows them once. The images lie in the
folder that GIGASEG_DATA names (else ../shared/data).
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from machine import processor

from gigaseg.metrics.score import score_labels
from gigaseg.segmenters.regions import DEPTH, ROUNDING, components, split_touching
from gigaseg.train.data import load
from gigaseg.train.layouts import read_layout
from gigaseg.train.splits import split

HERE = Path(__file__).parent
NOMINAL_PX = 26
"""Median diameter of the nuclei of each image after scaling, px."""

IMAGES = {"brightfield": 12, "purple": 48, "fluorescence": 90}
"""Training images of each group, evenly drawn; of val all are taken."""

CHOSEN = {"rounding": ROUNDING, "depth": DEPTH}
NEIGHBOURS = [
    {"rounding": 0.02},
    {"rounding": 0.06},
    {"rounding": 0.08},
    {"depth": 0.0},
    {"depth": 0.015},
    {"depth": 0.04},
    {"depth": 0.06},
]
"""Each differs from the chosen settings in one."""

Truths = list[tuple[str, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("GIGASEG_DATA") or HERE.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with dsb2018")
    folder = parser.parse_args().data / "dsb2018"
    train, val = truths(folder, "train"), truths(folder, "val")
    rows = [score(train, "train", "components", components)]
    for change in [{}, *NEIGHBOURS]:
        changed = ", ".join(f"{name} {value:g}" for name, value in change.items()) or "chosen"
        rows.append(score(train, "train", changed, partial(split_touching, diameter=NOMINAL_PX, **CHOSEN | change)))
    rows.append(score(val, "val", "components", components))
    rows.append(score(val, "val", "chosen", partial(split_touching, diameter=NOMINAL_PX)))
    text = report(rows, [timing(512, 150), timing(1024, 700)])
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "regions.md").write_text(text, encoding="utf-8")
    print(text)


def truths(folder: Path, part: str) -> Truths:
    """Group and label image at the nominal scale of each image."""
    entries = split(read_layout("plain", folder), needed=part)[part]
    chosen = []
    for group, count in IMAGES.items():
        of_group = [entry for entry in entries if entry.group == group]
        count = min(count, len(of_group)) if part == "train" else len(of_group)
        chosen += [of_group[i] for i in np.linspace(0, len(of_group) - 1, count).round().astype(int)]
    return [(sample.group, scaled(sample.labels, NOMINAL_PX / sample.diameter)) for sample in load(chosen)]


def scaled(labels: np.ndarray, factor: float) -> np.ndarray:
    rows, cols = (np.minimum((np.arange(round(n * factor)) + 0.5) / factor, n - 1).astype(int) for n in labels.shape)
    return labels[np.ix_(rows, cols)]


def score(samples: Truths, part: str, name: str, method: Callable[[np.ndarray], np.ndarray]) -> dict[str, float | str]:
    """Means over the images, of all and of each group."""
    figures: dict[str, list[tuple[float, float]]] = {"all": [], **{group: [] for group in IMAGES}}
    found = there = 0
    for group, truth in samples:
        scores = score_labels(truth, method(truth > 0))
        figures["all"].append((scores["pq"], scores["aji"]))
        figures[group].append((scores["pq"], scores["aji"]))
        found += int(scores["predicted_objects"])
        there += int(scores["truth_objects"])
    row: dict[str, float | str] = {"part": part, "images": len(samples), "settings": name}
    for group, values in figures.items():
        row[f"PQ {group}"], row[f"AJI {group}"] = np.nanmean(values, axis=0).tolist()
    return row | {"nuclei": there, "found": found}


def timing(side: int, count: int) -> str:
    """Processor time of a tile with `count` discs of about the nominal diameter at random places."""
    random = np.random.default_rng(0)
    y, x = np.ogrid[:side, :side]
    mask = np.zeros((side, side), bool)
    for row, col, radius in zip(*random.uniform(0, side, (2, count)), random.normal(NOMINAL_PX / 2, 2, count)):
        mask |= (y - row) ** 2 + (x - col) ** 2 < radius**2
    seconds = []
    for _ in range(40):
        begin = time.process_time()
        labels = split_touching(mask, NOMINAL_PX)
        seconds.append(time.process_time() - begin)
    low, middle = 1e3 * min(seconds), 1e3 * float(np.median(seconds))
    return (
        f"{side}² px with {count} discs ({mask.mean():.0%} foreground, {labels.max()} found): "
        f"{low:.0f} ms at best, median {middle:.0f} ms"
    )


def report(rows: list[dict[str, float | str]], times: list[str]) -> str:
    """Markdown page."""
    head = list(rows[0])
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()) for row in rows]
    table = "\n".join(f"| {line} |" for line in lines)
    chosen = ", ".join(f"{name} {value:g}" for name, value in CHOSEN.items())
    return (
        "# From true foregrounds to instances\n\n"
        "`python benchmarks/regions.py`: PQ and AJI are means over images of dsb2018, each scaled to a median diameter "
        f"of {NOMINAL_PX} px, of `components` and of `split_touching` of `gigaseg.segmenters.regions`. Chosen, on "
        f"train: {chosen} (in diameters); the other rows differ from it in the setting they name.\n\n"
        f"{table}\n\n"
        f"Processor time of `split_touching`: {'; '.join(times)}.\n\n"
        f"Machine: {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; shared with other work.\n"
    )


if __name__ == "__main__":
    main()
