"""What `stitch.regularise` does to footprints: ``python benchmarks/footprints.py [--data FOLDER]``.

The footprints of raster/town_buildings.geojson are drawn on pixels of 0.3 (units of their CRS), as they are and as a
segmenter with soft, uneven edges would see them: the mask is blurred, noise of about the blur's size is added, and what
lies above the half is traced. The outlines, simplified or regular ones, are compared with the footprints. The file lies
in the folder that GIGASEG_DATA names (else ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import shapely
from rasterio.features import rasterize
from scipy.ndimage import gaussian_filter, label

from gigaseg.instances.footprints import regularise
from gigaseg.instances.polygons import polygons_from_labels

HERE = Path(__file__).parent
PIXEL = 0.3
BLUR_PX = 1.5
NOISE = 0.15
"""Standard deviation of the noise, in heights of the step at an edge, before it is blurred as the mask is."""

TOLERANCES = (0.3, 0.6, 0.9, 1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("GIGASEG_DATA") or HERE.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with raster")
    path = parser.parse_args().data / "raster" / "town_buildings.geojson"
    truth = shapely.get_parts(shapely.from_geojson(json.dumps(json.loads(path.read_text()))))
    lines = [
        "# Regular footprints",
        "",
        f"{len(truth)} buildings of the town on pixels of {PIXEL}; means over the buildings, corners: median.",
        "",
        "| drawn | outline | tolerance | IoU with the footprint | corners | as drawn |",
        "|---|---|---|---|---|---|",
    ]
    seconds = 0.0
    for name, noise in (("exact", 0.0), ("soft, uneven", NOISE)):
        drawn = np.array([traced(building, noise, i) for i, building in enumerate(truth)], object)
        lines.append(row(name, "as drawn", "", drawn, drawn, truth))
        for tolerance in TOLERANCES:
            lines.append(row(name, "simplified", tolerance, shapely.simplify(drawn, tolerance), drawn, truth))
            begin = time.process_time()
            regular = regularise(drawn, tolerance, PIXEL)
            seconds += time.process_time() - begin
            lines.append(row(name, "regular", tolerance, regular, drawn, truth))
    lines += ["", f"{seconds / (2 * len(TOLERANCES) * len(truth)) * 1000:.1f} ms of a core a building."]
    (HERE / "results" / "footprints.md").write_text("\n".join(lines) + "\n")


def traced(building: shapely.Polygon, noise: float, seed: int) -> shapely.Polygon:
    """The largest outline of what is seen of a building."""
    left, top, right, bottom = building.bounds
    origin = np.array([left, top]) - 10 * PIXEL
    shape = (int((bottom - top) / PIXEL) + 21, int((right - left) / PIXEL) + 21)
    moved = shapely.transform(building, lambda xy: (xy - origin) / PIXEL)
    mask = rasterize([(moved, 1)], out_shape=shape, dtype=np.uint8).astype(float)
    if noise:
        random = np.random.default_rng(seed)
        # white noise loses its size in the blur: 2 sqrt(pi) sigma times
        white = noise * 2 * np.sqrt(np.pi) * BLUR_PX * random.standard_normal(shape)
        mask = gaussian_filter(mask + white, BLUR_PX)
    parts, _ = label(mask > 0.5)
    _, outlines = polygons_from_labels(parts.astype(np.int32))
    largest = outlines[int(np.argmax(shapely.area(outlines)))]
    return shapely.transform(largest, lambda xy: xy * PIXEL + origin)


def row(name: str, outline: str, tolerance: object, found: np.ndarray, drawn: np.ndarray, truth: np.ndarray) -> str:
    common = shapely.area(shapely.intersection(found, truth))
    iou = common / (shapely.area(found) + shapely.area(truth) - common)
    corners = np.median(shapely.get_num_coordinates(found) - 1)
    same = sum(a is b for a, b in zip(found, drawn)) if outline == "regular" else ""
    return f"| {name} | {outline} | {tolerance} | {iou.mean():.4f} | {corners:.0f} | {same} |"


if __name__ == "__main__":
    main()
