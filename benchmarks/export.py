"""Speed and memory of the export formats beside geopandas: ``python benchmarks/export.py``.

Synthetic nuclei on a grid, outlines along pixel edges, 25 measurements. Each export is a process of its own, start and
reading included. Beside it, where there is one, the plain way: the same two tables read as a whole and written by
geopandas or anndata.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

from machine import processor

HERE = Path(__file__).parent
WORK, RESULTS = HERE / "work", HERE / "results"
PITCH, COLUMNS = 20, 25
"""Distance of neighbours, px; number of measurements."""

FORMATS = ("geojson", "geojson.gz", "gpkg", "fgb", "parquet", "csv", "coco", "anndata", "ome-zarr", "spatialdata")
PEERS = ("geojson", "gpkg", "fgb", "parquet", "csv", "anndata")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", nargs="+", type=int, default=[100_000, 1_000_000], help="instances of the slides")
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--prepare", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--plain", nargs=2, metavar=("FORMAT", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.prepare:
        prepare(args.prepare)
        return
    if args.plain:
        plain(args.plain[0], Path(args.plain[1]))
        return
    measured = {}
    for count in args.counts:
        folder = WORK / f"export-{count}"
        if not (folder / "measurements.parquet").exists():
            # in a process of its own: what this one has held would count as that of its children
            run([sys.executable, __file__, "--prepare", str(count)])
        for format in args.formats:
            out = folder / "out" / f"ours.{suffix(format)}"
            measured[count, format] = (*run(ours(format, folder)), size_of(out))
            print(count, format, measured[count, format], flush=True)
            if format in PEERS and count == min(args.counts):
                measured[format] = run([sys.executable, __file__, "--plain", format, str(folder)])
                print(count, format, "plain", measured[format], flush=True)
    text = report(args.counts, args.formats, measured)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "export.md").write_text(text, encoding="utf-8")
    print(text)


def suffix(format: str) -> str:
    from gigaseg.export.formats import FORMATS as known

    return known[format].file.partition(".")[2]


def ours(format: str, folder: Path) -> list[str]:
    tables = [str(folder / name) for name in ("instances.parquet", "measurements.parquet")]
    out = folder / "out" / f"ours.{suffix(format)}"
    command = [sys.executable, "-m", "gigaseg", "export", *tables, "--info", str(folder / "slide.json")]
    return [*command, "--format", format, "--out", str(out)]


def plain(format: str, folder: Path) -> None:
    """Write `format` as one would without gigaseg."""
    import geopandas
    import pandas as pd

    frame = geopandas.read_parquet(folder / "instances.parquet", columns=["geometry", "score", "class"])
    measurements = pd.read_parquet(folder / "measurements.parquet").drop(columns="class")
    frame = frame.join(measurements)
    frame["class"] = frame["class"].astype(str)
    out = folder / "out" / f"plain.{suffix(format)}"
    out.unlink(missing_ok=True)
    if format == "parquet":
        frame.to_parquet(out, write_covering_bbox=True, compression="zstd")
    elif format == "csv":
        frame.drop(columns="geometry").to_csv(out, index=False)
    elif format == "anndata":
        import anndata

        values = measurements.drop(columns="instance").astype("float32")
        obs = frame[["class", "score"]].set_axis(frame["instance"].astype(str))
        found = anndata.AnnData(values.to_numpy(), obs=obs, var=pd.DataFrame(index=values.columns))
        found.obsm["spatial"] = frame.geometry.centroid.get_coordinates().to_numpy()
        found.write_h5ad(out, compression="gzip")
    else:
        driver = {"geojson": "GeoJSON", "gpkg": "GPKG", "fgb": "FlatGeobuf"}[format]
        frame.to_file(out, driver=driver, layer="instances")


def run(command: list[str]) -> tuple[float, float]:
    """Seconds of CPU and peak MB of a command."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    told = process.stderr.read() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}\n{told}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def size_of(path: Path) -> float:
    """MB of a file or folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def prepare(count: int) -> None:
    """A white slide, its slide.json, and `count` instances with measurements."""
    import numpy as np
    import pyarrow as pa
    import shapely
    import tifffile

    from gigaseg.files import write_parquet
    from gigaseg.instances.table import Instances
    from gigaseg.slides.inspect import inspect
    from gigaseg.tiles.tiling import Tiling

    folder = WORK / f"export-{count}"
    (folder / "out").mkdir(parents=True, exist_ok=True)
    columns = int(count**0.5)
    rows = -(-count // columns)
    width, height = columns * PITCH, rows * PITCH
    tile = np.full((512, 512, 3), 240, np.uint8)
    tiles = (tile for _ in range(-(-height // 512) * -(-width // 512)))
    with tifffile.TiffWriter(folder / "s.tif", bigtiff=True) as file:
        settings = {"photometric": "rgb", "tile": (512, 512), "compression": "deflate", "resolution": (2e4, 2e4)}
        shape = {"shape": (height, width, 3), "dtype": np.uint8}
        file.write(tiles, resolutionunit="CENTIMETER", **shape, **settings)
    inspect(folder / "s.tif", slide="s").write(folder / "slide.json")
    rng = np.random.default_rng(1)
    corner = np.column_stack([np.arange(count) % columns, np.arange(count) // columns]) * PITCH + rng.integers(
        1, 5, (count, 2)
    )
    kinds = np.array([outline(radius) for radius in range(4, 8)])
    kind = rng.integers(0, len(kinds), count)
    xy, owner = shapely.get_coordinates(kinds[kind], return_index=True)
    geometry = shapely.polygons(shapely.linearrings(xy + corner[owner], indices=owner))
    class_index = rng.integers(0, 3, count).astype(np.int32)
    instances = Instances(
        geometry=geometry,
        score=rng.random(count, np.float32),
        class_index=class_index,
        class_prob=np.eye(3, dtype=np.float32)[class_index],
        tile_row=np.zeros(count, np.int32),
        tile_col=np.zeros(count, np.int32),
        cut=np.zeros(count, np.uint8),
        prompt=np.full(count, -1, np.int64),
        classes=("tumour", "stroma", "other"),
        members=np.ones(count, np.int16),
    )
    tiling = Tiling(512, 64, width, height, (1.0, 1.0), (0.5, 0.5), "um")
    instances.write(folder / "instances.parquet", {"slide": "s", "outlines": "pixels", "grid": tiling.to_dict()})
    table = {"instance": np.arange(1, count + 1), "class": pa.array(class_index).cast(pa.string())}
    table |= {f"value_{i}_um": rng.random(count) * 100 for i in range(COLUMNS)}
    write_parquet(folder / "measurements.parquet", pa.table(table), {"format": "gigaseg/measurements/1", "slide": "s"})


def outline(radius: int) -> object:
    """A disc of pixels as a polygon along their edges, from the origin on."""
    import numpy as np
    import shapely
    from rasterio.features import shapes

    y, x = np.mgrid[: 2 * radius, : 2 * radius] - radius + 0.5
    disc = (x**2 + y**2 < radius**2).astype(np.uint8)
    return next(shapely.geometry.shape(found) for found, value in shapes(disc) if value)


def report(counts: list[int], formats: list[str], measured: dict) -> str:
    most, least = max(counts), min(counts)
    lines = []
    for format in formats:
        seconds, memory, size = measured[most, format]
        seconds_least, memory_least, _ = measured[least, format]
        row = [format, f"{seconds:.0f}", f"{most / seconds:,.0f}", f"{size:,.0f}", f"{memory:,.0f}"]
        row += [f"{memory_least:,.0f}", f"{memory / memory_least:.2f}"]
        if format in measured:
            plain_seconds, plain_memory = measured[format]
            row += [f"{plain_seconds:.1f}", f"{seconds_least / plain_seconds:.2f}"]
            row += [f"{plain_memory:,.0f}", f"{memory_least / plain_memory:.2f}"]
        else:
            row += ["–"] * 4
        lines.append("| " + " | ".join(row) + " |")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    head = ["format", "CPU s", "instances / CPU s", "MB written", "MB", f"MB of {least:,}", "growth"]
    head += ["plain, s", "ratio", "plain, MB", "ratio"]
    return f"""# `gigaseg export`: speed and memory

`python benchmarks/export.py`

Machine: {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; load {load} at the end.
{most:,} instances with {COLUMNS} measurements, and {least:,} of them for the growth of memory. Each export is a process
of its own; its seconds of CPU, start and reading of the two tables included, and its peak of resident memory.
*plain*, of {least:,}: the same tables read as a whole and written by geopandas or anndata; *ratio*: gigaseg's over it.

| {" | ".join(head)} |
{"|---" * len(head)}|
{chr(10).join(lines)}

`spatialdata` holds all outlines at once, since the library takes them as one GeoDataFrame; so do those who open it.
The picture and the label image, {int(most**0.5) * PITCH:,} px on each side here, pass through memory in blocks.
`anndata` holds names, classes, scores and places; the values, mapped from disk, count as its memory too.
"""


if __name__ == "__main__":
    main()
