"""A small slide on disk with grid, foreground and instances."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile

from gigaseg.instances.table import Instances
from gigaseg.slides.inspect import inspect
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tiling

PAPER = (225, 215, 235)
"""Colour of the slide."""


@dataclass(frozen=True)
class Files:
    """Inputs of `overview`."""

    info: Path
    grid: Path
    foreground: Path
    instances: Path

    def __iter__(self):
        return iter((self.info, self.grid, self.foreground, self.instances))


@pytest.fixture
def slide_files(tmp_path: Path) -> Callable[..., Files]:
    """Write a slide of one colour, 800 x 600 px of 0.5 µm; tiles are kept from x = 400 on, foreground from x = 500."""

    def write(
        geometry: np.ndarray,
        classes: tuple[str, ...] = ("nucleus",),
        tile: int = 128,
        width: int = 800,
        height: int = 600,
    ) -> Files:
        files = Files(
            *(tmp_path / name for name in ("slide.json", "grid.parquet", "foreground.tif", "instances.parquet"))
        )
        image = np.broadcast_to(np.array(PAPER, np.uint8), (height, width, 3))
        tifffile.imwrite(
            tmp_path / "slide.tif",
            image,
            photometric="rgb",
            tile=(128, 128),
            compression="zlib",
            resolution=(2e4, 2e4),
            resolutionunit="CENTIMETER",
        )
        info = inspect(tmp_path / "slide.tif", slide="case-1")
        info.write(files.info)
        tiling = Tiling(tile, 0, width, height, (1.0, 1.0), info.pixel_size, info.unit)
        row, col = np.nonzero(np.broadcast_to(np.arange(tiling.cols) * tile >= width / 2, (tiling.rows, tiling.cols)))
        n = len(row)
        Grid(
            tiling,
            "case-1",
            row.astype(np.int32),
            col.astype(np.int32),
            np.ones(n, np.float32),
            np.zeros(n, np.int32),
            1,
        ).write(files.grid)
        mask = np.zeros((height // 10, width // 10), bool)
        mask[:, width // 16 :] = True
        Foreground(mask, (10.0, 10.0), "tissue").write(files.foreground)
        n = len(geometry)
        class_index = (np.arange(n) % len(classes)).astype(np.int32)
        Instances(
            geometry=geometry,
            score=np.ones(n, np.float32),
            class_index=class_index,
            class_prob=np.eye(len(classes), dtype=np.float32)[class_index],
            tile_row=np.zeros(n, np.int32),
            tile_col=np.zeros(n, np.int32),
            cut=np.zeros(n, np.uint8),
            prompt=np.full(n, -1, np.int64),
            classes=classes,
            members=np.ones(n, np.int16),
        ).write(files.instances, {"slide": "case-1"})
        return files

    return write


@pytest.fixture
def squares() -> np.ndarray:
    """Six squares of 40 px, the last two in the right half."""
    x = np.array([100, 200, 100, 200, 500, 650])
    y = np.array([100, 100, 300, 300, 100, 300])
    return shapely.box(x, y, x + 40, y + 40)
