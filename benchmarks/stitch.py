"""Stitching beside sopa: ``python benchmarks/stitch.py [--peers VENV] [--data FOLDER] [--sizes N ...]``.

Time, memory and correctness on synthetic cells of known truth (`stitch_cells.py`), each measurement in a process of its
own: seconds of `gigaseg.stitch.stitch.stitch` from shards on disk to instances.parquet on disk, process start and
imports not counted; for sopa those of `solve_conflicts(polygons, threshold=0.5)` alone, on the same polygons. VENV is
an environment with sopa (python -m venv VENV; VENV/bin/pip install torch==2.13.0; VENV/bin/pip install sopa).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import shapely
from machine import processor
from stitch_cells import Field, score, write_slide
from stitch_real import comes_back
from stitch_rectangles import KINDS, rectangles

HERE = Path(__file__).parent
SETTINGS = [(1024, 64), (1024, 32), (1024, 16), (1024, 4), (1024, 1), (1024, 0), (512, 64), (256, 64), (256, 128)]
"""Tile and overlap of the comparison at one size, px."""

UNCLIPPED = [(1024, 64), (256, 128)]
"""Those compared once more with outlines that move by any number of px, as the normal distribution has it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, help="virtual environment with sopa (default: gigaseg alone)")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GIGASEG_DATA", "../shared/data")))
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 500_000, 1_000_000, 4_000_000])
    parser.add_argument("--peer-limit", type=int, default=500_000, help="most cells for sopa, which is quadratic")
    parser.add_argument("--cells", type=int, default=10_000, help="cells of the comparison of tiles and overlaps")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, default={}, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_here(args.one, args.options)))
        return
    lines = [
        "# Stitching: time, memory, correctness",
        "",
        f"`python benchmarks/stitch.py{' --peers VENV' * bool(args.peers)} --sizes {' '.join(map(str, args.sizes))}`",
        "",
        f"Machine: {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; shared with other work, "
        "so CPU seconds are the figures to compare: the least of three runs up to a million cells (sopa: "
        "100,000), one run beyond.",
        "Cells: ellipses of 16 points on a jittered grid of 40 px, each drawn anew (shifted by 0.4 px, at most 1, "
        "or by any with *any shift*) "
        "and cut by every tile that sees it. *missing*, *doubled*, *cut* count cells of the truth without an instance, "
        "with more than one, and with none of IoU 0.7. gigaseg: one worker, Parquet read and written. sopa: the solver "
        "alone.",
        "",
    ]
    lines += sizes(args)
    lines += settings(args)
    lines += buildings(args)
    if (args.data / "monuseg" / "labels").is_dir():
        lines += real(args.data / "monuseg" / "labels")
    text = "\n".join(lines)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "stitch.md").write_text(text, encoding="utf-8")
    print(text)


def sizes(args: argparse.Namespace) -> list[str]:
    """Tables of cost by number of cells, and by workers at the largest size."""
    rows, per_cell, workers = [], {}, []
    # of the size of a large slide; larger ones take long and tell no more
    compared = max((n for n in args.sizes if n <= 1_000_000), default=min(args.sizes))
    for n in args.sizes:
        field = Field(n, 1024, 64)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_slide(field, folder)
            ours = run_alone(folder, {}, 3 if n <= 1_000_000 else 1)
            per_cell[n] = ours["cpu"] / n
            rows.append(row(n, "gigaseg", ours, judged(field, folder / "out.parquet")))
            if args.peers and n <= args.peer_limit:
                theirs = run_sopa(args.peers, folder, 3 if n <= 100_000 else 1)
                rows.append(row(n, f"sopa {theirs['version']}", theirs, judged(field, folder / "sopa.parquet")))
                ratio = theirs["cpu"] / ours["cpu"]
                rows.append(f"| {n:,} | *sopa / gigaseg* | | *{ratio:.1f}* | | | | | |")
            if n == compared:
                for options in (
                    {"workers": 2, "scheduler": "threads"},
                    {"workers": 2, "scheduler": "processes"},
                    {"block": 50_000},
                ):
                    found = run_alone(folder, options, 3)
                    words = ", ".join(f"{key} {value}" for key, value in options.items())
                    same = "yes" if found["sha256"] == ours["sha256"] else "NO"
                    cost = f"{found['cpu']:.1f} | {found['seconds']:.1f} | {ours['seconds'] / found['seconds']:.2f}"
                    workers.append(f"| {words} | {cost} | {found['peak_mb']:.0f} | {same} |")
    small = 100_000 if 100_000 in per_cell else min(per_cell)
    ratios = [f"{per_cell[n] / per_cell[small]:.2f} at {n:,}" for n in per_cell if n > small]
    return [
        "## Size (tile 1024, overlap 64)",
        "",
        "| cells | tool | tile instances | CPU s | wall s | peak MB (before) | missing | doubled | cut |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"CPU time per cell over that at {small:,}: {', '.join(ratios) or 'no larger size'}.",
        "",
        f"The same {compared:,} cells with other settings, wall time against the row above (memory: of the first "
        "process; CPU: with its workers):",
        "",
        "| setting | CPU s | wall s | faster | peak MB | same bytes as one worker |",
        "|---|---|---|---|---|---|",
        *workers,
        "",
    ]


