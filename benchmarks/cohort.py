"""A cohort of real files through the workflow: slides of several vendors, and a raster whose footprints must come back.

``python benchmarks/cohort.py [--data FOLDER]`` runs `snakemake --cores 2 --resources gpu=1` on CMU-1-Small-Region.svs,
dapi.ndpi, C3L-00601-26.tif and, for several tile sizes and overlaps, town.tif with its footprints as `annotations`;
it writes benchmarks/results/cohort.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import shapely
import yaml

from gigaseg.instances.table import read_instances
from gigaseg.slides.base import SlideInfo

ROOT = Path(__file__).parents[1]
WORK = ROOT / "benchmarks" / "work" / "cohort"
TILES = [(256, 1), (256, 32), (256, 128), (512, 16), (512, 64), (512, 256), (1024, 1), (1024, 64), (1024, 200)]
UNTILED = "town-untiled"


def write_cohort(data: Path) -> None:
    """config.yaml and slides.tsv: presets `nuclei` and `buildings`, the latter once more for each tile size."""
    WORK.mkdir(parents=True, exist_ok=True)
    buildings = {"unit": "m", "segmenter": {"name": "annotations", "overlaps": "keep"}, "export": ["gpkg"]}
    presets = {
        "nuclei": {"export": ["geojson"]},
        "buildings": {**buildings, "tiles": {"tile": 2048, "overlap": 128}},
    }
    town = f"{data}/raster/town.tif\tbuildings%s\t\t{data}/raster/town_buildings.geojson"
    rows = [
        f"CMU-1\t{data}/slides/CMU-1-Small-Region.svs\tnuclei\t\t",
        f"dapi\t{data}/slides/dapi.ndpi\tnuclei\t\t",
        f"C3L\t{data}/slides/C3L-00601-26.tif\tnuclei\t2.0\t",
        f"{UNTILED}\t{town % ''}",
    ]
    for tile, overlap in TILES:
        presets[f"buildings-{tile}-{overlap}"] = {**buildings, "tiles": {"tile": tile, "overlap": overlap}}
        rows.append(f"town-{tile}-{overlap}\t{town % f'-{tile}-{overlap}'}")
    (WORK / "config.yaml").write_text(yaml.safe_dump({"presets": presets}, sort_keys=False))
    (WORK / "slides.tsv").write_text("\n".join(["slide\tpath\tpreset\tpixel_size\tannotations", *rows]) + "\n")


def ground_areas(data: Path, info: SlideInfo) -> np.ndarray:
    """Geodesic areas of the footprints clipped to the raster, m²."""
    a, b, c, d, e, f = info.transform or (1, 0, 0, 0, 1, 0)
    corners = shapely.transform(shapely.box(0, 0, info.width, info.height), lambda xy: xy @ [[a, d], [b, e]] + (c, f))
    clipped = geopandas.read_file(data / "raster" / "town_buildings.geojson").clip(corners, keep_geom_type=True)
    geod = pyproj.Geod(ellps="WGS84")
    return np.array([abs(geod.geometry_area_perimeter(shape)[0]) for shape in clipped.to_crs(4326).geometry])


def compare(data: Path) -> list[str]:
    """Rows of the seam table: each tiling against the untiled run."""
    results = WORK / "results"
    whole, _ = read_instances(results / UNTILED / "instances.parquet", stitched=True)
    info = SlideInfo.read(results / UNTILED / "slide.json")
    truth = np.sort(ground_areas(data, info))
    lines = [
        "| tile | overlap | buildings | largest symmetric difference / area | largest area error |",
        "|" + "---|" * 5,
    ]
    for tile, overlap in [("untiled", 0), *TILES]:
        name = UNTILED if tile == "untiled" else f"town-{tile}-{overlap}"
        found, _ = read_instances(results / name / "instances.parquet", stitched=True)
        pairs = shapely.STRtree(found.geometry).query(whole.geometry, predicate="intersects")
        difference = np.full(len(whole), np.inf)
        relative = shapely.area(shapely.symmetric_difference(whole.geometry[pairs[0]], found.geometry[pairs[1]]))
        np.minimum.at(difference, pairs[0], relative / shapely.area(whole.geometry[pairs[0]]))
        area = np.sort(shapely.area(found.geometry)) * np.prod(info.pixel_size)
        error = np.abs(area / truth - 1).max() if len(area) == len(truth) else np.inf
        lines.append(f"| {tile} | {overlap} | {len(found)} | {difference.max():.1e} | {error:.2%} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("GIGASEG_DATA", ROOT.parent / "shared" / "data"))
    )
    data = parser.parse_args().data.resolve()
    write_cohort(data)
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2", "--resources", "gpu=1"]
    command += ["--configfile", "config.yaml", "--quiet", "rules"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    begin = time.perf_counter()
    subprocess.run(command, cwd=WORK, env=environment, check=True)
    seconds = time.perf_counter() - begin
    with (WORK / "results" / "cohort.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    shown = ["slide", "status", "segmenter", "instances", "foreground_mm2", "density_per_mm2", "area_um2_median"]
    lines = ["# A cohort of real files", "", "`python benchmarks/cohort.py`", ""]
    lines += [f"{len(rows)} slides in {seconds:.0f} s on {os.cpu_count()} cores.", ""]
    lines += ["| " + " | ".join(shown) + " |", "|" + "---|" * len(shown)]
    lines += [
        "| " + " | ".join(row.get(name, "") for name in shown) + " |" for row in rows if "town" not in row["slide"]
    ]
    lines += [
        "",
        "town.tif, 107 footprints, against the run in one tile; areas against geodesic ones:",
        "",
        *compare(data),
    ]
    text = "\n".join(lines) + "\n"
    (ROOT / "benchmarks" / "results" / "cohort.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
