"""The viewer with a million nuclei in a real browser: ``python benchmarks/viewer.py``.

A generated slide of 4,096² px and what `watershed` finds in it are repeated side by side until there are a million
nuclei. Measured in headless Chromium, which draws with the processor alone here (SwiftShader): how long until the
picture and the nuclei are there, how fast the page pans with and without the nuclei, and how long another colour or
filter takes. The pack is made before; its time, memory and size are told beside those of reading the same tables with
geopandas.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import tifffile
import yaml
from machine import processor

HERE = Path(__file__).parent
ROOT = HERE.parent
SIDE, TILE, LEVELS = 4096, 256, 5
COSTS = ("s", "cpu", "mb")

FRAMES = """
const [ms, ready] = arguments;
const start = performance.now(), viewport = page.osd.viewport;
const centre = viewport.getCenter(true), width = viewport.getBounds(true).width;
let frames = 0, longest = 0, last = start;
function step(now) {
  frames++;
  longest = Math.max(longest, now - last);
  last = now;
  const turn = (now - start) / ms * 2 * Math.PI;
  viewport.panTo(new OpenSeadragon.Point(centre.x + width / 4 * Math.sin(turn), centre.y), true);
  if (now - start < ms) requestAnimationFrame(step); else ready([frames / (now - start) * 1000, longest]);
}
requestAnimationFrame(step);
"""
TIMED = """
const [what, ready] = arguments;
const start = performance.now();
const done = () => requestAnimationFrame(() => ready(performance.now() - start));
new Function("return (async () => {" + what + "})()")().then(done);
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, default=HERE / "work" / "viewer")
    parser.add_argument("--pack", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "viewer.md")
    args = parser.parse_args()
    if args.pack or args.read:
        one(args)
        return
    args.work.mkdir(parents=True, exist_ok=True)
    slide = args.work / "results" / f"n{args.instances}"
    if not (slide / "measurements.parquet").exists():
        repeat(block(args.work), args.instances, args.work / f"n{args.instances}.tif", slide)
    packed = child("--pack", slide, args.work / "pack.zip")
    read = child("--read", slide)
    text = page(args, slide, packed, read, browse(slide))
    args.out.write_text(text, encoding="utf-8")
    print(text)


def block(work: Path) -> Path:
    """The slide that is repeated, with the workflow's results."""
    folder = work / "block"
    if not (folder / "results" / "demo" / "measurements.parquet").exists():
        gigaseg("demo", "--out", folder, "--side", SIDE)
        preset = {"segmenter": {"name": "watershed"}, "export": []}
        (folder / "config.yaml").write_text(yaml.safe_dump({"presets": {"nuclei": preset}}))
        command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "--cores", "2", "--quiet", "all"]
        subprocess.run([*map(str, command), "--directory", str(folder), "--resources", "gpu=1"], check=True)
    return folder


def gigaseg(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "gigaseg", *map(str, words)], check=True)


def repeat(folder: Path, count: int, picture: Path, out: Path) -> None:
    """Write slide, grid, instances and measurements of as many blocks as hold `count` nuclei."""
    found = folder / "results" / "demo"
    table, measured = pq.read_table(found / "instances.parquet"), pq.read_table(found / "measurements.parquet")
    across = int(np.ceil(np.sqrt(count / len(table))))
    places = [(row, col) for row in range(across) for col in range(across)][: int(np.ceil(count / len(table)))]
    rows = places[-1][0] + 1
    write_slide(folder / "slide.tif", picture, across, rows)
    out.mkdir(parents=True, exist_ok=True)
    gigaseg("inspect", picture, "--slide", out.name, "--out", out / "slide.json")
    gigaseg("grid", out / "slide.json", "--out", out / "grid.parquet", "--foreground", out / "foreground.tif")
    write_tables(table, measured, places, out)


def write_slide(source: Path, out: Path, across: int, down: int) -> None:
    """A tiled JPEG pyramid whose tiles are those of the block, encoded once, and above them levels of its own."""
    with tifffile.TiffFile(source) as file:
        image = file.pages[0].asarray()
    options = {"tile": (TILE, TILE), "photometric": "ycbcr", "subsampling": (2, 2), "compression": "jpeg"}
    with tifffile.TiffWriter(out, bigtiff=True) as writer:
        for level in range(LEVELS):  # up to a block of one tile
            small = image[:: 2**level, :: 2**level]
            side = len(small) // TILE
            tiles = [[encode(small[r * TILE :, c * TILE :]) for c in range(side)] for r in range(side)]
            shape = (len(small) * down, len(small) * across, 3)
            encoded = (tiles[r % side][c % side] for r in range(side * down) for c in range(side * across))
            resolution = (20000 / 2**level, 20000 / 2**level)
            writer.write(
                encoded, shape=shape, dtype=np.uint8, resolution=resolution, resolutionunit="CENTIMETER",
                subfiletype=int(level > 0), metadata=None, **options,
            )  # fmt: skip


