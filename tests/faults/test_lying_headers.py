"""Headers that lie about the size of pixels, of tiles and of the picture: one line, no memory spent."""

import struct

import numpy as np
import pytest
import rasterio
import tifffile

from gigaseg.testing.faults import attempt

PIXELS = np.random.default_rng(0).integers(100, 255, (300, 400, 3), dtype=np.uint8)
GOOD_SVS = "Aperio Image Library v1\r\n400x300 [0,0 400x300] (128x128) JPEG/RGB Q=70|AppMag = 20|MPP = {}"


def inspected(path, *options):
    """What `gigaseg inspect` says of a file."""
    return attempt(["inspect", str(path), f"--out={path.with_suffix('.json')}", *options], memory=2**30)


def refusal(path, *options):
    done = inspected(path, *options)
    assert done.verdict(path) == "refused", done
    assert not path.with_suffix(".json").exists()
    return done.errors[0]


def write(path, *, description=None, **options):
    tifffile.imwrite(
        path, PIXELS, photometric="rgb", tile=(128, 128), description=description, metadata=None, **options
    )
    return path


@pytest.mark.parametrize("mpp", ["0", "nan", "-0.25", "1e10", "1e-9", "half", "1e400"])
def test_the_pixel_size_in_an_aperio_header(tmp_path, mpp):
    path = write(tmp_path / "lies.svs", description=GOOD_SVS.format(mpp), compression="jpeg")
    line = refusal(path)
    assert "pixel size" in line
    assert "pixel_size" in line.split(";")[-1], "the way out"


@pytest.mark.parametrize("power", ["0", "nan", "x", "1e-300"])
def test_the_objective_in_an_aperio_header_without_a_pixel_size(tmp_path, power):
    text = GOOD_SVS.replace("AppMag = 20|MPP = {}", f"AppMag = {power}")
    refusal(write(tmp_path / "lies.svs", description=text, compression="jpeg"))


@pytest.mark.parametrize("size", ["0", "NaN", "-1", "1e12"])
def test_the_pixel_size_in_ome_xml(tmp_path, size):
    path = tmp_path / "lies.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size}
    tifffile.imwrite(path, PIXELS, photometric="rgb", tile=(128, 128), metadata=metadata)
    assert "pixel size" in refusal(path)


@pytest.mark.parametrize("steps", [(0, 1), (1, 0), (2**32 - 1, 1), (1, 2**32 - 1)])
def test_the_resolution_tags(tmp_path, steps):
    path = write(tmp_path / "lies.tif", resolution=(1, 1), resolutionunit="CENTIMETER")
    with tifffile.TiffFile(path, mode="r+") as tif:
        for name in ("XResolution", "YResolution"):
            place = tif.pages.first.tags[name].valueoffset
            tif.filehandle.seek(place)
            tif.filehandle.write(struct.pack("<II", *steps))
    assert "pixel size" in refusal(path)


@pytest.mark.parametrize("step", [0.0, float("nan"), 1e-300, 1e300])
def test_the_transform_of_a_geotiff(tmp_path, step):
    path = tmp_path / "lies.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=400, height=300, count=3, dtype="uint8", crs="EPSG:32633",
        transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6),
    ) as raster:  # fmt: skip
        raster.write(np.moveaxis(PIXELS, -1, 0))
    with tifffile.TiffFile(path, mode="r+") as tif:
        place = tif.pages.first.tags["ModelPixelScaleTag"].valueoffset
        tif.filehandle.seek(place)
        tif.filehandle.write(struct.pack("<2d", step, step))
    assert "pixel size" in refusal(path, "--unit=m")


def changed(path, **tags):
    """Overwrite values of tags of the first directory."""
    with tifffile.TiffFile(path, mode="r+") as tif:
        for name, value in tags.items():
            tag = tif.pages.first.tags[name]
            tif.filehandle.seek(tag.valueoffset)
            tif.filehandle.write(struct.pack("<" + {3: "H", 4: "I"}[int(tag.dtype)], value))
    return path


@pytest.mark.parametrize("compression", ["jpeg", None, "deflate"])
@pytest.mark.parametrize(
    "tags",
    [
        {"ImageWidth": 10**9, "ImageLength": 10**9},
        {"ImageWidth": 10**9},
        {"ImageLength": 2**32 - 1},
        {"ImageWidth": 0},
        {"ImageWidth": 0, "ImageLength": 0},
        {"TileWidth": 0},
        {"TileLength": 0, "TileWidth": 0},
        {"TileWidth": 65520, "TileLength": 65520},
        {"SamplesPerPixel": 60000},
        {"SamplesPerPixel": 116},  # little enough for the size of the file, too much for memory
        {"SamplesPerPixel": 0},
    ],
    ids=lambda tags: "-".join(f"{name}{value}" for name, value in tags.items()),
)
def test_sizes_that_the_file_cannot_hold(tmp_path, compression, tags):
    path = tmp_path / "lies.tif"
    big = np.zeros((300, 70000, 3), np.uint8)  # so wide that its width is a tag of 32 bits, as a slide's is
    big[:, :, :] = PIXELS[0, 0]
    tifffile.imwrite(path, big, photometric="rgb", tile=(256, 256), compression=compression, metadata=None)
    with tifffile.TiffFile(path) as tif:
        kinds = {name: int(tif.pages.first.tags[name].dtype) for name in tags}
    if any(kind == 3 and value > 65535 for (_, kind), value in zip(kinds.items(), tags.values())):
        tags = {name: min(value, 65535) if kinds[name] == 3 else value for name, value in tags.items()}
    refusal(changed(path, **tags), "--pixel-size=px")
