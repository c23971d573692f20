"""From ideal, blurred and noisy maps to nuclei: ``python benchmarks/densesam_instances.py [--data FOLDER]``.

The maps are the targets of DenseSAM's two heads, made of true nuclei as in benchmarks/regions.py: what the
post-processing alone costs. A network's answers are neither sharp nor clean, so the same maps are blurred, brought to a
coarser grid and back, and disturbed. The settings were chosen on the training images; val shows them once. The images
lie in the folder that GIGASEG_DATA names (else ../shared/data).
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import processor
from regions import HERE, NOMINAL_PX, Truths, scaled, truths
from scipy import ndimage
from scipy.special import expit, logit
from skimage.segmentation import watershed
from torch.nn import functional

from gigaseg.metrics.score import score_labels
from gigaseg.segmenters.densesam.instances import BOUNDARY, MARKER_AREA, OBJECT, paper, robust
from gigaseg.segmenters.regions import components, connected, large_enough, split_touching
from gigaseg.train.data import consecutive
from gigaseg.train.densesam import targets

SIDE = 512
"""Of each image the middle, at most so large, px."""

NEIGHBOURS = [
    {"boundary": 0.2},
    {"boundary": 0.3},
    {"boundary": 0.4},
    {"boundary": 0.5},
    {"marker_area": 0},
    {"marker_area": 7},
    {"marker_area": 10},
    {"marker_area": 20},
]
"""Settings of `robust`; each differs from the chosen ones in one."""


def boundary_target(labels: np.ndarray, extra: int = 0) -> np.ndarray:
    return targets.boundary_target(torch.from_numpy(labels), extra).numpy()


@dataclass(frozen=True)
class Blur:
    """How ideal maps become like those of a network.

    Attributes
    ----------
    sigma : standard deviation of the Gaussian over the maps, px.
    grid : side of the cells whose means are brought back to px by bilinear interpolation, px.
    noise : standard deviation, in logits, of noise with a grain of 2 px.
    min_area : px; smaller objects are left out, by every method.
    """

    sigma: float = 0
    grid: int = 1
    noise: float = 0
    min_area: float = 0

    def __call__(self, ideal: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Map of the same shape, float32, 0 to 1."""
        values = ndimage.gaussian_filter(ideal.astype(np.float32), self.sigma, mode="nearest")
        if self.grid > 1:
            height, width = values.shape
            values = np.pad(values, ((0, -height % self.grid), (0, -width % self.grid)), mode="edge")
            cells = functional.avg_pool2d(torch.from_numpy(values)[None, None], self.grid)
            values = functional.interpolate(cells, scale_factor=self.grid, mode="bilinear")[0, 0].numpy()
            values = np.ascontiguousarray(values[:height, :width])
        if self.noise > 0:
            grain = ndimage.gaussian_filter(random.standard_normal(values.shape), 2)
            values = expit(logit(values.clip(0.02, 0.98)) + self.noise / grain.std() * grain).astype(np.float32)
        return values


BLURS = {
    "ideal": Blur(),
    "blur 1": Blur(1),
    "blur 2": Blur(2),
    "grid 2": Blur(grid=2),
    "grid 4": Blur(grid=4),
    "noise 1": Blur(1, noise=1, min_area=50),
    "noise 1.5": Blur(1, noise=1.5, min_area=50),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("GIGASEG_DATA") or HERE.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with dsb2018")
    folder = parser.parse_args().data / "dsb2018"
    times = timing(1024, 700)
    rows = []
    for part in ("train", "val"):
        samples = truths(folder, part)
        for factor in (1.0, 0.5):
            rows += scores(samples, part, NEIGHBOURS if part == "train" else [], factor)
    text = report(rows, times)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "densesam_instances.md").write_text(text, encoding="utf-8")
    print(text)


