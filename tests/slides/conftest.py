"""Pictures with known pixels, and files of them for each reader."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image
from rasterio.enums import Resampling
from rasterio.transform import Affine

WIDTH, HEIGHT = 703, 501


@dataclass(frozen=True)
class Written:
    """A file, the arguments that `inspect` needs for it, and the pixels of each of its levels."""

    path: Path
    arguments: dict
    levels: list[np.ndarray]


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """(501, 703, 3) uint8: red is a ramp along x, green a ramp along y, blue is noise; bright as a stained slide."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    noise = np.random.default_rng(7).integers(100, 256, (HEIGHT, WIDTH))
    return np.stack([40 + x * 200 / WIDTH, 40 + y * 200 / HEIGHT, noise], axis=-1).round().astype(np.uint8)


def shrunk(array: np.ndarray, factor: int) -> np.ndarray:
    """`array` at 1/factor of its size, rounded down, anti-aliased."""
    height, width = array.shape[0] // factor, array.shape[1] // factor
    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.HAMMING))


def _tiff(folder: Path, picture: np.ndarray) -> list[np.ndarray]:
    levels = [picture, shrunk(picture, 2), shrunk(picture, 4)]
    with tifffile.TiffWriter(folder / "plain.tif") as tif:
        for i, level in enumerate(levels):
            resolution = (1e4 / 0.5 / 2**i,) * 2
            tif.write(
                level, photometric="rgb", tile=(64, 64), compression="deflate", subfiletype=int(i > 0),
                resolution=resolution, resolutionunit="CENTIMETER", metadata=None,
            )  # fmt: skip
    return levels


def _ome(folder: Path, picture: np.ndarray) -> list[np.ndarray]:
    levels = [picture, shrunk(picture, 2), shrunk(picture, 4)]
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(folder / "picture.ome.tif", bigtiff=True) as tif:
        for i, level in enumerate(levels):
            options = {"subifds": 2, "metadata": metadata} if i == 0 else {"subfiletype": 1}
            tif.write(level, photometric="rgb", tile=(64, 64), compression="deflate", **options)
    return levels


def _geotiff(folder: Path, picture: np.ndarray) -> list[np.ndarray]:
    path = folder / "geo.tif"
    write_raster(path, picture, overviews=(2, 4), crs="EPSG:32633", transform=Affine(0.5, 0, 5e5, 0, -0.5, 5e6))
    with tifffile.TiffFile(path) as tif:  # another library than the one that is tested
        return [picture, *(page.asarray() for page in tif.pages[1:])]


def write_raster(path: Path, array: np.ndarray, overviews: tuple[int, ...] = (), **options) -> None:
    """Write (y, x, band) as a tiled GeoTIFF."""
    height, width, bands = array.shape
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    profile |= {"width": width, "height": height, "count": bands, "dtype": array.dtype.name}
    alpha = options.pop("alpha", False)
    with rasterio.open(path, "w", **profile, **options) as raster:
        if alpha:
            raster.colorinterp = [*raster.colorinterp[:-1], rasterio.enums.ColorInterp.alpha]
        raster.write(np.moveaxis(array, -1, 0))
    if overviews:
        with rasterio.open(path, "r+") as raster:
            raster.build_overviews(overviews, Resampling.average)


READER_CASES = ("rasterio", "tiffslide", "openslide", "tifffile", "pillow")


@pytest.fixture(scope="session")
def write_for(tmp_path_factory, picture) -> Callable[[str], Written]:
    """`write_for(reader)`: the picture in a lossless file for that reader, 0.5 µm or m per pixel."""
    done: dict[str, Written] = {}

    def write(reader: str) -> Written:
        if reader not in done:
            folder = tmp_path_factory.mktemp(reader)
            arguments = {"slide": "s", "reader": reader}
            if reader == "rasterio":
                levels, name = _geotiff(folder, picture), "geo.tif"
                arguments["unit"] = "m"
            elif reader == "tifffile":
                levels, name = _ome(folder, picture), "picture.ome.tif"
            elif reader == "pillow":
                levels, name = [picture], "picture.png"
                Image.fromarray(picture).save(folder / name)
                arguments["pixel_size"] = 0.5
            else:
                levels, name = _tiff(folder, picture), "plain.tif"
            done[reader] = Written(folder / name, arguments, levels)
        return done[reader]

    return write


@pytest.fixture(params=READER_CASES)
def written(request, write_for) -> Written:
    """One file for each reader in turn."""
    return write_for(request.param)


@pytest.fixture(scope="session")
def raster_writer() -> Callable[..., None]:
    """`raster_writer(path, array, overviews=(), alpha=False, **rasterio options)` writes a GeoTIFF."""
    return write_raster
