"""Cost of the metrics: against per-object loops on a label image, and on a slide of a million objects.

python benchmarks/metrics.py [--objects 1000000] [--out benchmarks/results/metrics.md]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import shapely
from scipy.optimize import linear_sum_assignment

from gigaseg.instances.table import Instances
from gigaseg.metrics.detection import Points, greedy_counts, paired_counts
from gigaseg.metrics.evaluate import evaluate
from gigaseg.metrics.images import label_points
from gigaseg.metrics.overlap import Overlap
from gigaseg.metrics.score import score_labels, score_overlap

SIDE, OBJECTS = 1000, 700
REPEATS = 7


def label_image(seed: int) -> np.ndarray:
    """(1000, 1000) label image of 700 discs; images of two seeds differ as a good prediction from its truth."""
    centres = np.random.default_rng(0).integers(15, SIDE - 15, (OBJECTS, 2))
    own = np.random.default_rng(seed)
    yy, xx = np.mgrid[-12:13, -12:13]
    labels = np.zeros((SIDE, SIDE), np.int32)
    for i, (y, x) in enumerate(centres + own.integers(-2, 3, centres.shape), 1):
        disc = yy**2 + xx**2 < own.integers(8, 12) ** 2
        labels[y - 12 : y + 13, x - 12 : x + 13][disc] = i
    return labels


def ours(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    overlap = Overlap.from_labels(truth, prediction)
    points = [
        Points(label_points(a, ids)) for a, ids in ((truth, overlap.truth_ids), (prediction, overlap.prediction_ids))
    ]
    detection, _ = paired_counts(*points)
    greedy, _ = greedy_counts(*points)
    return {**score_overlap(overlap), "detection_f1_hungarian": detection.f1, "detection_f1_greedy": greedy.f1}


def loops(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """The instance metrics from masks of single objects; all intersections are counted once and shared."""
    ts = {i: truth == i for i in np.unique(truth).tolist() if i}
    ps = {i: prediction == i for i in np.unique(prediction).tolist() if i}
    t_area, p_area = ({i: int(m.sum()) for i, m in masks.items()} for masks in (ts, ps))
    inter = {(i, j): int((m & ps[j]).sum()) for i, m in ts.items() for j in np.unique(prediction[m]).tolist() if j}
    union = {(i, j): t_area[i] + p_area[j] - n for (i, j), n in inter.items()}
    iou = {pair: n / union[pair] for pair, n in inter.items()}
    rows, cols = {i: k for k, i in enumerate(ts)}, {j: k for k, j in enumerate(ps)}
    matrix = np.zeros((len(rows), len(cols)))
    for (i, j), value in iou.items():
        matrix[rows[i], cols[j]] = value

    def jaccard(pairs: list[tuple[int, int]]) -> float:
        left = {i for i, _ in pairs}
        right = {j for _, j in pairs}
        rest = sum(a for i, a in t_area.items() if i not in left) + sum(a for j, a in p_area.items() if j not in right)
        return sum(inter[p] for p in pairs) / (sum(union[p] for p in pairs) + rest)

    best = [max((p for p in iou if p[0] == i), key=iou.__getitem__, default=None) for i in ts]
    keys_t, keys_p = list(ts), list(ps)
    assigned = [(keys_t[a], keys_p[b]) for a, b in zip(*linear_sum_assignment(-matrix)) if matrix[a, b] > 0]
    hits = [p for p in iou if iou[p] > 0.5]
    dq = 2 * len(hits) / (len(ts) + len(ps))
    covers = {i: iou[i, j] for (i, j), n in inter.items() if n > 0.5 * t_area[i]}
    return {
        "pixel_dice": 2 * sum(inter.values()) / (sum(t_area.values()) + sum(p_area.values())),
        "aji": jaccard([p for p in best if p is not None]),
        "aji_plus": jaccard(assigned),
        "pq": dq * sum(iou[p] for p in hits) / (len(hits) + 1e-6),
        "seg": sum(covers.values()) / len(ts),
    }


def cpu_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds of a call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return float(np.median(times))


def nuclei(count: int, seed: int) -> np.ndarray:
    """Outlines of 40 vertices, 18 px wide on average, on a jittered grid of 22 px."""
    own = np.random.default_rng(seed)
    side, angle = int(np.ceil(count**0.5)), np.linspace(0, 2 * np.pi, 40, endpoint=False)
    parts = []
    for first in range(0, count, 50_000):
        k = np.arange(first, min(first + 50_000, count))
        centre = np.stack([k % side, k // side], -1) * 22.0 + own.normal(0, 1, (len(k), 2))
        radius = (
            9 * own.uniform(0.85, 1.15, (len(k), 1)) * (1 + 0.1 * np.sin(3 * angle + own.uniform(0, 6, (len(k), 1))))
        )
        ring = centre[:, None] + np.stack([np.cos(angle), np.sin(angle)], -1) * radius[..., None]
        parts.append(shapely.polygons(np.round(ring, 2)))
    return np.concatenate(parts)


def write_slide(folder: Path, count: int) -> None:
    """instances.parquet and truth.geojson of `count` objects each."""
    Instances(
        geometry=nuclei(count, 1),
        score=np.linspace(0, 1, count).astype(np.float32),
        class_index=np.zeros(count, np.int32),
        class_prob=np.ones((count, 1), np.float32),
        tile_row=np.zeros(count, np.int32),
        tile_col=np.zeros(count, np.int32),
        cut=np.zeros(count, np.uint8),
        prompt=np.full(count, -1),
        classes=("nucleus",),
        members=np.ones(count, np.int16),
    ).write(folder / "instances.parquet", {"slide": "synthetic"})
    order = np.random.default_rng(0).permutation(count)  # annotations come in any order
    with (folder / "truth.geojson").open("w") as stream:
        stream.write('{"type": "FeatureCollection", "features": [\n')
        for k, text in enumerate(shapely.to_geojson(nuclei(count, 2)[order])):
            comma = ",\n" if k else ""
            stream.write(
                f'{comma}{{"type": "Feature", "properties": {{"objectType": "detection"}}, "geometry": {text}}}'
            )
        stream.write("\n]}\n")


def score_slide(folder: Path) -> None:
    """Run in a process of its own, so that its memory can be measured."""
    start, wall = time.process_time(), time.perf_counter()
    report = evaluate(folder / "instances.parquet", folder / "truth.geojson")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {name: report.figures[name].value for name in ("pixel_dice", "aji", "pq", "detection_f1_greedy")}
    result = {"cpu": time.process_time() - start, "wall": time.perf_counter() - wall, "peak_mb": peak, **figures}
    (folder / "result.json").write_text(json.dumps(result))


def slide_row(count: int) -> str:
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for target, args in ((write_slide, (folder, count)), (score_slide, (folder,))):
            process = spawn.Process(target=target, args=args)
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{target.__name__} failed")
        size = sum((folder / f).stat().st_size for f in ("instances.parquet", "truth.geojson")) / 1e6
        r = json.loads((folder / "result.json").read_text())
    return (
        f"| {count:,} + {count:,} | {size:.0f} | {r['cpu']:.1f} | {r['wall']:.1f} | {r['peak_mb']:.0f} | "
        f"{r['pixel_dice']:.4f} | {r['aji']:.4f} | {r['pq']:.4f} |"
    )


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, "
        f"numpy {np.__version__}, shapely {shapely.__version__} (GEOS {shapely.geos_version_string}); shared with "
        "other work, so trust the ratio more than the seconds."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--objects", type=int, nargs="+", default=[100_000, 1_000_000], help="objects a side of the slide"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "metrics.md")
    args = parser.parse_args()
    # First, while this process is small: a new process inherits the peak memory of the one that starts it.
    slides = [slide_row(count) for count in args.objects]
    truth, prediction = label_image(1), label_image(2)
    fast, slow = ours(truth, prediction), loops(truth, prediction)
    worst = max(abs(fast[name] - value) for name, value in slow.items())
    one = cpu_seconds(lambda: score_labels(truth, prediction), REPEATS)
    every = cpu_seconds(lambda: ours(truth, prediction), REPEATS)
    naive = cpu_seconds(lambda: loops(truth, prediction), 3)
    n, m = len(np.unique(truth)) - 1, len(np.unique(prediction)) - 1
    lines = [
        "# Cost of the metrics",
        "",
        "`python benchmarks/metrics.py`",
        "",
        machine(),
        "",
        f"## A label image of {SIDE} x {SIDE} px, {n} against {m} objects",
        "",
        "| what | CPU ms (median) |",
        "|---|---|",
        f"| `score_labels`: pixel, object Dice, AJI, AJI+, PQ/DQ/SQ, SEG, F1 at five thresholds | {1e3 * one:.1f} |",
        f"| the same with centroids and both detection protocols | {1e3 * every:.1f} |",
        f"| loops over object masks: Dice, AJI, AJI+, PQ, SEG | {1e3 * naive:.0f} |",
        "",
        f"Ratio of the loops to everything we compute: **{naive / every:.0f}** (to `score_labels` alone "
        f"{naive / one:.0f}). The loops count each intersection once and share it between the metrics. Largest "
        f"difference between the two: {worst:.1e}.",
        "",
        "## A slide: instances.parquet against GeoJSON in random order, outlines of 40 vertices",
        "",
        "| objects | files, MB | CPU s | wall s | peak MB | pixel Dice | AJI | PQ |",
        "|---|---|---|---|---|---|---|---|",
        *slides,
        "",
        "Peak is the resident memory of the whole process, imports included. One process; the geometries lie in a "
        "temporary file.",
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(lines) + "\n")
    print(args.out.read_text())


if __name__ == "__main__":
    main()