def encode(corner: np.ndarray) -> bytes:
    return imagecodecs.jpeg_encode(np.ascontiguousarray(corner[:TILE, :TILE]), 85)


def write_tables(table: pa.Table, measured: pa.Table, places: list[tuple[int, int]], out: Path) -> None:
    from gigaseg.files import METADATA_KEY
    from gigaseg.instances.table import Instances, instances_from_arrow

    provenance = json.loads(table.schema.metadata[METADATA_KEY])
    one = instances_from_arrow(table, tuple(provenance["classes"]))
    stride = 512 - 64
    parts, rows = [], []
    for row, col in places:
        shift = np.array([col * SIDE, row * SIDE])
        geometry = shapely.transform(one.geometry, lambda xy, shift=shift: xy + shift)
        tile_row, tile_col = one.tile_row + row * SIDE // stride, one.tile_col + col * SIDE // stride
        moved = {"geometry": geometry, "tile_row": tile_row.astype(np.int32), "tile_col": tile_col.astype(np.int32)}
        parts.append(replace(one, **moved))
        moved = measured
        for axis, name in enumerate(("centroid_x_px", "centroid_y_px")):
            place = moved.schema.get_field_index(name)
            moved = moved.set_column(place, name, pa.array(moved[name].to_numpy() + shift[axis]))
        rows.append(moved)
    whole = Instances.concat(parts)
    order = np.lexsort((whole.tile_col, whole.tile_row))
    whole.take(order).write(out / "instances.parquet", {**provenance, "slide": out.name})
    joined = pa.concat_tables(rows).unify_dictionaries().take(pa.array(order))
    joined = joined.set_column(0, "instance", pa.array(np.arange(1, len(order) + 1)))
    about = {**json.loads(measured.schema.metadata[METADATA_KEY]), "slide": out.name}
    pq.write_table(
        joined.replace_schema_metadata({METADATA_KEY: json.dumps(about)}), out / "measurements.parquet",
        compression="zstd", row_group_size=8192,
    )  # fmt: skip


def child(*words: object) -> dict[str, float]:
    """Run this file with `words` in a process of its own; what it printed as JSON."""
    command = [sys.executable, __file__, *map(str, words)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def one(args: argparse.Namespace) -> None:
    start, cpu = time.perf_counter(), time.process_time()
    if args.pack:
        from gigaseg.viewer.pack import SlideFiles, make_pack

        make_pack(SlideFiles.of(Path(args.pack[0])), Path(args.pack[1]))
    else:
        import geopandas
        import pandas

        geopandas.read_parquet(Path(args.read) / "instances.parquet")
        pandas.read_parquet(Path(args.read) / "measurements.parquet")
    # not ru_maxrss, which a child begins with that of its parent
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"s": time.perf_counter() - start, "cpu": time.process_time() - cpu, "mb": peak}))


