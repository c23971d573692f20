"""Speed and memory of `gigaseg tile` against plain reading: ``python benchmarks/tile.py [--side 20000]``.

For each reader, in one run: the command with 2 workers; 2 processes that only read the same regions, through the plain
library and through gigaseg's own reader; and one process that writes the same tiles, already decoded, into the same
store. The order is repeated and ratios are taken within a round, because other work on the machine changes all of them;
CPU seconds are shown beside, as they suffer less from it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

from machine import processor

# nothing else is imported here: processes that only read load this file again, and gigaseg's imports are not theirs

HERE = Path(__file__).parent
WORK, RESULTS = HERE / "work", HERE / "results"
TILE, OVERLAP = 1024, 64
WORKERS, RUN = 2, 4
LIMIT_OPENSLIDE, LIMIT_FASTEST, LIMIT_MEMORY = 1.25, 1.15, 1.10
READERS = ("openslide", "tiffslide", "tifffile")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=20_000, help="width and height of the slide, px")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; the median is shown")
    parser.add_argument("--only-read", nargs=3, metavar=("READER", "SLIDE", "REGIONS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_read:
        only_read(*args.only_read)
        return
    for side in (args.side, args.side // 2):
        prepare(side)
    text = report(args.side, measure(args.side, args.rounds), memory(args.side), args.rounds)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "tile.md").write_text(text, encoding="utf-8")
    print(text)


def slide_path(side: int) -> Path:
    return WORK / f"tile-{side}.tif"


def prepare(side: int) -> None:
    """Write the slide, its slide.json for each reader, its grid with all tiles kept, and the regions as JSON."""
    import numpy as np

    from gigaseg.slides.inspect import inspect
    from gigaseg.testing import synthetic_slide
    from gigaseg.tiles.grid import Grid
    from gigaseg.tiles.tiling import Tiling

    WORK.mkdir(exist_ok=True)
    path = slide_path(side)
    if not path.exists():
        synthetic_slide(path, width=side, height=side)
    for reader in READERS:
        inspect(path, slide="benchmark", reader=reader).write(WORK / f"tile-{side}.{reader}.json")
    tiling = Tiling(TILE, OVERLAP, side, side, (1.0, 1.0), (0.5, 0.5), "um")
    row, col = (axis.reshape(-1).astype(np.int32) for axis in np.indices((tiling.rows, tiling.cols)))
    ones, zeros = np.ones(len(row), np.float32), np.zeros(len(row), np.int32)
    grid = Grid(tiling, "benchmark", row, col, ones, zeros, 1)
    grid.write(WORK / f"tile-{side}.grid.parquet")
    corners = [[int(tile.bounds.xmin), int(tile.bounds.ymin)] for tile in grid.tiles(0)]
    runs = [corners[i : i + RUN] for i in range(0, len(corners), RUN)]
    (WORK / f"tile-{side}.regions.json").write_text(json.dumps(runs))


def only_read(reader: str, path: str, regions: str) -> None:
    """Read regions in processes that do nothing else; each opens the slide once."""
    runs = json.loads(Path(regions).read_text())
    with get_context("spawn").Pool(WORKERS, open_plain, (reader, path)) as pool:
        for _ in pool.imap_unordered(read_plain, runs):
            pass


def open_plain(reader: str, path: str) -> None:
    """Open a slide with a library as its documentation shows; a slide.json with gigaseg's own reader."""
    global plain
    if path.endswith(".json"):
        from gigaseg.slides.base import SlideInfo
        from gigaseg.tiles.source import SlideTiles
        from gigaseg.tiles.tiling import Tiling

        info = SlideInfo.read(path)
        tiling = Tiling(TILE, OVERLAP, info.width, info.height, (1.0, 1.0), (0.5, 0.5), "um")
        tiles = SlideTiles(info, tiling)
        stride = tiling.stride
        plain = lambda x, y: tiles.read(tiling.get(y // stride, x // stride))  # noqa: E731
    elif reader == "openslide":
        import openslide

        slide = openslide.OpenSlide(path)
        plain = lambda x, y: slide.read_region((x, y), 0, (TILE, TILE))  # noqa: E731
    elif reader == "tiffslide":
        import tiffslide

        slide = tiffslide.TiffSlide(path)
        plain = lambda x, y: slide.read_region((x, y), 0, (TILE, TILE), as_array=True)  # noqa: E731
    else:
        import tifffile
        import zarr

        level = zarr.open_array(tifffile.TiffFile(path).series[0].aszarr(level=0), mode="r")
        plain = lambda x, y: level[y : y + TILE, x : x + TILE]  # noqa: E731


def read_plain(corners: list[list[int]]) -> None:
    for x, y in corners:
        plain(x, y)


def seconds(command: list[str]) -> tuple[float, float]:
    """Seconds of wall clock, and of CPU of the command and its processes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def tile_command(side: int, reader: str, out: Path) -> list[str]:
    info, grid = WORK / f"tile-{side}.{reader}.json", WORK / f"tile-{side}.grid.parquet"
    step = ["tile", str(info), str(grid), "--out", str(out), "--workers", str(WORKERS)]
    return [sys.executable, "-m", "gigaseg", *step]


def only_write(side: int, stored: Path, out: Path) -> tuple[float, float]:
    """Seconds of wall clock and of CPU to write the tiles of a store, decoded beforehand, into another one."""
    from gigaseg.tiles.archive import crc32
    from gigaseg.tiles.grid import Grid
    from gigaseg.tiles.store import StoredTiles, write_tiles

    grid = Grid.read(WORK / f"tile-{side}.grid.parquet")
    source = StoredTiles(stored)
    pixels = [source.read(tile) for tile in grid.tiles(0)]
    provenance = {"row": grid.row.tolist(), "col": grid.col.tolist()}
    start, cpu_start = time.perf_counter(), time.process_time()
    write_tiles(out, provenance, TILE, ((array, crc32(array)) for array in pixels))
    return time.perf_counter() - start, time.process_time() - cpu_start


Times = dict[str, list[tuple[float, float]]]


def measure(side: int, rounds: int) -> dict[str, Times]:
    """(wall, CPU) seconds of each kind of work with each reader, a list over the rounds."""
    found: dict[str, Times] = {name: {"library": [], "reader": [], "write": [], "tile": []} for name in READERS}
    regions, out, again = (WORK / f"tile-{side}.{end}" for end in ("regions.json", "zarr.zip", "again.zarr.zip"))
    for _ in range(rounds):
        for reader, times in found.items():
            for what, path in ("library", slide_path(side)), ("reader", WORK / f"tile-{side}.{reader}.json"):
                command = [sys.executable, __file__, "--only-read", reader, str(path), str(regions)]
                times[what].append(seconds(command))
            times["tile"].append(seconds(tile_command(side, reader, out)))
            times["write"].append(only_write(side, out, again))
            out.unlink()
            again.unlink()
    return found


def memory(side: int) -> dict[int, float]:
    """Peak of the summed resident memory of all processes of the command, in MB, for half the side and the side."""
    import psutil

    peaks = {}
    for extent in (side // 2, side):
        out = WORK / f"tile-{extent}.zarr.zip"
        process = psutil.Popen(tile_command(extent, "tiffslide", out), stderr=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:
            total = 0
            for member in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += member.memory_info().rss
            peak = max(peak, total)
            time.sleep(0.02)
        out.unlink()
        peaks[extent] = peak / 1e6
    return peaks


def report(side: int, found: dict[str, Times], peaks: dict[int, float], rounds: int) -> str:
    import psutil

    count = sum(map(len, json.loads((WORK / f"tile-{side}.regions.json").read_text())))
    megabytes = count * TILE * TILE * 3 / 1e6
    fastest = min(READERS, key=lambda reader: statistics.median(wall for wall, _ in found[reader]["tile"]))
    rows, verdicts = [], []
    for reader, times in found.items():
        cells = [reader]
        for pairs in times.values():
            wall, cpu = (statistics.median(values) for values in zip(*pairs))
            cells.append(f"{wall:.2f} ({cpu:.2f})")
        rows.append(f"| {' | '.join(cells)} |")
        for base in ("library", "reader"):
            base_name = "the plain library" if base == "library" else "gigaseg's reader"
            if reader == "openslide":
                pick = list(zip(times["tile"], times[base]))
                verdicts.append(verdict(reader, f"only reading through {base_name}", pick, LIMIT_OPENSLIDE))
            if reader == fastest:
                both = zip(times["tile"], times[base], times["write"])
                pick = [(t, (r[0] + w[0], r[1] + w[1])) for t, r, w in both]
                verdicts.append(verdict(reader, f"reading through {base_name} + writing", pick, LIMIT_FASTEST))
    rates = [
        f"| {reader} | {rate(megabytes, found[reader]['library'])} | {rate(megabytes, found[reader]['tile'])} |"
        for reader in READERS
    ]
    small, large = sorted(peaks)
    growth = peaks[large] / peaks[small]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return "\n".join(
        [
            "# `gigaseg tile`: speed and memory",
            "",
            f"`python benchmarks/tile.py --side {side} --rounds {rounds}`",
            "",
            f"Machine: {processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, "
            f"{platform.system()}, Python {platform.python_version()}; load {load} at the end.",
            f"Slide: synthetic H&E, {side} × {side} px, JPEG-tiled pyramidal TIFF; {count} tiles of {TILE} px, overlap "
            f"{OVERLAP} px, {megabytes:.0f} MB decoded. Medians of {rounds}.",
            "",
            "Seconds of wall clock (of CPU, all processes). *library*, *reader*: 2 processes that only read the same "
            "regions through the plain library, through gigaseg's reader, their start included. *write*: one process "
            "writes the same tiles, already decoded, into the same store. *tile*: `gigaseg tile --workers 2`, its "
            "start included.",
            "",
            "| reader | library | reader | write | tile |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "| ratio of tile to | wall | CPU | limit | |",
            "|---|---|---|---|---|",
            *verdicts,
            "",
            "| MB/s of decoded RGB | plain read | tile |",
            "|---|---|---|",
            *rates,
            "",
            "| slide | peak memory of all processes, MB |",
            "|---|---|",
            *[f"| {extent} × {extent} | {peaks[extent]:.0f} |" for extent in (small, large)],
            "",
            f"Ratio {growth:.2f}, limit {LIMIT_MEMORY:.2f}: {'kept' if growth <= LIMIT_MEMORY else 'not kept'} "
            "(resident memory, shared pages counted in each process).",
            "",
        ]
    )


def verdict(reader: str, what: str, pairs: list[tuple[tuple[float, float], tuple[float, float]]], limit: float) -> str:
    """A row of the table of ratios: the median of the rounds' ratios."""
    wall, cpu = (statistics.median(a[i] / b[i] for a, b in pairs) for i in range(2))
    return f"| {reader}: {what} | {wall:.2f} | {cpu:.2f} | {limit:.2f} | {'kept' if wall <= limit else 'not kept'} |"


def rate(megabytes: float, times: list[tuple[float, float]]) -> str:
    """MB per second of wall clock, the median."""
    return f"{megabytes / statistics.median(wall for wall, _ in times):.0f}"


if __name__ == "__main__":
    main()
