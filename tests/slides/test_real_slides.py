"""Slides of real scanners."""

import numpy as np
import pytest

from gigaseg.errors import SlideError
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.inspect import header, inspect
from gigaseg.slides.registry import open_slide, open_source

DICOM = "dicom/multi_frame_jpeg2000_camelyon_challenge_image.dcm"


@pytest.mark.parametrize(
    ("name", "reader", "kind", "size", "levels", "mpp"),
    [
        ("CMU-1-Small-Region.svs", "tiffslide", "brightfield", (2220, 2967), 1, (0.499, 0.499)),
        ("dapi.ndpi", "openslide", "fluorescence", (3968, 4864), 7, (0.2281750559, 0.2281750559)),
        (DICOM, "openslide", "brightfield", (1696, 812), 1, (28.969, 28.968)),
    ],
    ids=["svs", "ndpi", "dicom"],
)
def test_each_format_opens_with_its_reader(data, name, reader, kind, size, levels, mpp):
    info = inspect(data / "slides" / name, slide="s")
    assert (info.reader, info.kind, (info.width, info.height)) == (reader, kind, size)
    assert len(info.levels) == levels
    assert info.pixel_size == pytest.approx(mpp)
    assert (info.unit, info.pixel_size_source) == ("um", "metadata")
    assert info.background == ((0.0,) * 3 if kind == "fluorescence" else (255.0,) * 3)
    assert info.rendering.limits is None
    overview = open_slide(info).read(Bounds(0, 0, *size), Shape2d(size[1] // 16, size[0] // 16))
    assert overview.std() > 1


def test_openslide_and_tiffslide_agree_on_the_svs_pixel_by_pixel(data):
    path = data / "slides" / "CMU-1-Small-Region.svs"
    images = []
    for reader in ("openslide", "tiffslide"):
        slide = open_slide(inspect(path, slide="s", reader=reader))
        images.append(slide.read(Bounds(0, 0, 2220, 2967), Shape2d(2967, 2220)))
    np.testing.assert_array_equal(*images)  # tolerance 0: both decode with libjpeg-turbo


def test_a_pyramid_without_pixel_size_needs_the_sheet(data):
    path = data / "slides" / "C3L-00601-26.tif"
    with pytest.raises(SlideError, match=r"C3L-00601-26\.tif: pixel size unknown.*column 'pixel_size'"):
        inspect(path, slide="s")
    info = inspect(path, slide="s", pixel_size=4.0)
    assert (info.reader, info.vendor, len(info.levels)) == ("tiffslide", "generic-tiff", 4)
    found = header(path, pixel_size="px")
    assert (found.pixel_size, found.unit, found.levels) == ((1.0, 1.0), "px", info.levels)


@pytest.mark.parametrize("reader", ["tiffslide", "openslide", "tifffile", "rasterio"])
def test_levels_with_fractional_downsample_come_back_unshifted(data, reader):
    # 5477 px over 2738, 1369 and 684: 2.0002, 4.0007, 8.0073; the same file read whole is the reference
    # (GDAL interpolates the JPEG's chroma otherwise than the rest: its luminance is the same but for rounding)
    path = data / "slides" / "C3L-00601-26.tif"
    slide = open_slide(inspect(path, slide="s", pixel_size=4.0, reader=reader))
    reference = open_source(path, "tifffile")[1]
    for index, level in enumerate(slide.info.levels):
        whole = reference.read_level(index, 0, 0, level.width, level.height, (0, 1, 2))
        for x, y in ((0, 0), (level.width // 2 + 1, level.height // 2 + 3), (level.width - 128, level.height - 96)):
            bounds = Bounds(x, y, x + 128, y + 96).scaled(level.downsample_x, level.downsample_y)
            difference = slide.read(bounds, Shape2d(96, 128)).astype(int) - whole[y : y + 96, x : x + 128]
            if reader == "rasterio":
                # one pixel off would be a mean difference of 4 or more
                assert np.abs(difference @ (0.299, 0.587, 0.114)).mean() < 0.2
            else:
                assert not difference.any()


def test_the_levels_of_a_real_pyramid_lie_on_each_other(data):
    # shifting the coarse level against the shrunk fine one by half a coarse pixel makes the difference larger
    path = data / "slides" / "C3L-00601-26.tif"
    slide = open_slide(inspect(path, slide="s", pixel_size=4.0))
    level = slide.info.levels[2]
    x, y, side = 500, 500, 300
    bounds = Bounds(x, y, x + side, y + side).scaled(level.downsample_x, level.downsample_y)
    fine = slide.read(bounds, Shape2d(side * 4, side * 4)).astype(float)
    fine = fine.reshape(side, 4, side, 4, 3).mean(axis=(1, 3))
    differences = {}
    for shift in (-0.5, 0.0, 0.5):
        step = shift * level.downsample_x
        moved = Bounds(bounds.xmin + step, bounds.ymin, bounds.xmax + step, bounds.ymax)
        differences[shift] = np.abs(slide.read(moved, Shape2d(side, side)) - fine).mean()
    assert min(differences, key=differences.get) == 0.0


def test_a_channel_of_an_rgb_fluorescence_slide_can_be_chosen(data):
    info = inspect(data / "slides" / "dapi.ndpi", slide="s", channels=["blue"])
    assert info.rendering.channels == (2,)
    ((low, high),) = info.rendering.limits
    assert 0 <= low < high <= 255


def test_metadata_in_micrometres_is_converted_for_a_preset_in_metres(data):
    info = inspect(data / "slides" / "CMU-1-Small-Region.svs", slide="s", unit="m")
    assert info.pixel_size == pytest.approx((4.99e-7, 4.99e-7))
    assert (info.unit, info.kind) == ("m", "brightfield")
