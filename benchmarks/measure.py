"""Measuring beside sopa's channel aggregation: ``python benchmarks/measure.py [--peers VENV] [--counts 10000 ...]``.

Slides are made of one synthetic block of 4096² px (H&E, 0.5 µm, JPEG tiles) repeated, with its nuclei as outlines along
pixel edges. `gigaseg measure` runs in a process of its own with all its defaults (shape, stains, neighbourhoods), and
once each with parts of it; `sopa.aggregation.aggregate_channels` in the environment VENV gets the same polygons and the
same pixels (a Zarr image in a SpatialData object) and gives the mean of three channels. Times leave out the start of
the process and imports. Writes benchmarks/results/measure.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
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

OURS = """
import json, sys, time
from pathlib import Path
from gigaseg.config import MeasureConfig
from gigaseg.measure.measure import measure
import scipy.spatial, gigaseg.slides.tiffslide_reader
folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
begin, cpu = time.perf_counter(), time.process_time()
names = ("instances.parquet", "slide.json", "foreground.tif", "measurements.parquet", "summary.json")
measure(*(folder / name for name in names), config=MeasureConfig(**options))
peak = int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024
print(json.dumps([time.perf_counter() - begin, time.process_time() - cpu,
                  peak]))
"""

SOPA = """
import json, sys, time, warnings
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
begin, cpu = time.perf_counter(), time.process_time()
means = aggregate_channels(sdata, image_key="image", shapes_key="cells")
peak = int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024
print(json.dumps([time.perf_counter() - begin, time.process_time() - cpu,
                  peak]))
"""


POOL = """
import json, sys, time
from pathlib import Path
from gigaseg.measure.pool import Source, pool
files = sorted(Path(sys.argv[1]).glob("*.parquet"))
begin, cpu = time.perf_counter(), time.process_time()
pool([Source(path, "nuclei", str(i % 4)) for i, path in enumerate(files)], sys.argv[1] + "/out.tsv", (0.05, 0.5, 0.95))
peak = int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024
print(json.dumps([time.perf_counter() - begin, time.process_time() - cpu, peak]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, help="environment with sopa (default: ours alone)")
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--peer-limit", type=int, default=100_000, help="largest count given to sopa")
    args = parser.parse_args()
    block, outlines = make_block()
    lines = [
        "| instances | slide | what | seconds | CPU seconds | peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as work:
        for count in args.counts:
            folder = Path(work) / str(count)
            folder.mkdir()
            side, made = write_case(folder, block, outlines, count)
            rows = [
                (f"gigaseg: {name}", run([sys.executable, "-c", OURS, folder, json.dumps(options)]))
                for name, options in cases(count)
            ]
            if args.peers and count <= args.peer_limit:
                rows.append(("sopa: mean of three channels", run([args.peers / "bin" / "python", "-c", SOPA, folder])))
            for name, (seconds, cpu, memory) in rows:
                lines.append(f"| {made:,} | {side:,}² | {name} | {seconds:.1f} | {cpu:.1f} | {memory:,.0f} |")
                print(lines[-1], flush=True)
    cohort = ["| slides | instances of each | columns | seconds | CPU seconds | peak memory, MB |", "|" + "---|" * 6]
    for slides, rows in ((20, 50_000), (200, 5_000), (200, 50_000)):
        with tempfile.TemporaryDirectory() as folder:
            columns = write_cohort(Path(folder), slides, rows)
            seconds, cpu, memory = run([sys.executable, "-c", POOL, folder])
        cohort.append(f"| {slides} | {rows:,} | {columns} | {seconds:.1f} | {cpu:.1f} | {memory:,.0f} |")
        print(cohort[-1], flush=True)
    write_result(lines, cohort)


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


def cases(count: int) -> list[tuple[str, dict[str, object]]]:
    """Name and options of what is timed."""
    everything = [("all defaults (shape, stains, neighbourhood)", {})]
    if count > 100_000:
        return everything
    return [
        *everything,
        ("shape and stains", {"spatial": False}),
        ("shape alone", {"spatial": False, "intensity": False}),
        ("all defaults and texture", {"texture": True}),
    ]


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


def run(command: list[object]) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak memory (MB) that the program prints."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    if "site-packages" not in str(command[0]) and str(command[0]) != sys.executable:
        environment.pop("PYTHONPATH", None)
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    seconds, cpu, memory = json.loads(done.stdout.splitlines()[-1])
    return seconds, cpu, memory


def write_result(lines: list[str], cohort: list[str]) -> None:
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    text = ["# Measuring", "", "`python benchmarks/measure.py --peers VENV`", "", f"On {machine}.", "", *lines, ""]
    text += ["Pooling the measurements of a cohort (`gigaseg aggregate --pooled`), four groups, two classes:", ""]
    text += [*cohort, ""]
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "measure.md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
