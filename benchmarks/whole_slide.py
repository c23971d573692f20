"""What a whole slide costs, step by step: ``python benchmarks/whole_slide.py [--sides 10000 50000]``.

The workflow as users run it, `snakemake --cores N --resources gpu=1`, on generated H&E slides of 0.25 µm per pixel:
seconds and peak memory of every step from its run records, bytes on disk, and the memory of the largest slide beside
that of the smallest. A run that was interrupted goes on; `--page` writes the page from finished runs.

The estimate for a GPU takes from the same run how many tiles were asked about and what reading and outlines cost, and
assumes a rate at which the GPU computes: `--gpu-rate`, by default a fifth of the 312 TFLOP/s that NVIDIA states for
bf16 on an A100. It stays an estimate until `benchmarks/gpu_queue.md` has run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import yaml
from machine import processor

HERE = Path(__file__).parent
ROOT = HERE.parent
LIMIT = 1.15
MPP = 0.25
GPU_CORES = 16
STEPS = ("inspect", "grid", "tile", "propose", "prompt", "segment", "stitch", "measure", "export", "overview")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[10_000, 50_000], help="of the slides, px")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--segmenter", default="centersam")
    parser.add_argument("--working-resolution", type=float, help="µm per px (default: the segmenter's)")
    parser.add_argument("--gpu-rate", type=float, default=62.4, help="TFLOP/s that the estimate assumes")
    parser.add_argument("--work", type=Path, default=HERE / "work" / "whole_slide")
    parser.add_argument("--page", action="store_true", help="run nothing, write the page")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "whole_slide.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for side in args.sides:
        if not args.page:
            prepare(args, side)
            run(args, side)
    text = page(args)
    args.out.write_text(text, encoding="utf-8")
    print(text)


def prepare(args: argparse.Namespace, side: int) -> None:
    from gigaseg.testing import synthetic_slide

    folder = args.work / str(side)
    folder.mkdir(exist_ok=True)
    if not (args.work / f"s{side}.geojson").exists():  # written last
        synthetic_slide(args.work / f"s{side}.tif", width=side, height=side, mpp=MPP, seed=4)
    (folder / "slides.tsv").write_text(f"slide\tpath\nbig\t{args.work.resolve() / f's{side}.tif'}\n")
    preset = {"segmenter": {"name": args.segmenter}}
    if args.working_resolution:
        preset["working_resolution"] = args.working_resolution
    config = {"slides": "slides.tsv", "results": "results", "presets": {"nuclei": preset}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def run(args: argparse.Namespace, side: int) -> None:
    """The workflow on one slide; what lies on disk meanwhile is looked at every two seconds."""
    folder = args.work / str(side)
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml", "--quiet", "rules"]
    command += ["--cores", str(args.cores), "--resources", "gpu=1", "--rerun-incomplete"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    over, most = threading.Event(), [0]

    def look() -> None:
        while not over.wait(2):
            most[0] = max(most[0], size_of(folder / "results"))

    thread = threading.Thread(target=look)
    thread.start()
    start = time.perf_counter()
    try:
        subprocess.run(command, cwd=folder, env=environment, check=True)
    finally:
        over.set()
        thread.join()
    state = {"seconds": time.perf_counter() - start, "peak_bytes": most[0], "load": os.getloadavg()}
    if not (folder / "state.json").exists():  # a second call finds everything done
        (folder / "state.json").write_text(json.dumps(state))


def size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # finished meanwhile
            continue
    return total


class Costs:
    """What a finished run tells."""

    def __init__(self, args: argparse.Namespace, side: int) -> None:
        from gigaseg.tiles.grid import Grid

        self.side = side
        folder = args.work / str(side)
        results = folder / "results" / "big"
        self.state = json.loads((folder / "state.json").read_text())
        self.seconds, self.cpu, self.memory = defaultdict(float), defaultdict(float), defaultdict(float)
        self.jobs = defaultdict(int)
        for path in sorted((results / "run").glob("*.json")):
            record = json.loads(path.read_text())
            step = record["step"]
            self.seconds[step] += record["seconds"]
            self.cpu[step] += record["cpu_seconds"]
            self.memory[step] = max(self.memory[step], record["peak_memory_mb"])
            self.jobs[step] += 1
        self.stages = defaultdict(float)
        self.blank = 0
        for log in sorted((results / "log").glob("segment-*.log")):
            text = log.read_text()
            for stage, seconds in re.findall(r"\b(read|model|write) ([\d.]+) s", text):
                self.stages[stage] += float(seconds)
            self.blank += sum(map(int, re.findall(r"(\d+) blank tiles", text)))
        self.grid = Grid.read(results / "grid.parquet")
        self.tiles = len(self.grid.row)
        summary = json.loads((results / "summary.json").read_text())
        self.instances = summary["count"] if "count" in summary else len_of(results / "instances.parquet")
        self.foreground = summary.get("foreground_mm2", float("nan"))
        names = ("instances", "instances.parquet", "measurements.parquet", "export", "overview.png")
        paths = {name: results / name for name in names}
        self.kept = {name: size_of(path) if path.is_dir() else path.stat().st_size for name, path in paths.items()}
        self.slide_bytes = (args.work / f"s{side}.tif").stat().st_size


def len_of(path: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows


def page(args: argparse.Namespace) -> str:
    runs = [Costs(args, side) for side in args.sides]
    flags = [f"--sides {' '.join(map(str, args.sides))}", f"--segmenter {args.segmenter}"]
    flags += [f"--working-resolution {args.working_resolution}"] if args.working_resolution else []
    text = ["# A whole slide, step by step", "", f"`python benchmarks/whole_slide.py {' '.join(flags)}`", ""]
    text += [
        f"Machine: {processor()}, {os.cpu_count()} cores, {args.cores} used, Python {platform.python_version()}.",
        "",
    ]
    rows = []
    for run in runs:
        load = ", ".join(f"{one:.1f}" for one in run.state["load"])
        area = (run.side * MPP / 1000) ** 2
        share = f"{run.foreground / area:.0%}"
        file, minutes = run.slide_bytes / 1e6, run.state["seconds"] / 60
        rows.append([f"{run.side:,}²", file, area, share, run.tiles, run.blank, run.instances, minutes, load])
    head = ["px", "file, MB", "mm²", "foreground", "tiles", "blank", "instances", "minutes", "load at the end"]
    text += table(head, rows)
    text += ["Seconds by the clock of each step (of CPU; jobs), and its peak memory, MB:", ""]
    head = ["step"]
    for run in runs:
        head += [f"{run.side:,}²: s (CPU s)", "MB"]
    head += [f"memory of {runs[-1].side:,}² / {runs[0].side:,}²", f"limit {LIMIT}"] if len(runs) > 1 else []
    rows = []
    for step in [s for s in STEPS if s in runs[-1].seconds]:
        row = [step]
        for run in runs:
            jobs = f", {run.jobs[step]} jobs" if run.jobs[step] > 1 else ""
            row += [f"{run.seconds[step]:.1f} ({run.cpu[step]:.1f}{jobs})", f"{run.memory[step]:.0f}"]
        if len(runs) > 1:
            ratio = runs[-1].memory[step] / runs[0].memory[step]
            row += [ratio, "kept" if ratio <= LIMIT else "not kept"]
        rows.append(row)
    text += table(head, rows)
    text += ["Memory is that of the first process and of the largest of its workers. On disk, MB; *most* while it ran, "
             "with the tile store, which is removed:", ""]  # fmt: skip
    head = ["slide, px", *runs[-1].kept, "most"]
    text += table(
        head, [[f"{r.side:,}²", *(v / 1e6 for v in r.kept.values()), r.state["peak_bytes"] / 1e6] for r in runs]
    )
    return "\n".join(text + estimate(args, runs[-1]))


def estimate(args: argparse.Namespace, run: Costs) -> list[str]:
    """One GPU and 16 cores, from what the run measured and from the rate assumed."""
    operations = tile_operations(args.segmenter, run.grid.tiling.tile)
    if operations is None or not run.stages["model"]:
        return []
    asked = run.tiles - run.blank
    gpu = asked * operations / (args.gpu_rate * 1e12)
    read, write = (run.stages[stage] / (GPU_CORES / 2) for stage in ("read", "write"))
    tile = run.cpu["tile"] / GPU_CORES
    rest = sum(seconds for step, seconds in run.seconds.items() if step in STEPS and step not in ("tile", "segment"))
    lines = [
        f"**Estimate, not measured**, of {run.side:,}² px on one GPU and {GPU_CORES} cores, until the queue has run "
        f"(`whole-slide-gpu`). Operations of the encoder are counted; all that the decoder adds is taken as a third of "
        f"them, as on the CPU. The GPU is taken to compute at {args.gpu_rate:g} TFLOP/s. *tile* and what is around the "
        "model share the cores evenly; the other steps are taken as measured here.",
        "",
    ]
    rows = [
        ["tile", f"{tile:.0f} s", "CPU seconds / cores"],
        ["segment: model", f"{gpu:.0f} s", f"{asked:,} tiles × {operations / 1e9:.0f} GFLOP"],
        ["segment: read", f"{read:.0f} s", "beside the model, half of the cores"],
        ["segment: write", f"{write:.0f} s", "beside the model, half of the cores"],
        ["segment", f"{max(gpu, read, write):.0f} s", "the largest of the three"],
        ["all other steps", f"{rest:.0f} s", "as measured"],
        ["together", f"{(tile + max(gpu, read, write) + rest) / 60:.1f} min", ""],
    ]
    return lines + table(["step", "estimate", "from"], rows)


def tile_operations(segmenter: str, tile: int) -> float | None:
    """Floating-point operations of a tile, a third more than the encoder's of `small`; None without such a model."""
    from dataclasses import replace

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from gigaseg.sam.config import CONFIGS
    from gigaseg.sam.model import build
    from gigaseg.segmenters.card import read_card

    if not read_card(segmenter).needs_gpu:
        return None
    encoder = build(replace(CONFIGS["small"], image_size=tile), "meta").image_encoder
    with FlopCounterMode(display=False) as counter:
        encoder(torch.empty(1, 3, tile, tile, device="meta"))
    return counter.get_total_flops() * 4 / 3


def table(head: list[str], rows: list[list]) -> list[str]:
    """Lines of Markdown, and an empty one."""

    def shown(cell: object) -> str:
        return f"{cell:,.2f}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else str(cell)

    cells = [[shown(cell) for cell in row] for row in rows]
    return [*(f"| {' | '.join(map(str, line))} |" for line in [head, ["---"] * len(head), *cells]), ""]


if __name__ == "__main__":
    main()
