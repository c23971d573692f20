"""What a whole slide costs, step by step: ``python benchmarks/whole_slide.py [--sides 10000 50000]``.

The workflow as users run it, `snakemake --cores N --resources gpu=1`, on generated H&E slides of 0.25 µm per pixel:
seconds and peak memory of every step from its run records, bytes on disk, and the memory of the largest slide beside
that of the smallest. All steps run with `--segmenter`, by default the quick one. What a model adds is measured by
`gigaseg segment` with `--model` on some tiles of the largest slide, evenly spread over those that its grid keeps, and
stated for all of them by proportion.

The estimate for a GPU takes from the same run what reading and outlines cost, and assumes a rate at which the GPU
computes: `--gpu-rate`, by default a fifth of the 312 TFLOP/s that NVIDIA states for bf16 on an A100. It stays an
estimate until `benchmarks/gpu_queue.md` has run. `--page` writes the page from runs that are there.
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
from dataclasses import replace
from pathlib import Path

import yaml
from machine import processor

HERE = Path(__file__).parent
ROOT = HERE.parent
LIMIT = 1.15
MPP = 0.25
GPU_CORES = 16
KEYS = ("seconds", "cpu_seconds", "peak_memory_mb")
STEPS = ("inspect", "grid", "tile", "propose", "prompt", "segment", "stitch", "measure", "export", "overview")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[10_000, 50_000], help="of the slides, px")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--segmenter", default="watershed", help="of the whole run")
    parser.add_argument("--model", default="centersam", help="of the sample")
    parser.add_argument("--model-tiles", type=int, default=240, help="of the sample")
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
    if not args.page:
        sample(args, args.sides[-1])
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


def sample(args: argparse.Namespace, side: int) -> None:
    """`gigaseg segment` with the model on tiles spread over the slide; what it cost goes to model.json."""
    import numpy as np

    from gigaseg.config import Preset, SegmenterConfig
    from gigaseg.tiles.grid import Grid, grid

    folder = args.work / f"{side}-{args.model}"
    folder.mkdir(exist_ok=True)
    info = args.work / str(side) / "results" / "big" / "slide.json"
    path = folder / "grid.parquet"
    grid(info, path, folder / "foreground.tif", preset=Preset(segmenter=SegmenterConfig(args.model)))
    kept = Grid.read(path)
    at = np.unique(np.linspace(0, len(kept.row) - 1, args.model_tiles).round().astype(int))
    zeros = np.zeros(len(at), np.int32)
    some = replace(kept, row=kept.row[at], col=kept.col[at], foreground=kept.foreground[at], shard=zeros, shards=1)
    some.write(path)
    record = folder / "run.json"
    command = [sys.executable, "-m", "gigaseg", "segment", info, path, "--out", folder / "000.parquet"]
    command += ["--segmenter", args.model, "--workers", args.cores, "--slide", "big", "--run-record", record]
    done = subprocess.run([str(word) for word in command], check=True, stderr=subprocess.PIPE, text=True)
    stages = {stage: float(seconds) for stage, seconds in re.findall(r"\b(read|model|write) ([\d.]+) s", done.stderr)}
    found = {
        "tiles": len(at), "of": len(kept.row), "tile": kept.tiling.tile, "stages": stages,
        "blank": int(re.search(r"(\d+) blank tiles", done.stderr)[1]), "instances": len_of(folder / "000.parquet"),
        "load": os.getloadavg(), **{key: json.loads(record.read_text())[key] for key in KEYS},
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(found))


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
        self.tiles = len(Grid.read(results / "grid.parquet").row)
        summary = json.loads((results / "summary.json").read_text())
        self.instances, self.foreground = summary["instances"], summary["foreground_mm2"]
        names = ("instances", "instances.parquet", "measurements.parquet", "export", "overview.png")
        paths = {name: results / name for name in names}
        self.kept = {name: size_of(path) if path.is_dir() else path.stat().st_size for name, path in paths.items()}
        self.slide_bytes = (args.work / f"s{side}.tif").stat().st_size


def len_of(path: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows


def page(args: argparse.Namespace) -> str:
    runs = [Costs(args, side) for side in args.sides]
    flags = [f"--sides {' '.join(map(str, args.sides))}", f"--model-tiles {args.model_tiles}"]
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
        rows.append([f"{run.side:,}²", file, area, share, run.tiles, run.instances, minutes, load])
    head = ["px", "file, MB", "mm²", "foreground", "tiles", "instances", "minutes", "load at the end"]
    text += table(head, rows)
    text += [f"Seconds by the clock of each step with `{args.segmenter}` (of CPU; jobs), and its peak memory, MB:", ""]
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
    return "\n".join(text + with_model(args, runs[-1]))


def with_model(args: argparse.Namespace, run: Costs) -> list[str]:
    """The sample; the same for the whole slide; one GPU with 16 cores, from what was measured and a rate assumed."""
    found = json.loads((args.work / f"{run.side}-{args.model}" / "model.json").read_text())
    times = found["of"] / found["tiles"]
    rest = sum(seconds for step, seconds in run.seconds.items() if step in STEPS and step not in ("tile", "segment"))
    minutes = found["seconds"] * times / 60
    load = ", ".join(f"{one:.1f}" for one in found["load"])
    stages = {stage: seconds * times for stage, seconds in found["stages"].items()}
    lines = [
        f"## With `{args.model}`",
        "",
        f"`segment` on {found['tiles']} of the {found['of']:,} tiles that its grid keeps of {run.side:,}² px, "
        f"evenly spread ({found['blank']} of them blank, {found['instances']:,} instances): "
        f"{found['seconds']:.0f} s by the clock, {found['cpu_seconds']:.0f} s of CPU, "
        f"{found['peak_memory_mb']:.0f} MB at most; load {load} at the end. By proportion **{minutes:.0f} minutes for "
        f"all tiles on {args.cores} cores**, of "
        f"which read {stages['read'] / 60:.1f}, model {stages['model'] / 60:.1f}, write {stages['write'] / 60:.1f} "
        f"core-minutes; with the other steps as above {minutes + (rest + run.seconds['tile']) / 60:.0f} minutes.",
        "",
    ]
    asked = round((found["tiles"] - found["blank"]) * times)
    operations = tile_operations(found["tile"])
    gpu = asked * operations / (args.gpu_rate * 1e12)
    read, write = (stages[stage] / (GPU_CORES / 2) for stage in ("read", "write"))
    tile = run.cpu["tile"] / GPU_CORES
    lines += [
        f"**Estimate, not measured**, on one GPU and {GPU_CORES} cores, until the queue has run (`whole-slide-gpu`). "
        "Operations of the encoder are counted; what the decoder adds is taken as a third of them, as on the CPU. The "
        f"GPU is taken to compute at {args.gpu_rate:g} TFLOP/s. *tile* and what is around the model share the cores "
        "evenly; the other steps are taken as measured here.",
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


def tile_operations(tile: int) -> float:
    """Floating-point operations of a tile: a third more than the encoder's of `small`, counted without computing."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from gigaseg.sam.config import CONFIGS
    from gigaseg.sam.model import build

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
