"""A generated slide with its slide.json and grid.parquet: what the steps on tiles read."""

from gigaseg.config import ForegroundConfig, Preset, TilesConfig
from gigaseg.slides.inspect import inspect
from gigaseg.testing import synthetic_slide
from gigaseg.tiles.grid import grid


def write_inputs(folder, segmenter, size, tiles_per_shard):
    """A slide of `size` (width, height) px in tiles of 256 px, all kept; returns the folder."""
    width, height = size
    synthetic_slide(folder / "s.tif", width=width, height=height, seed=5)
    inspect(folder / "s.tif", slide="s").write(folder / "slide.json")
    preset = Preset(
        segmenter=segmenter,
        foreground=ForegroundConfig(method="all"),
        tiles=TilesConfig(tile=256, overlap=64, tiles_per_shard=tiles_per_shard),
    )
    grid(folder / "slide.json", folder / "grid.parquet", folder / "foreground.tif", preset=preset)
    return folder
