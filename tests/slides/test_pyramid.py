"""Choice of the level, geometry to a hundredth of a pixel, and background, on sources that compute their pixels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigaseg.errors import SlideError
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.base import Rendering, SlideInfo
from gigaseg.slides.pyramid import PyramidSlide, best_level
from gigaseg.slides.source import Facts, Source, levels_from_sizes


class RampSource(Source):
    """Channel 0 is x, channel 1 is y of the pixel's centre in level-0 px, at every level; nothing is stored."""

    def __init__(self, sizes: Sequence[tuple[int, int]], dtype: str = "float32") -> None:
        self.facts = Facts("ramp", levels_from_sizes(sizes), ("x", "y"), dtype)
        self.background = (-1.0, -1.0)
        self.largest = 0

    def read_level(self, level, x, y, width, height, channels):
        info = self.facts.levels[level]
        assert 0 <= x <= x + width <= info.width
        assert 0 <= y <= y + height <= info.height
        self.largest = max(self.largest, width * height)
        xs = np.broadcast_to((np.arange(x, x + width) + 0.5) * info.downsample_x, (height, width))
        ys = np.broadcast_to(((np.arange(y, y + height) + 0.5) * info.downsample_y)[:, None], (height, width))
        return np.stack([(xs, ys)[channel] for channel in channels], axis=-1).astype(self.facts.dtype)

    def close(self):
        pass


def slide_of(source: Source, **changes) -> PyramidSlide:
    facts = source.facts
    info = SlideInfo(
        slide="s", path="s.tif", kind="brightfield", reader="ramp", vendor="", width=facts.levels[0].width,
        height=facts.levels[0].height, levels=facts.levels, channels=facts.channels, dtype=facts.dtype,
        background=source.background, rendering=Rendering((0,)), pixel_size=(1.0, 1.0), pixel_size_source="sheet",
        unit="um", crs=None, transform=None, nodata=None, bounds=None, objective_power=None, fingerprint="",
    )  # fmt: skip
    return PyramidSlide(replace(info, **changes), source)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(0.5, 0), (1, 0), (1.9, 0), (2, 1), (3.99, 2), (4, 2), (4.0003, 2), (7.8, 2), (8, 3), (100, 3)],
)
def test_the_best_level_is_the_coarsest_not_coarser_than_asked_for(scale, expected):
    levels = levels_from_sizes([(5477, 5154), (2738, 2577), (1369, 1288), (684, 644)])
    assert best_level(levels, scale, scale) == expected


def test_the_finer_axis_decides_on_the_level():
    levels = levels_from_sizes([(800, 800), (400, 400), (200, 200)])
    assert best_level(levels, 4, 2) == 1
    assert best_level(levels, 1, 4) == 0


@settings(max_examples=150, deadline=None)
@given(
    x=st.floats(0, 300), y=st.floats(0, 300), scale_x=st.floats(0.3, 30), scale_y=st.floats(0.3, 30),
    width=st.integers(1, 33), height=st.integers(1, 33),
)  # fmt: skip
def test_pixels_are_centred_where_the_frames_say(x, y, scale_x, scale_y, width, height):
    slide = slide_of(RampSource([(2001, 1803), (1000, 901), (500, 450), (125, 112)]))
    bounds = Bounds(x, y, x + width * scale_x, y + height * scale_y)
    found = slide.read(bounds, Shape2d(height, width))
    centres_x = x + (np.arange(width) + 0.5) * scale_x
    centres_y = y + (np.arange(height) + 0.5) * scale_y
    # within a filter's reach of the rim the last pixels are repeated, so compare inside
    inside_x = (centres_x > 2 * scale_x + 9) & (centres_x < 2001 - 2 * scale_x - 9)
    inside_y = (centres_y > 2 * scale_y + 9) & (centres_y < 1803 - 2 * scale_y - 9)
    error_x = (found[..., 0] - centres_x)[inside_y][:, inside_x] / scale_x
    error_y = (found[..., 1] - centres_y[:, None])[inside_y][:, inside_x] / scale_y
    # 0.06 px is what a scaled triangle filter may miss a ramp by between the ratios 1 and 1.5; 0.01 enlarged
    assert np.abs(error_x).max(initial=0) < 0.08
    assert np.abs(error_y).max(initial=0) < 0.08


def test_a_centre_outside_is_background_and_never_mixes():
    slide = slide_of(RampSource([(100, 90)]))
    found = slide.read(Bounds(-10, -10, 110, 110), Shape2d(24, 24))  # 5 px per pixel
    inside = np.zeros((24, 24), dtype=bool)
    inside[2:20, 2:22] = True
    assert (found[~inside] == -1).all()
    assert (found[inside] > 0).all()


def test_a_level_without_pyramid_is_read_in_bounded_pieces():
    source = RampSource([(9000, 500)])
    found = slide_of(source).read(Bounds(0, 0, 9000, 500), Shape2d(25, 450))
    assert source.largest < 5000 * 500
    np.testing.assert_allclose(found[12, 1:-1, 0], (np.arange(1, 449) + 0.5) * 20, rtol=1e-4)
    np.testing.assert_allclose(found[1:-1, 30, 1], (np.arange(1, 24) + 0.5) * 20, rtol=1e-4)


def test_levels_with_fractional_downsample_come_back_whole():
    source = RampSource([(1369, 1289), (684, 644), (342, 322), (171, 161)])
    slide = slide_of(source)
    for index, level in enumerate(source.facts.levels):
        found = slide.read(Bounds(0, 0, 1369, 1289), Shape2d(level.height, level.width))
        expected = source.read_level(index, 0, 0, level.width, level.height, (0, 1))
        np.testing.assert_array_equal(found, expected)


def test_a_decoder_error_names_the_file_and_the_place():
    class Broken(RampSource):
        def read_level(self, *arguments):
            raise RuntimeError("bad\nHuffman code")

    slide = slide_of(Broken([(100, 100)]))
    with pytest.raises(SlideError, match=r"^s\.tif: .*level 0, x 3\.\.13, y 4\.\.14 .*bad Huffman code") as caught:
        slide.read(Bounds(3, 4, 13, 14), Shape2d(10, 10))
    assert "\n" not in str(caught.value)
