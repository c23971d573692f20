"""Measuring beside sopa's channel aggregation: ``python benchmarks/measure.py [--peers VENV] [--counts N ...]``.

Slides are made of one synthetic block of 4096² px (H&E, 0.5 µm, JPEG tiles) repeated, with its nuclei as outlines along
pixel edges. `gigaseg measure` runs in a process of its own with all its defaults (shape, stains, neighbourhoods), with
two workers, and with parts of it; `sopa.aggregation.aggregate_channels` in the environment VENV gets the same polygons
and the same pixels (a Zarr image in a SpatialData object) and gives the mean of three channels. VENV is made by
python -m venv VENV; VENV/bin/pip install torch==2.13.0; VENV/bin/pip install sopa. Times leave out the start of the
process and imports; CPU seconds are those of all processes. Writes benchmarks/results/measure.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely
import tifffile

from gigaseg.files import write_parquet
from gigaseg.instances.polygons import polygons_from_labels
from gigaseg.instances.table import Instances
from gigaseg.measure.measure import MEASUREMENTS_FORMAT
from gigaseg.slides.inspect import inspect
from gigaseg.testing.slides import synthetic_image
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.tiling import Tiling

HERE = Path(__file__).parent
SIDE, JPEG = 4096, 512

SPENT = """
import json, resource, sys, time

def cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024

def timed(function):
    before, begin, start = peak(), time.perf_counter(), cpu()
    function()
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps([time.perf_counter() - begin, cpu() - start, before, peak(), largest]))
"""

OURS = """
from pathlib import Path
from gigaseg.config import MeasureConfig
from gigaseg.measure.measure import measure
import scipy.spatial, gigaseg.slides.tiffslide_reader
folder, out, (options, how) = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
files = [folder / name for name in ("instances.parquet", "slide.json", "foreground.tif")]
if __name__ == "__main__":
    timed(lambda: measure(*files, folder / f"{out}.parquet", folder / f"{out}.json",
                          config=MeasureConfig(**options), **how))