def browse(slide: Path) -> dict[str, object]:
    """What a browser measures at a server of its own."""
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import chromium

    begun = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "gigaseg", "view", str(slide), "--port", "8791"], stdout=subprocess.PIPE, text=True
    )
    address = server.stdout.readline().split()[4]
    found: dict[str, object] = {"server": time.perf_counter() - begun}
    try:
        with chromium() as driver:
            driver.set_window_size(1920, 1080)
            driver.set_script_timeout(120)
            wait = lambda what: until(driver, what)  # noqa: E731
            driver.get(address)  # makes the pack, warms nothing else
            wait("window.page && page.ready")
            for label in ("first", "again"):
                driver.get("about:blank")
                driver.get(address)
                clock = "performance.now() / 1000"
                wait("window.page && page.osd.world.getItemAt(0)?.getFullyLoaded()")
                found[f"picture {label}"] = driver.execute_script(f"return {clock}")
                wait("page.ready")
                found[f"nuclei {label}"] = driver.execute_script(f"return {clock}")
            views = {"whole slide": None, "outlines of thousands": 0.22, "a few hundred": 1.0}
            for name, scale in views.items():
                if scale is not None:
                    middle = "x: page.about.width / 2, y: page.about.height / 2"
                    driver.execute_script(f"page.goTo({{{middle}, scale: {scale}}}, true)")
                    wait("page.marks.complete(page.view()) && page.osd.world.getItemAt(0).getFullyLoaded()")
                seen = driver.execute_script(
                    "const v = page.view(); return [page.marks.outlined(v), page.marks.inView(v)"
                    ".reduce((n, i) => n + page.pack.meta.tiles[i][2], 0)]"
                )
                pans = {}
                for layer in (True, False):
                    driver.execute_script(f"page.layers.instances = {str(layer).lower()}; page.redraw()")
                    pans[layer] = driver.execute_async_script(FRAMES, 3000)
                driver.execute_script("page.layers.instances = true; page.redraw()")
                found[name] = {"outlined": seen[0], "instances": seen[1], "with": pans[True], "without": pans[False]}
            acts = {
                "another column": "page.look.colourBy = 'area_um2'; await page.change('look')",
                "the same column again": "page.look.colourBy = 'area_um2'; await page.change('look')",
                "a filter": "page.look.filters.set('area_um2', [20, 60]); await page.change('look')",
                "density": "page.layers.density = true; await page.change('density')",
                "values of an instance": "await page.pack.row(page.pack.meta.instances >> 1)",
                "what is under the cursor, whole slide": "page.osd.viewport.goHome(true); page._at({x: 700, y: 500})",
            }
            for name, act in acts.items():
                found[name] = driver.execute_async_script(TIMED, act)
            driver.save_screenshot(str(slide.parent.parent / "view.png"))
            found["renderer"] = driver.execute_script(
                "const e = page.marks.gl.getExtension('WEBGL_debug_renderer_info');"
                "return page.marks.gl.getParameter(e ? e.UNMASKED_RENDERER_WEBGL : page.marks.gl.RENDERER)"
            )
    finally:
        server.terminate()
    return found


def until(driver, what: str) -> None:
    end = time.monotonic() + 180
    while not driver.execute_script(f"return Boolean({what})"):
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.02)


def row(what: str, costs: dict, size: int) -> str:
    return f"| {what} | {costs['s']:.1f} | {costs['cpu']:.1f} | {costs['mb']:.0f} | {size / 1e6:.0f} |"


def page(args: argparse.Namespace, slide: Path, packed: dict, read: dict, seen: dict) -> str:
    about = json.loads((slide / "slide.json").read_text())
    count = pq.read_metadata(slide / "instances.parquet").num_rows
    size = (args.work / "pack.zip").stat().st_size
    tables = sum((slide / name).stat().st_size for name in ("instances.parquet", "measurements.parquet"))
    views = [
        f"| {name} | {view['instances']:,} as {'outlines' if view['outlined'] else 'discs'} | {view['with'][0]:.0f}"
        f" ({view['with'][1]:.0f}) | {view['without'][0]:.0f} ({view['without'][1]:.0f})"
        f" | {view['with'][0] / view['without'][0]:.2f} |"
        for name, view in seen.items()
        if isinstance(view, dict)
    ]
    acts = [
        f"| {name} | {seen[name]:.0f} |"
        for name in (
            "another column", "the same column again", "a filter", "density", "values of an instance",
            "what is under the cursor, whole slide",
        )
    ]  # fmt: skip
    return "\n".join(
        [
            "# The viewer with a million nuclei",
            "",
            f"`python benchmarks/viewer.py`, {processor()}, {platform.python_version()}; Chromium without a window,"
            f" 1920 × 1080, drawing by {seen['renderer']}: no graphics card.",
            "",
            f"A slide of {about['width']:,} × {about['height']:,} px with {count:,} nuclei, outlines as found"
            " (pixel corners), 28 measurements each.",
            "",
            "| what | s | CPU s | peak MB | on disk MB |",
            "|---|---|---|---|---|",
            row("making the pack, once", packed, size),
            row("reading the two tables with geopandas and pandas", read, tables),
            "| ratio | " + " | ".join(f"{packed[key] / read[key]:.2f}" for key in COSTS) + f" | {size / tables:.2f} |",
            "",
            "| from opening the page until | s, first | s, again |",
            "|---|---|---|",
            f"| the picture is complete | {seen['picture first']:.2f} | {seen['picture again']:.2f} |",
            f"| all nuclei are drawn and can be filtered | {seen['nuclei first']:.2f} | {seen['nuclei again']:.2f} |",
            "",
            f"`gigaseg view` answers {seen['server']:.1f} s after it was called.",
            "",
            "Where drawing takes longer than a frame, as here, the page moves the last drawing along with the picture"
            " and draws anew once the view rests, with a quarter of the view to spare on each side.",
            "",
            "| panning over | nuclei in view | frames/s (longest ms) | picture alone | ratio |",
            "|---|---|---|---|---|",
            *views,
            "",
            "| until drawn | ms |",
            "|---|---|",
            *acts,
            "",
        ]
    )


if __name__ == "__main__":
    main()