def scores(samples: Truths, part: str, changes: list[dict[str, float]], factor: float) -> list[list[str]]:
    """A row of each method: PQ / AJI of each kind of map, means over the images scaled by `factor`."""
    figures: dict[tuple[str, str], list[tuple[float, float]]] = {}
    diameter = factor * NOMINAL_PX
    methods: dict[str, Callable[..., np.ndarray]] = {
        "components": lambda objects, _, min_area: components(objects >= OBJECT, min_area=min_area),
        "split_touching": lambda objects, _, min_area: split_touching(objects >= OBJECT, diameter, min_area=min_area),
        "paper": lambda objects, boundaries, min_area: large_enough(paper(objects, boundaries), min_area),
        "robust": robust,
    }
    for change in changes:
        methods |= {f"{name} {value:g}": partial(robust, **change) for name, value in change.items()}
    for index, (_, labels) in enumerate(samples):
        truth = consecutive(scaled(middle(labels), factor))
        for kind, blur in BLURS.items():
            random = np.random.default_rng(index)
            objects, boundaries = blur(truth > 0, random), blur(boundary_target(truth), random)
            for name, method in methods.items():
                found = score_labels(truth, method(objects, boundaries, min_area=blur.min_area * factor**2))
                figures.setdefault((name, kind), []).append((found["pq"], found["aji"]))
    means = {key: np.nanmean(values, axis=0) for key, values in figures.items()}
    cells = {key: f"{pq:.3f} / {aji:.3f}" for key, (pq, aji) in means.items()}
    return [
        [part, str(len(samples)), f"{diameter:g} px", name, *(cells[name, kind] for kind in BLURS)] for name in methods
    ]


def middle(labels: np.ndarray) -> np.ndarray:
    y, x = (max(0, (side - SIDE) // 2) for side in labels.shape)
    return labels[y : y + SIDE, x : x + SIDE]


def timing(side: int, count: int) -> list[str]:
    """Processor time for the maps, blurred by 1 px, of a tile with `count` discs of about the nominal diameter."""
    random = np.random.default_rng(0)
    y, x = np.ogrid[:side, :side]
    truth = np.zeros((side, side), np.int32)
    for row, col, radius in zip(*random.uniform(0, side, (2, count)), random.normal(NOMINAL_PX / 2, 2, count)):
        truth[(y - row) ** 2 + (x - col) ** 2 < radius**2] = truth.max() + 1
    objects, boundaries = (BLURS["blur 1"](ideal, random) for ideal in (truth > 0, boundary_target(truth)))
    mask = objects >= OBJECT
    markers, _ = connected(mask & (boundaries < BOUNDARY), corners=False)
    calls: dict[str, Callable[[], np.ndarray]] = {
        "`robust`": lambda: robust(objects, boundaries),
        "`paper`": lambda: paper(objects, boundaries),
        "the watershed of scikit-image alone, with the markers of `robust`": lambda: watershed(
            mask, markers, mask=mask
        ),
        "`boundary_target`": lambda: boundary_target(truth),
        "`boundary_target` of 256² px with 2 further dilations": lambda: boundary_target(truth[:256, :256], 2),
    }
    lines = [f"{side}² px with {len(np.unique(truth)) - 1} discs ({mask.mean():.0%} foreground)"]
    lines[0] += f", of which `robust` finds {robust(objects, boundaries).max()}; best and median of 40:"
    for name, call in calls.items():
        seconds = []
        for _ in range(40):
            begin = time.process_time()
            call()
            seconds.append(time.process_time() - begin)
        lines.append(f"{name}: {1e3 * min(seconds):.1f} and {1e3 * float(np.median(seconds)):.1f} ms")
    return lines


def report(rows: list[list[str]], times: list[str]) -> str:
    """Markdown page."""
    table = [["part", "images", "diameter", "method", *BLURS], ["---"] * (4 + len(BLURS)), *rows]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in table)
    return (
        "# From DenseSAM's maps to instances\n\n"
        "`python benchmarks/densesam_instances.py`: PQ / AJI, means over images of dsb2018, each scaled to a median "
        f"diameter of {NOMINAL_PX} px, of its middle {SIDE}² px, also at half that scale. The maps are the targets of "
        "both heads: as they are; blurred by a Gaussian of 1 or 2 px; averaged over cells of 2 or 4 px and "
        "interpolated back; blurred by 1 px with noise of 1 or 1.5 in logits and a grain of 2 px, where every method "
        "leaves out objects under 50 px (at half the scale a quarter of it). `components` and `split_touching` (of "
        "`gigaseg.segmenters.regions`) know the objects alone. "
        f"`robust` as chosen, on train: threshold {OBJECT:g}, boundary {BOUNDARY:g}, marker_area {MARKER_AREA:g} px; "
        "rows named after a setting differ from it in that one.\n\n"
        f"{lines}\n\n"
        f"Processor time: {times[0]}\n\n" + "".join(f"- {line}\n" for line in times[1:]) + "\n"
        f"Machine: {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; shared with other work.\n"
    )


if __name__ == "__main__":
    main()