"""

SOPA = """
import warnings
warnings.filterwarnings("ignore")
import dask.array as da, geopandas as gpd, spatialdata, tifffile, zarr
from spatialdata.models import Image2DModel, ShapesModel
from sopa.aggregation import aggregate_channels
folder = sys.argv[1]
pixels = zarr.open(tifffile.imread(folder + "/slide.tif", aszarr=True, level=0), mode="r")
image = da.from_zarr(pixels).rechunk((1024, 1024, 3)).transpose(2, 0, 1)
cells = gpd.read_parquet(folder + "/cells.parquet")
sdata = spatialdata.SpatialData(
    images={"image": Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=["r", "g", "b"])},
    shapes={"cells": ShapesModel.parse(cells)},
)
timed(lambda: aggregate_channels(sdata, image_key="image", shapes_key="cells"))
"""

POOL = """
from pathlib import Path
from gigaseg.measure.pool import Source, pool
files = sorted(Path(sys.argv[1]).glob("*.parquet"))
sources = [Source(path, "nuclei", str(i % 4)) for i, path in enumerate(files)]
timed(lambda: pool(sources, sys.argv[1] + "/out.tsv", (0.05, 0.5, 0.95)))
"""

DEFAULTS = "all defaults (shape, stains, neighbourhood)"


@dataclass(frozen=True)
class Spent:
    """Wall and CPU seconds; memory in MB: before, and the peaks of the process and of its largest child."""

    wall: float
    cpu: float
    before: float
    peak: float
    child: float

    def cells(self, processes: bool = False) -> str:
        """As cells of a table."""
        child = f", worker {self.child:,.0f}" if processes else ""
        return f"{self.cpu:.2f} | {self.wall:.2f} | {self.peak:,.0f}{child} ({self.before:,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, help="environment with sopa (default: ours alone)")
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--peer-limit", type=int, default=100_000, help="largest count given to sopa")
    parser.add_argument("--repeats", type=int, default=3, help="runs up to 100,000 instances; the least CPU counts")
    parser.add_argument("--slides", type=int, nargs="+", default=[20, 200, 1000], help="slides to pool")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "measure.md", help="table to write")
    args = parser.parse_args()
    block, outlines = make_block()
    lines = [
        "| instances | slide | what | CPU s | wall s | peak MB (before) | same bytes |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as work:
        for count in args.counts:
            folder = Path(work) / str(count)
            folder.mkdir()
            for line in measured(folder, write_case(folder, block, outlines, count), args):
                lines.append(line)
                print(line, flush=True)
            shutil.rmtree(folder)
    cohort = ["| slides | instances of each | columns | CPU s | wall s | peak MB (before) |", "|" + "---|" * 6]
    for slides in args.slides:
        for rows in (2_000, 50_000) if slides <= 20 else (2_000,):
            with tempfile.TemporaryDirectory() as folder:
                columns = write_cohort(Path(folder), slides, rows)
                spent = run(sys.executable, POOL, folder)
            cohort.append(f"| {slides} | {rows:,} | {columns} | {spent.cells()} |")
            print(cohort[-1], flush=True)
    write_result(args, lines, cohort)


def measured(folder: Path, case: tuple[int, int], args: argparse.Namespace) -> Iterator[str]:
    """Rows of one slide, a (side, instances) case written to `folder`."""
    side, count = case
    repeats = args.repeats if count <= 100_000 else 1
    first = f"| {count:,} | {side:,}² |"
    defaults = None
    for number, (name, options, how) in enumerate(cases(count)):
        words = (folder, f"out{number}", json.dumps([options, how]))
        # what is compared is repeated, its parts are not
        spent = least(
            repeats if name.startswith(DEFAULTS[:12]) and not options else 1,
            lambda words=words: run(sys.executable, OURS, *words),
        )
        defaults = defaults or spent
        same = ""
        if how:
            outputs = [(folder / f"out{k}.parquet").read_bytes() for k in (0, number)]
            same = "yes" if outputs[0] == outputs[1] else "NO"
        yield f"{first} gigaseg: {name} | {spent.cells('scheduler' in how)} | {same} |"
    if args.peers and count <= args.peer_limit and defaults is not None:
        theirs = least(repeats, lambda: run(args.peers / "bin" / "python", SOPA, folder))
        yield f"{first} sopa: mean of three channels | {theirs.cells()} | |"
        yield f"{first} *sopa / gigaseg with all defaults* | *{theirs.cpu / defaults.cpu:.1f}* | | | |"


def least(repeats: int, run_once: Callable[[], Spent]) -> Spent:
    """The run that took least CPU time."""
    return min((run_once() for _ in range(repeats)), key=lambda spent: spent.cpu)


def write_cohort(folder: Path, slides: int, rows: int) -> int:
    """Write measurements.parquet of many slides, two classes, log-normal columns; returns the number of columns."""
    names = [f"measurement_{i}" for i in range(24)]
    for slide in range(slides):
        rng = np.random.default_rng(slide)
        classes = pa.DictionaryArray.from_arrays(rng.integers(0, 2, rows, np.int32), pa.array(["a", "b"]))
        table = {"instance": np.arange(1, rows + 1), "class": classes}
        table |= {name: np.exp(rng.standard_normal(rows, np.float32)) for name in names}
        write_parquet(folder / f"{slide:03d}.parquet", pa.table(table), {"format": MEASUREMENTS_FORMAT})
    return len(names)


def cases(count: int) -> list[tuple[str, dict[str, object], dict[str, object]]]:
    """Name, options and how many workers of what is timed; all defaults first."""
    found: list[tuple[str, dict[str, object], dict[str, object]]] = [
        (DEFAULTS, {}, {}),
        ("all defaults, 2 threads", {}, {"workers": 2}),
        ("all defaults, 2 processes", {}, {"workers": 2, "scheduler": "processes"}),
    ]
    if count <= 100_000:
        found += [
            ("shape and stains", {"spatial": False}, {}),
            ("shape and neighbourhood", {"intensity": False}, {}),
            ("shape alone", {"spatial": False, "intensity": False}, {}),
            ("all defaults and texture", {"texture": True}, {}),
        ]
    return found


def make_block() -> tuple[list[bytes], np.ndarray]:
    """A synthetic block: its JPEG tiles, row by row, and the outlines of its nuclei."""
    import imagecodecs

    image, labels = synthetic_image((SIDE, SIDE), seed=1)
    cuts = range(0, SIDE, JPEG)
    tiles = [imagecodecs.jpeg8_encode(image[y : y + JPEG, x : x + JPEG], level=90) for y in cuts for x in cuts]
    return tiles, polygons_from_labels(labels)[1]


def write_case(folder: Path, block: list[bytes], outlines: np.ndarray, count: int) -> tuple[int, int]:
    """Write a slide of repeated blocks with about `count` instances; returns its side and their number."""
    repeats = max(1, math.ceil(math.sqrt(count / len(outlines))))
    side, per_row = repeats * SIDE, SIDE // JPEG
    order = [
        block[row * per_row + col]
        for _ in range(repeats)
        for row in range(per_row)
        for _ in range(repeats)
        for col in range(per_row)
    ]
    tifffile.imwrite(
        folder / "slide.tif", iter(order), shape=(side, side, 3), dtype=np.uint8, tile=(JPEG, JPEG), bigtiff=True,
        photometric="rgb", compression="jpeg", resolution=(2e4, 2e4), resolutionunit="CENTIMETER", metadata=None,
        compressionargs={"outcolorspace": "ycbcr"},
    )  # fmt: skip
    info = inspect(folder / "slide.tif", slide="bench")
    info.write(folder / "slide.json")
    mask = np.ones((math.ceil(side / 16),) * 2, bool)
    Foreground(mask, (side / len(mask),) * 2, "all").write(folder / "foreground.tif")
    y, x = (axis.reshape(-1)[: math.ceil(count / len(outlines))] * SIDE for axis in np.indices((repeats, repeats)))
    geometry = np.concatenate([shapely.transform(outlines, lambda xy, o=o: xy + o) for o in zip(x, y)])[:count]
    bounds = shapely.bounds(geometry)
    tiling = Tiling(1024, 64, side, side, (1.0, 1.0), info.pixel_size, info.unit)
    row, col = (np.minimum(bounds[:, i] // tiling.stride, tiling.rows - 1).astype(np.int32) for i in (1, 0))
    index = np.lexsort((col, row))
    n = len(geometry)
    found = Instances(
        geometry=geometry,
        score=np.ones(n, np.float32),
        class_index=np.zeros(n, np.int32),
        class_prob=np.ones((n, 1), np.float32),
        tile_row=row,
        tile_col=col,
        cut=np.zeros(n, np.uint8),
        prompt=np.full(n, -1, np.int64),
        classes=("nucleus",),
        members=np.ones(n, np.int16),
    ).take(index)
    metadata = {"slide": "bench", "segmenter": "annotations", "checkpoint": None, "outlines": "pixels", "stitch": {}}
    found.write(folder / "instances.parquet", {**metadata, "grid": tiling.to_dict()})
    if n <= 100_000:
        import geopandas

        geopandas.GeoDataFrame(geometry=found.geometry).to_parquet(folder / "cells.parquet")
    return side, n


def run(python: object, program: str, *words: object) -> Spent:
    """Run a program that calls `timed` once."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    if str(python) != sys.executable:
        environment.pop("PYTHONPATH", None)
    # a file: processes that it starts have to import it
    with tempfile.NamedTemporaryFile("w", suffix=".py") as source:
        source.write(SPENT + program)
        source.flush()
        command = [str(word) for word in (python, source.name, *words)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return Spent(*json.loads(done.stdout.splitlines()[-1]))


def write_result(args: argparse.Namespace, lines: list[str], cohort: list[str]) -> None:
    """Write the Markdown: everything in it comes from this run."""
    flags = ["--peers VENV"] * bool(args.peers) + [f"--counts {' '.join(map(str, args.counts))}"]
    text = [
        "# Measuring",
        "",
        f"`python benchmarks/measure.py {' '.join(flags)}`",
        "",
        f"Machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}.",
        f"CPU seconds are the least of {args.repeats} runs (all defaults and sopa, up to 100,000 instances) or of one;",
        "wall s are those of the same run. *Before*: memory of the process with everything imported. *Same bytes*: as",
        "with one worker.",
        "",
        *lines,
        "",
        "Pooling the measurements of a cohort (`gigaseg aggregate --pooled`), four groups, two classes:",
        "",
        *cohort,
        "",
    ]
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
