"""The segment step beside its model alone and its reading alone: ``python benchmarks/segment.py [--device cuda]``.

On one slide, in turn, everything in the same run:

- *model*: the segmenter on the same tiles, already in the memory of the device; on a CPU in as many processes as the
  step has workers, of one thread each. The clock starts when models and tiles are loaded.
- *read*: the same tiles read from the slide in as many processes, and thrown away, start of the processes included.
- *segment*: the command, from its start to its end.
- *tile, then segment*: the tile store written first, then `segment` from it.
- *two shards*: two commands of one worker at once, each on half of the tiles, beside one of them alone.

The order is repeated and the least of each is shown, because other work on the machine only adds.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path

from machine import processor

HERE = Path(__file__).parent
WORK = HERE / "work"
LIMIT, SCALES, BUSY = 1.15, 1.6, 0.9
STAGES = ("read", "model", "write")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path, help="default: a generated one")
    parser.add_argument("--side", type=int, default=6000, help="width and height of the generated slide, px")
    parser.add_argument("--tiles", type=int, default=64, help="at most so many, of the middle of the slide")
    parser.add_argument("--segmenters", nargs="+", default=["centersam", "watershed"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="page to write (benchmarks/results/segment.md, or segment_cuda.md)")
    args = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    slide = args.slide or generated(args.side)
    rows = []
    for name in args.segmenters:
        case = Case(slide, name, args)
        rounds = [case.round() for _ in range(args.rounds)]
        best = {key: min(one[key] for one in rounds) for key in rounds[0] if isinstance(rounds[0][key], float)}
        fastest = min(rounds, key=lambda one: one["segment"])
        rows.append((case, best, fastest))
    text = page(args, slide, rows)
    target = args.out or HERE / "results" / ("segment.md" if args.device == "cpu" else "segment_cuda.md")
    target.write_text(text, encoding="utf-8")
    print(text)


def generated(side: int) -> Path:
    from gigaseg.testing import synthetic_slide

    path = WORK / f"segment-{side}.tif"
    if not path.exists():
        synthetic_slide(path, width=side, height=side, mpp=0.25, seed=3)
    return path


class Case:
    """A segmenter on tiles of the slide: one grid of all of them, and one of two shards."""

    def __init__(self, slide: Path, segmenter: str, args: argparse.Namespace) -> None:
        from dataclasses import replace

        import numpy as np

        from gigaseg.config import Preset, SegmenterConfig
        from gigaseg.slides.inspect import inspect
        from gigaseg.tiles.grid import Grid, grid

        self.segmenter, self.args = segmenter, args
        self.folder = WORK / f"segment-{segmenter}"
        self.folder.mkdir(exist_ok=True)
        self.info, self.grid, self.halves = (self.folder / n for n in ("slide.json", "grid.parquet", "halves.parquet"))
        inspect(slide, slide="benchmark").write(self.info)
        preset = Preset(segmenter=SegmenterConfig(segmenter))
        grid(self.info, self.grid, self.folder / "foreground.tif", preset=preset)
        kept = Grid.read(self.grid)
        first = max(0, (len(kept.row) - args.tiles) // 2)
        some = slice(first, first + args.tiles)
        whole = replace(kept, row=kept.row[some], col=kept.col[some], foreground=kept.foreground[some],
                        shard=np.zeros_like(kept.shard[some]), shards=1)  # fmt: skip
        whole.write(self.grid)
        shard = (np.arange(len(whole.row)) >= len(whole.row) // 2).astype(np.int32)
        replace(whole, shard=shard, shards=2).write(self.halves)
        self.n = len(whole.row)

    def round(self) -> dict:
        """Seconds of everything, once."""
        found = {"model": self.model(), "read": self.read()}
        watch = Watch() if self.args.device != "cpu" else None
        found["segment"], log = self.command(self.grid, 0, self.args.workers)
        found["busy"] = watch.stop() if watch else 0.0
        found["stages"] = {
            stage: float(seconds) for stage, seconds in re.findall(r"(read|model|write) ([\d.]+) s", log)
        }
        found["clock"] = float(re.search(r"([\d.]+) s by the clock", log)[1])
        found["blank"] = int(re.search(r"(\d+) blank", log)[1])
        store = self.folder / "000.zarr.zip"
        start = time.perf_counter()
        tile = [sys.executable, "-m", "gigaseg", "tile", self.info, self.grid, "--out", store]
        subprocess.run([*map(str, tile), "--workers", str(self.args.workers)], check=True, capture_output=True)
        self.command(self.grid, 0, self.args.workers, "--tiles", str(store))
        found["tile, then segment"] = time.perf_counter() - start
        if self.args.device == "cpu":
            found["one half"], _ = self.command(self.halves, 0, 1)
            start = time.perf_counter()
            running = [self._start(self.halves, shard, 1) for shard in (0, 1)]
            for process in running:
                if process.wait():
                    raise SystemExit(process.stderr.read())
            found["both halves at once"] = time.perf_counter() - start
        return found

    def _start(self, grid: Path, shard: int, workers: int, *more: str) -> subprocess.Popen:
        out = self.folder / f"{grid.stem}-{shard}.parquet"
        step = ["segment", self.info, grid, "--shard", shard, "--out", out, "--workers", workers]
        command = [sys.executable, "-m", "gigaseg", *step, "--segmenter", self.segmenter, "--device", self.args.device]
        return subprocess.Popen([*map(str, command), *more], stderr=subprocess.PIPE, text=True)

    def command(self, *task: object) -> tuple[float, str]:
        """Seconds of `gigaseg segment`, and its log."""
        start = time.perf_counter()
        process = self._start(*task)
        _, log = process.communicate()
        if process.returncode:
            raise SystemExit(log)
        return time.perf_counter() - start, log

    def _tiles(self):
        from gigaseg.config import SegmenterConfig
        from gigaseg.instances.job import Job

        job = Job.open(self.info, self.grid, 0, SegmenterConfig(self.segmenter, device=self.args.device), "")
        return job, job.chosen

    def read(self) -> float:
        """Seconds of reading alone."""
        from functools import partial

        from gigaseg.instances.job import open_source
        from gigaseg.tiles.pool import read_tiles

        job, tiles = self._tiles()
        start = time.perf_counter()
        for _ in read_tiles(partial(open_source, job), job.grid.tiling, tiles, self.args.workers, ignored):
            pass
        return time.perf_counter() - start

    def model(self) -> float:
        """Seconds of the model alone, from when all processes are ready to when the last one ends."""
        context = get_context("spawn")
        workers = self.args.workers if self.args.device == "cpu" else 1
        ready = context.Barrier(workers + 1)
        settings = (self.info, self.grid, self.segmenter, self.args.device)
        processes = [
            context.Process(target=only_model, args=(*settings, part, workers, ready)) for part in range(workers)
        ]
        for process in processes:
            process.start()
        ready.wait()
        start = time.perf_counter()
        for process in processes:
            process.join()
            if process.exitcode:
                raise SystemExit("the model alone failed")
        return time.perf_counter() - start


def ignored(pixels) -> None:
    return None


def only_model(info: Path, grid: Path, name: str, device: str, part: int, of: int, ready) -> None:
    """Every so-manieth run of four tiles, as `segment` deals them out; blank ones are left out as it does."""
    from dataclasses import replace

    import numpy as np
    import torch

    from gigaseg.config import SegmenterConfig
    from gigaseg.instances.job import PART, Job, device_of, open_source
    from gigaseg.instances.segment import _segment_tiles
    from gigaseg.instances.stages import FirstLook
    from gigaseg.segmenters.base import TileBatch
    from gigaseg.segmenters.registry import load_segmenter

    torch.set_num_threads(1)
    job = Job.open(info, grid, 0, SegmenterConfig(name, device=device), "")
    job = replace(job, device=device_of(job))
    job.metadata["overlaps"] = job.card.overlaps
    source = open_source(job)
    mine = [tile for i, tile in enumerate(job.chosen) if i // PART % of == part]
    look = FirstLook.of(job)
    pixels = [(tile, source.read(tile)) for tile in mine]
    seen = [(tile, image) for tile, image in pixels if not look(tile, image)]
    size = 1 if device == "cpu" else 64
    batches = []
    for start in range(0, len(seen), size):
        some = seen[start : start + size]
        images = torch.from_numpy(np.stack([image for _, image in some])).movedim(-1, 1).to(job.device)
        batches.append(TileBatch(images, [tile for tile, _ in some]))
    segmenter = load_segmenter(name, job.context)
    ready.wait()
    for batch in batches:
        _segment_tiles(job, segmenter, batch)


class Watch:
    """How busy the GPU is, as its driver says, ten times a second."""

    def __init__(self) -> None:
        self._seen, self._over = [], threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        ask = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._over.wait(0.1):
            self._seen.append(float(subprocess.run(ask, capture_output=True, text=True).stdout.split()[0]))

    def stop(self) -> float:
        """Share of the time between the first and the last moment at which it did something."""
        self._over.set()
        self._thread.join()
        at = [i for i, value in enumerate(self._seen) if value]
        return sum(self._seen[at[0] : at[-1] + 1]) / (at[-1] + 1 - at[0]) / 100 if at else 0.0


def page(args: argparse.Namespace, slide: Path, rows: list) -> str:
    gpu = args.device != "cpu"
    shown = ["python benchmarks/segment.py"]
    shown += [f"--slide {args.slide.name}"] if args.slide else []
    shown += [f"--device {args.device}"] if gpu else []
    shown += [f"--tiles {args.tiles} --workers {args.workers} --rounds {args.rounds}"]
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    text = [
        "# The segment step beside its model and its reading",
        "",
        f"`{' '.join(shown)}`",
        "",
        f"Machine: {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; load {load} at the end. "
        f"Slide: `{slide.name}`. Seconds by the clock, the least of {args.rounds} rounds.",
        "",
        *table(
            ["segmenter", "tiles", "blank", "model alone", "read alone", "segment", "tile, then segment"],
            [
                [case.segmenter, case.n, fastest["blank"], best["model"], best["read"], best["segment"],
                 best["tile, then segment"]]
                for case, best, fastest in rows
            ],
        ),
        f"Stages of the fastest run of `segment`: seconds of its {args.workers} workers together, and their share of "
        "the workers' time (around one model: *read* is what the model waited):",
        "",
    ]  # fmt: skip
    stages = []
    for case, _, fastest in rows:
        seconds = fastest["stages"]
        share = sum(seconds.values()) / (1 if gpu else args.workers) / fastest["clock"]
        stages.append([case.segmenter, *(seconds[key] for key in STAGES), fastest["clock"], f"{share:.0%}"])
    text += table(["segmenter", *STAGES, "by the clock, start excluded", "in stages"], stages)
    text += table(["segmenter", "ratio", "value", "limit", ""], [r for row in rows for r in ratios(args, *row)])
    return "\n".join(text)


def ratios(args: argparse.Namespace, case: Case, best: dict, fastest: dict) -> list[list]:
    """Rows: segmenter, what, value, limit, whether it is kept; `watershed`, no model, has no limit to one."""
    gpu = args.device != "cpu"
    slower = max(best["model"], best["read"]) if gpu else best["model"]
    what = "the slower of model and reading alone" if gpu else "model alone"
    whole, started = best["segment"] / slower, fastest["clock"] / slower
    store = best["segment"] / best["tile, then segment"]
    has_model = case.segmenter != "watershed"
    found = [
        [f"segment / {what}", whole, LIMIT, kept(whole <= LIMIT) if has_model else ""],
        ["the same, start of the processes excluded", started, LIMIT, kept(started <= LIMIT) if has_model else ""],
        ["segment / (tile, then segment)", store, 1.0, kept(store <= 1)],
    ]
    if gpu:
        found.append(["GPU busy", fastest["busy"], BUSY, kept(fastest["busy"] >= BUSY)])
    else:
        scale = 2 * best["one half"] / best["both halves at once"]
        found.append(["two shards at once: times as fast as in turn", scale, SCALES, kept(scale >= SCALES)])
    return [[case.segmenter, *row] for row in found]


def kept(good: bool) -> str:
    return "kept" if good else "not kept"


def table(head: list[str], rows: list[list]) -> list[str]:
    """Lines of Markdown, and an empty one."""
    cells = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return [*(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *cells]), ""]


if __name__ == "__main__":
    main()