def settings(args: argparse.Namespace) -> list[str]:
    """Table of tiles and overlaps at one size."""
    rows = []
    fields = [(f"{tile} / {overlap}", Field(args.cells, tile, overlap)) for tile, overlap in SETTINGS]
    for tile, overlap in UNCLIPPED:
        fields.append((f"{tile} / {overlap}, any shift", Field(args.cells, tile, overlap, most=math.inf)))
    for label, field in fields:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_slide(field, folder)
            ours = run_alone(folder, {})
            rows.append(row(label, "gigaseg", ours, judged(field, folder / "out.parquet")))
            if args.peers:
                theirs = run_sopa(args.peers, folder)
                rows.append(row(label, "sopa", theirs, judged(field, folder / "sopa.parquet")))
    return [
        f"## Tile and overlap ({args.cells:,} cells)",
        "",
        "| tile / overlap | tool | tile instances | CPU s | wall s | peak MB (before) | missing | doubled | cut |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def buildings(args: argparse.Namespace) -> list[str]:
    """Table of objects larger than the overlap."""
    rows = []
    for kind in KINDS:
        for overlap in (1, 16, 64, 128):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                truth = rectangles(kind, overlap, folder)
                run_alone(folder, {})
                rows.append(building_row(kind, overlap, "gigaseg", truth, outlines(folder / "out.parquet")))
                if args.peers:
                    run_sopa(args.peers, folder)
                    rows.append(building_row(kind, overlap, "sopa", truth, outlines(folder / "sopa.parquet")))
    return [
        "## Large objects (tile 1024; every tile draws its part exactly)",
        "",
        "*whole*: one instance equals the object to 1e-6 of its area; *lost*: nothing on it; the rest is in pieces.",
        "",
        "| objects | overlap | tool | truth | whole | in pieces | lost | instances |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def building_row(kind: str, overlap: int, tool: str, truth: np.ndarray, found: np.ndarray) -> str:
    one, other = shapely.STRtree(found).query(truth, predicate="intersects")
    common = shapely.area(shapely.intersection(truth[one], found[other]))
    union = shapely.area(truth)[one] + shapely.area(found)[other] - common
    touched, whole = np.zeros(len(truth), bool), np.zeros(len(truth), bool)
    touched[one[common > 0]] = True
    whole[one[common > (1 - 1e-6) * union]] = True
    figures = [len(truth), whole.sum(), (touched & ~whole).sum(), (~touched).sum(), len(found)]
    return f"| {kind} | {overlap} | {tool} | " + " | ".join(f"{figure}" for figure in figures) + " |"


def real(folder: Path) -> list[str]:
    """Table of real nuclei through the whole path."""
    rows = [
        f"| {tile} / {overlap} | {tile_instances:,} | {found:,} | {'yes' if same else 'NO'} |"
        for tile, overlap, found, tile_instances, same in comes_back(folder)
    ]
    return [
        "## Real nuclei, 8,192² px of monuseg's label images through grid, segment (`annotations`) and stitch",
        "",
        "| tile / overlap | tile instances | instances | image identical |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def row(first: object, tool: str, figures: dict, judgement: tuple[int, int, int]) -> str:
    name = f"{first:,}" if isinstance(first, int) else first
    given = f"{figures['tile_instances']:,}"
    memory = f"{figures['peak_mb']:.0f} ({figures['before_mb']:.0f})"
    wrong = " | ".join(f"{count:,}" for count in judgement)
    return f"| {name} | {tool} | {given} | {figures['cpu']:.2f} | {figures['seconds']:.2f} | {memory} | {wrong} |"


def run_here(folder: Path, options: dict) -> dict:
    """Stitch the slide in `folder` in this process, after a small one that does the imports."""
    from gigaseg.files import sha256_file
    from gigaseg.stitch.stitch import stitch

    with tempfile.TemporaryDirectory() as name:
        write_slide(Field(500, 512, 64), Path(name))
        stitch(shards(Path(name)), Path(name) / "grid.parquet", Path(name) / "out.parquet")
    before, wall, spent = peak_mb(), time.perf_counter(), cpu_seconds()
    counts = stitch(shards(folder), folder / "grid.parquet", folder / "out.parquet", **options)
    wall, spent, peak = time.perf_counter() - wall, cpu_seconds() - spent, peak_mb()
    return {
        "seconds": wall,
        "cpu": spent,
        "before_mb": before,
        "peak_mb": peak,
        "sha256": sha256_file(folder / "out.parquet"),
        **counts.__dict__,
    }


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def run_alone(folder: Path, options: dict, repeats: int = 1) -> dict:
    """`run_here` in a process of its own; of several runs the one of least CPU time."""
    command = [sys.executable, __file__, "--one", str(folder), "--options", json.dumps(options)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(repeats)]
    return min((json.loads(run.stdout.splitlines()[-1]) for run in runs), key=lambda figures: figures["cpu"])


def run_sopa(peers: Path, folder: Path, repeats: int = 1) -> dict:
    """Sopa's solver on the same polygons, in its own environment."""
    command = [peers / "bin" / "python", "-W", "ignore", HERE / "stitch_sopa.py", folder / "sopa.parquet"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [*map(str, command), *map(str, shards(folder))]
    runs = [subprocess.run(words, capture_output=True, text=True, check=True, env=environment) for _ in range(repeats)]
    return min((json.loads(run.stdout.splitlines()[-1]) for run in runs), key=lambda figures: figures["cpu"])


def judged(field: Field, path: Path) -> tuple[int, int, int]:
    """Missing, doubled and cut cells of stitched outlines."""
    found = score(field, outlines(path))
    return found.missing, found.doubled, found.cut


def outlines(path: Path) -> np.ndarray:
    """Outlines of a stitched file."""
    import pyarrow.parquet as pq

    return np.asarray(shapely.from_wkb(pq.read_table(path, columns=["geometry"])["geometry"].to_numpy()), object)


def shards(folder: Path) -> Iterable[Path]:
    return sorted((folder / "instances").glob("*.parquet"))


def peak_mb() -> float:
    """Peak resident memory of this process since it was started (getrusage would count its parent's, too)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
