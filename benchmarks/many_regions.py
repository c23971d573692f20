"""CPU seconds of what `gigaseg measure` does for 10,000 regions of 1,000,000 instances, one core.

Run: python benchmarks/many_regions.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import shapely
from pyproj import CRS

from gigaseg.measure.cover import PixelAreas, Scene, cover
from gigaseg.measure.regions import Regions
from gigaseg.measure.summary import SlideNumbers, summarise
from gigaseg.slides.ground import Geodetic
from gigaseg.testing.array_slide import ArraySlide
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.tiling import Tiling

SIDE, REGIONS, INSTANCES, COLUMNS, WINDOW = 50_000, 100, 1_000_000, 24, 4096


def timed(name: str, work: Callable[[], object]) -> None:
    """Print what some work takes."""
    start = time.process_time()
    work()
    print(f"| {name} | {time.process_time() - start:.1f} |", flush=True)


def main() -> None:
    """Make a grid of regions of 200 corners and houses of 24 px in it, and tell how long each part takes."""
    rng = np.random.default_rng(0)
    x, y = np.divmod(np.arange(REGIONS**2), REGIONS)
    squares = shapely.segmentize(shapely.box(x, y, x + 1, y + 1), 0.02)
    regions = Regions(
        tuple(f"r{i:05}" for i in range(len(x))), shapely.transform(squares, lambda xy: xy * SIDE / REGIONS)
    )
    centroid = rng.uniform(0, SIDE, (INSTANCES, 2))
    ground = Geodetic(CRS(3857).to_wkt(), (0.5, 0, 1e6, 0, -0.5, 6e6))
    print("| part | CPU s |\n|---|---|")
    members = np.empty(0, np.int64), np.empty(0, np.int64)

    def assign() -> None:
        nonlocal members
        parts = [regions.members(centroid[i : i + 100_000]) for i in range(0, INSTANCES, 100_000)]
        instance = np.concatenate([i * 100_000 + part[0] for i, part in enumerate(parts)])
        members = instance, np.concatenate([part[1] for part in parts])

    timed("regions of each instance", assign)
    columns = {f"c{i}": rng.lognormal(size=INSTANCES) for i in range(COLUMNS)}
    areas = np.ones(1 + len(x))
    numbers = SlideNumbers(
        tuple(columns), columns.__getitem__, np.zeros(INSTANCES, np.int32), ("building",), 1.0, areas,
        np.column_stack([areas, areas]), 0,
    )  # fmt: skip
    info = replace(ArraySlide(np.zeros((1, 1, 3), np.uint8)).info, unit="m")
    quantiles = (0.05, 0.25, 0.5, 0.75, 0.95)
    timed(f"statistics of {COLUMNS} columns", lambda: summarise(numbers, info, quantiles, regions.names, members))
    timed("size of the ground at each instance", lambda: ground.stretch(centroid))
    scene = Scene(
        PixelAreas(ground, SIDE, SIDE), Foreground(np.ones((512, 512), bool), (SIDE / 512,) * 2, "valid"),
        regions.geometry, 1,
    )  # fmt: skip
    tiling = Tiling(512, 64, SIDE, SIDE, (1.0, 1.0), (0.5, 0.5), "m")
    houses = shapely.box(*centroid.T, *(centroid + 24).T)
    tree = shapely.STRtree(houses)

    def coverage() -> None:
        for top in range(0, SIDE, WINDOW):
            for left in range(0, SIDE, WINDOW):
                window = left, top, min(left + WINDOW, SIDE), min(top + WINDOW, SIDE)
                near = houses[tree.query(shapely.box(*window))]
                cover(scene, tiling, near, np.zeros(len(near), np.int32), window)

    timed("coverage of the slide and the regions", coverage)


if __name__ == "__main__":
    main()
