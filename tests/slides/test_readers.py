"""What holds for every reader: one body, run for each."""

import json

import numpy as np
import pytest

from gigaseg.errors import SlideError
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.base import SlideInfo
from gigaseg.slides.inspect import header, inspect
from gigaseg.slides.registry import READERS, open_slide

WIDTH, HEIGHT = 703, 501


@pytest.fixture
def slide(written):
    opened = open_slide(inspect(written.path, **written.arguments))
    yield opened
    opened.close()


def ramp(start: float, step: float, count: int, extent: int) -> np.ndarray:
    """Value of the picture's ramp at the centres of `count` pixels of `step` level-0 px from `start` on."""
    return 40 + (start + (np.arange(count) + 0.5) * step) * 200 / extent


def test_a_rectangle_of_level_0_comes_back_pixel_by_pixel(slide, picture):
    found = slide.read(Bounds(13, 57, 13 + 222, 57 + 111), Shape2d(111, 222))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, picture[57:168, 13:235])


def test_reading_beyond_the_border_fills_with_background(slide, picture):
    found = slide.read(Bounds(-30, -20, 40, 50), Shape2d(70, 70))
    np.testing.assert_array_equal(found[20:, 30:], picture[:50, :40])
    background = np.asarray(slide.info.background)
    assert (found[:20] == background).all()
    assert (found[:, :30] == background).all()
    found = slide.read(Bounds(690, 490, 721, 509), Shape2d(19, 31))
    np.testing.assert_array_equal(found[:11, :13], picture[490:, 690:])
    assert (found[11:] == background).all()
    assert (found[:, 13:] == background).all()


@pytest.mark.parametrize("bounds", [(-90, -90, -10, -10), (703, 0, 803, 100), (0, 1e6, 50, 1e6 + 50)])
def test_a_rectangle_wholly_outside_is_background(slide, bounds):
    for shape in (Shape2d(10, 10), Shape2d(37, 23)):
        found = slide.read(Bounds(*bounds), shape)
        assert (found == np.asarray(slide.info.background)).all()


def test_the_pixels_of_each_level_come_back_untouched_and_unshifted(slide, written):
    assert len(slide.info.levels) == len(written.levels)
    for level, expected in zip(slide.info.levels, written.levels):
        assert (level.height, level.width) == expected.shape[:2]
        x, y, w, h = 41, 23, 64, 57
        bounds = Bounds(x, y, x + w, y + h).scaled(level.downsample_x, level.downsample_y)
        found = slide.read(bounds, Shape2d(h, w))
        np.testing.assert_array_equal(found, expected[y : y + h, x : x + w])


@pytest.mark.parametrize(
    ("bounds", "shape"),
    [
        ((90, 60, 90 + 83 * 6.3, 60 + 61 * 6.3), (61, 83)),
        ((10.3, 20.7, 10.3 + 50 * 1.37, 20.7 + 61 * 1.37), (61, 50)),
        ((33.5, 41.25, 33.5 + 40 * 3.1, 41.25 + 20 * 3.1), (20, 40)),
        ((50.2, 60.9, 50.2 + 90 * 0.4, 60.9 + 33 * 0.4), (33, 90)),
        ((80, 16, 80 + 31 * 4, 16 + 29 * 9), (29, 31)),
        ((16, 16, 16 + 100 * 4.0003, 16 + 100 * 4.0003), (100, 100)),
    ],
    ids=["6.3x", "1.37x", "3.1x", "enlarged", "anisotropic", "4.0003x"],
)
def test_pixels_lie_where_their_centres_are(slide, bounds, shape):
    bounds, shape = Bounds(*bounds), Shape2d(*shape)
    found = slide.read(bounds, shape).astype(float)
    across = found[..., 0] - ramp(bounds.xmin, bounds.width / shape.width, shape.width, WIDTH)
    down = found[..., 1] - ramp(bounds.ymin, bounds.height / shape.height, shape.height, HEIGHT)[:, None]
    for error in (across, down):
        assert np.abs(error).mean() < 0.5
        # half a pixel of the 4x level would be 0.6 along x, 0.8 along y; levels and result are rounded to uint8
        assert abs(error.mean()) < 0.3


