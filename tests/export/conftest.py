"""A small slide on disk: slide.json, instances.parquet and measurements.parquet."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely

from gigaseg.cli import main
from gigaseg.files import write_parquet
from gigaseg.instances.table import Instances
from gigaseg.slides.base import Level, Rendering, SlideInfo
from gigaseg.testing import synthetic_slide

INFO = SlideInfo(
    slide="case-1",
    path="case-1.svs",
    kind="brightfield",
    reader="tiffslide",
    vendor="aperio",
    width=4000,
    height=3000,
    levels=(Level(4000, 3000, 1.0, 1.0),),
    channels=("red", "green", "blue"),
    dtype="uint8",
    background=(255.0, 255.0, 255.0),
    rendering=Rendering((0, 1, 2)),
    pixel_size=(0.5, 0.5),
    pixel_size_source="metadata",
    unit="um",
    crs=None,
    transform=None,
    nodata=None,
    bounds=None,
    objective_power=20.0,
    fingerprint="1-1",
)


def shapes() -> np.ndarray:
    """A square, a ring with a hole, two parts, and a triangle off the integers."""
    return np.array(
        [
            shapely.box(10, 20, 30, 40),
            shapely.Polygon([(100, 100), (160, 100), (160, 150), (100, 150)], [[(120, 110), (130, 110), (130, 130)]]),
            shapely.MultiPolygon([shapely.box(200, 200, 210, 210), shapely.box(220, 200, 230, 205)]),
            shapely.Polygon([(300.123456, 300.5), (320.25, 300.5), (310.987654321, 333.333333)]),
        ]
    )


@pytest.fixture
def slide_files(tmp_path: Path) -> Callable[..., tuple[Path, Path, Path]]:
    """Write the three inputs of `export`; returns (instances, measurements, info)."""

    def write(
        geometry: np.ndarray | None = None,
        classes: tuple[str, ...] = ("nucleus",),
        measurements: dict[str, np.ndarray] | None = None,
        **info: object,
    ) -> tuple[Path, Path, Path]:
        geometry = shapes() if geometry is None else geometry
        n = len(geometry)
        class_index = (np.arange(n) % len(classes)).astype(np.int32)
        instances = Instances(
            geometry=geometry,
            score=np.linspace(0.5, 1, n, dtype=np.float32),
            class_index=class_index,
            class_prob=np.eye(len(classes), dtype=np.float32)[class_index],
            tile_row=np.zeros(n, np.int32),
            tile_col=np.zeros(n, np.int32),
            cut=np.zeros(n, np.uint8),
            prompt=np.full(n, -1, np.int64),
            classes=classes,
            members=np.ones(n, np.int16),
        )
        paths = tmp_path / "instances.parquet", tmp_path / "measurements.parquet", tmp_path / "slide.json"
        slide = info.get("slide", "case-1")
        instances.write(paths[0], {"slide": slide})
        area = shapely.area(geometry) * 0.25
        table = pa.table({"instance": np.arange(1, n + 1), "area_um2": area, **(measurements or {})})
        write_parquet(paths[1], table, {"format": "gigaseg/measurements/1", "slide": slide})
        replace(INFO, **info).write(paths[2])  # type: ignore[arg-type]
        return paths

    return write


REGIONS = {"tumour": shapely.box(0, 0, 350, 500), "tumour/core": shapely.box(100, 100, 250, 300)}
"""Regions of the slide of `measured`; one lies in the other."""


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a generated slide, 1200 x 700 px of 0.5 µm, whose nuclei were found at 0.8 µm and measured."""
    folder = tmp_path_factory.mktemp("measured")
    synthetic_slide(folder / "s.tif", width=1200, height=700, seed=5)
    frame = geopandas.GeoDataFrame({"name": list(REGIONS)}, geometry=list(REGIONS.values()))
    frame.to_parquet(folder / "regions.parquet")
    info, grid, foreground = (str(folder / name) for name in ("slide.json", "grid.parquet", "foreground.tif"))
    instances, measurements = str(folder / "instances.parquet"), str(folder / "measurements.parquet")
    steps = (
        ["inspect", str(folder / "s.tif"), "--slide", "s", "--out", info],
        ["grid", info, "--segmenter=watershed", "--tile=256", "--overlap=32", "--working-resolution=0.8",
         "--out", grid, "--foreground", foreground],
        ["segment", info, grid, "--segmenter=watershed", "--out", str(folder / "000.parquet")],
        ["stitch", str(folder / "000.parquet"), "--grid", grid, "--out", instances],
        ["measure", instances, "--info", info, "--foreground", foreground, "--regions", str(folder / "regions.parquet"),
         "--out", measurements, "--summary", str(folder / "summary.json")],
    )  # fmt: skip
    for step in steps:
        assert main(step) == 0, step
    return folder