@pytest.mark.parametrize("scale", [1.0, 1.3, 2.0, 2.7, 6.5])
def test_overlapping_requests_agree_in_their_common_pixels(slide, scale):
    first = slide.read(Bounds(0, 0, 64 * scale, 64 * scale), Shape2d(64, 64)).astype(int)
    x, y = 24 * scale, 40 * scale
    second = slide.read(Bounds(x, y, x + 64 * scale, y + 64 * scale), Shape2d(64, 64)).astype(int)
    assert np.abs(first[40:, 24:] - second[:24, :40]).max() <= 1


def test_an_odd_shape_is_not_transposed(slide, picture):
    found = slide.read(Bounds(100, 60, 111, 82), Shape2d(22, 11))
    np.testing.assert_array_equal(found, picture[60:82, 100:111])
    assert slide.read(Bounds(100, 60, 100 + 11 * 5, 60 + 22 * 5), Shape2d(22, 11)).shape == (22, 11, 3)


def test_shrinking_does_not_alias(slide):
    # blue is white noise between 100 and 255: an average over 12 x 12 px must be near its mean
    found = slide.read(Bounds(0, 0, 55 * 12, 40 * 12), Shape2d(40, 55)).astype(float)[..., 2]
    assert found.std() < 10
    assert abs(found.mean() - 177.5) < 2


def test_channels_are_read_in_the_order_asked_for(slide, picture):
    found = slide.read(Bounds(5, 6, 45, 36), Shape2d(30, 40), channels=(2, 0))
    np.testing.assert_array_equal(found, picture[6:36, 5:45][..., [2, 0]])
    whole = slide.read(Bounds(5, 6, 45, 36), Shape2d(15, 20))
    np.testing.assert_array_equal(slide.read(Bounds(5, 6, 45, 36), Shape2d(15, 20), channels=(1,)), whole[..., 1:2])


def test_impossible_requests_are_refused(slide):
    with pytest.raises(ValueError, match="positive extent"):
        slide.read(Bounds(0, 0, 0, 10), Shape2d(10, 10))
    with pytest.raises(ValueError, match=r"not all in 0\.\.2"):
        slide.read(Bounds(0, 0, 10, 10), Shape2d(10, 10), channels=(3,))


def test_a_slide_reopened_from_its_json_gives_the_same_pixels(written, slide, tmp_path):
    slide.info.write(tmp_path / "slide.json")
    info = SlideInfo.read(tmp_path / "slide.json")
    assert info == slide.info
    json.loads((tmp_path / "slide.json").read_text())
    again = open_slide(info)
    bounds, shape = Bounds(7, 9, 307, 209), Shape2d(77, 111)
    np.testing.assert_array_equal(again.read(bounds, shape), slide.read(bounds, shape))
    again.close()


def test_the_header_says_what_inspect_says(written, slide):
    arguments = {key: value for key, value in written.arguments.items() if key != "slide"}
    found = header(written.path, **arguments)
    info = slide.info
    assert found == type(found)(info.width, info.height, info.pixel_size, info.unit, info.levels)


def test_pixel_size_and_kind_are_found(written, slide):
    assert slide.info.pixel_size == pytest.approx((0.5, 0.5), rel=1e-3)
    assert slide.info.kind == ("raster" if slide.info.reader == "rasterio" else "brightfield")
    assert slide.info.channels == ("red", "green", "blue")
    assert slide.info.rendering.channels == (0, 1, 2)
    assert slide.info.rendering.limits is None


def test_auto_chooses_the_reader_meant_for_the_file(write_for):
    chosen = {}
    for reader in READERS:
        case = write_for(reader)
        chosen[reader] = inspect(case.path, **{**case.arguments, "reader": "auto"}).reader
    assert chosen == {
        "rasterio": "rasterio",
        "tiffslide": "tiffslide",
        "openslide": "tiffslide",
        "tifffile": "tifffile",
        "pillow": "pillow",
    }


def test_a_file_changed_since_inspect_must_be_inspected_again(tmp_path, write_for):
    path = tmp_path / "picture.png"
    path.write_bytes(write_for("pillow").path.read_bytes())
    info = inspect(path, slide="s", pixel_size=1)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SlideError, match=r"picture\.png: the file has changed since inspect; run inspect again"):
        open_slide(info)
    path.unlink()
    with pytest.raises(SlideError, match="no such file"):
        open_slide(info)
