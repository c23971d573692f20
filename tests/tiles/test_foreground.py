"""Foreground masks: what counts as worth segmenting."""

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from gigaseg.errors import ConfigError, FormatError, UpstreamFailure
from gigaseg.files import write_failure
from gigaseg.testing import ArraySlide, synthetic_image
from gigaseg.tiles import foreground as module
from gigaseg.tiles.foreground import Foreground, find_foreground

WHITE = (243, 241, 244)
PINK = (225, 150, 190)
INKS = {"blue": (20, 30, 120), "green": (20, 120, 60), "black": (25, 25, 28), "red": (210, 30, 40)}


def glass(height=600, width=800):
    """Bare glass; `section` shows it at 2 µm per pixel."""
    noise = np.random.default_rng(0).normal(0, 2, (height, width, 3))
    return (np.array(WHITE) + noise).clip(0, 255).astype(np.uint8)


def section(image):
    return ArraySlide(image, pixel_size=2.0)


def disc(image, x, y, radius, colour):
    cv2.circle(image, (x, y), radius, colour, -1)
    return image


def at(found, x, y):
    return bool(found.mask[int(y / found.scale[1]), int(x / found.scale[0])])


def test_tissue_is_found_whole_and_little_else():
    image = disc(glass(), 400, 300, 175, PINK)
    found = find_foreground(section(image))
    assert found.method == "tissue"
    assert found.mask.shape == (150, 200)
    y, x = np.mgrid[:150, :200] * 4 + 2
    distance = np.hypot(x - 400, y - 300)
    assert found.mask[distance < 175].all()
    assert not found.mask[distance > 175 + 6 * 4].any()


@pytest.mark.parametrize("colour", [(120, 80, 140), (150, 100, 60), (140, 150, 190), (240, 215, 230)],
                         ids=["dense H&E", "DAB", "haematoxylin alone", "pale fat"])  # fmt: skip
def test_stains_of_all_kinds_are_tissue(colour):
    assert at(find_foreground(section(disc(glass(), 400, 300, 175, colour))), 400, 300)


def test_an_empty_slide_has_no_foreground_and_one_full_of_tissue_nothing_else():
    assert find_foreground(section(glass())).mask.sum() == 0
    full = glass() - (np.array(WHITE) - PINK).astype(np.uint8)
    full[250:350] //= 2
    assert find_foreground(section(full)).mask.all()


@pytest.mark.parametrize("ink", INKS)
def test_pen_marks_on_glass_are_no_tissue(ink):
    image = disc(glass(), 575, 375, 125, PINK)
    cv2.line(image, (50, 75), (375, 125), INKS[ink], 18, cv2.LINE_AA)
    found = find_foreground(section(cv2.GaussianBlur(image, (0, 0), 1)))
    assert found.mask[: 175 // 4].sum() == 0
    assert at(found, 575, 375)


def test_dust_is_no_tissue_and_small_holes_are_filled():
    image = disc(disc(glass(), 550, 300, 200, PINK), 550, 300, 22, WHITE)
    for i in range(12):
        disc(image, 25 + 25 * i, 50 + (i * 9) % 75, 2 + i, (90, 85, 80))
    found = find_foreground(section(image))
    assert not found.mask[:, : 325 // 4].any()
    assert at(found, 550, 300)
    assert not at(find_foreground(section(disc(image, 550, 300, 125, WHITE))), 550, 300)


def test_a_large_black_frame_is_no_tissue():
    image = disc(glass(), 400, 300, 175, PINK)
    image[:, :75] = 0
    found = find_foreground(section(image))
    assert not found.mask[:, : 62 // 4].any()
    assert at(found, 400, 300)


def test_nearly_all_nuclei_of_a_synthetic_slide_lie_in_its_foreground():
    image, labels = synthetic_image((1200, 1400), seed=4)
    found = find_foreground(ArraySlide(image))
    y, x = np.nonzero(labels)
    inside = found.mask[(y / found.scale[1]).astype(int), (x / found.scale[0]).astype(int)]
    assert inside.mean() > 0.98  # the rest: shreds below the minimum area
    assert found.mask.mean() < 0.9


def test_fluorescence_finds_cells_and_an_empty_image_has_none():
    image, labels = synthetic_image((1200, 1400), seed=4, kind="fluorescence")
    found = find_foreground(ArraySlide(image, kind="fluorescence"))
    assert found.method == "fluorescence"
    y, x = np.nonzero(labels)
    assert found.mask[(y / found.scale[1]).astype(int), (x / found.scale[0]).astype(int)].mean() > 0.99
    noise = np.random.default_rng(0).normal(300, 20, (1200, 1400)).astype(np.uint16)
    assert find_foreground(ArraySlide(noise, kind="fluorescence")).mask.sum() == 0
    assert find_foreground(ArraySlide(np.zeros_like(noise), kind="fluorescence")).mask.sum() == 0


def test_dim_cells_beside_bright_ones_are_foreground_in_either_channel():
    image = np.full((1600, 1600, 2), 200, np.uint16)
    image[200:400, 200:400, 0] = 50000
    image[1000:1200, 1000:1200, 1] = 900
    found = find_foreground(ArraySlide(image, kind="fluorescence", rendering=two_colours()))
    assert at(found, 300, 300)
    assert at(found, 1100, 1100)
    assert not at(found, 1100, 300)


def two_colours():
    from gigaseg.slides.base import Rendering

    return Rendering((0, 1), ((0, 60000), (0, 60000)), ((1, 0, 0), (0, 1, 0)))


def test_valid_leaves_out_nodata_nan_and_transparent_pixels():
    raster = np.full((600, 900, 1), 7, np.int16)
    raster[:, :300] = -999
    found = find_foreground(ArraySlide(raster, kind="raster", unit="m", nodata=-999))
    assert found.method == "valid"
    assert found.mask.shape == (341, 512)
    assert found.area_px() == pytest.approx(600 * 600, rel=0.01)

    raster = np.ones((90, 120), np.float32)
    raster[:30] = np.nan
    assert find_foreground(ArraySlide(raster, kind="raster", unit="m")).area_px() == 60 * 120
    assert find_foreground(ArraySlide(np.ones((90, 120), np.uint8), kind="raster", unit="m")).area_px() == 90 * 120


def test_all_is_everything_and_an_unknown_method_is_refused():
    slide = ArraySlide(glass(300, 400))
    assert find_foreground(slide, "all").area_px() == pytest.approx(300 * 400)
    with pytest.raises(ConfigError, match=r"unknown method 'tisue'; accepted: auto, tissue.*did you mean 'tissue'"):
        find_foreground(slide, "tisue")


def test_reading_in_strips_changes_nothing(monkeypatch):
    image, _ = synthetic_image((1111, 1307), seed=2)
    whole = find_foreground(ArraySlide(image))
    monkeypatch.setattr(module, "_STRIP_BYTES", 200_000)
    assert np.array_equal(find_foreground(ArraySlide(image)).mask, whole.mask)


@given(
    st.integers(0, 9), st.floats(-40, 60), st.floats(-40, 60), st.floats(0.1, 80), st.floats(0.1, 80)
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_fraction_is_exact_for_any_rectangle(seed, x, y, width, height):
    mask = np.random.default_rng(seed).random((11, 22)) < 0.5
    found = Foreground(mask, (2.0, 3.0), "all")
    cols = [max(0, min(x + width, 2 * i + 2) - max(x, 2 * i)) for i in range(22)]
    rows = [max(0, min(y + height, 3 * i + 3) - max(y, 3 * i)) for i in range(11)]
    expected = (np.outer(rows, cols) * mask).sum() / (width * height)
    assert found.fraction(np.array([[x, y, x + width, y + height]]))[0] == pytest.approx(expected, abs=1e-5)


def test_fraction_counts_what_lies_outside_as_area_and_takes_no_rectangles():
    found = Foreground(np.ones((10, 10), bool), (1.0, 1.0), "all")
    assert found.fraction(np.array([[-5, 0, 5, 10], [20, 20, 30, 30], [3, 3, 3, 9]])).tolist() == [0.5, 0, 0]
    assert found.fraction(np.empty((0, 4))).shape == (0,)


def test_a_written_mask_reads_back_and_is_reproducible(tmp_path):
    found = Foreground(np.random.default_rng(0).random((11, 22)) < 0.5, (16.1, 15.9), "tissue")
    for name in ("a.tif", "b.tif"):
        found.write(tmp_path / name, digest="abc")
    again = Foreground.read(tmp_path / "a.tif")
    assert np.array_equal(again.mask, found.mask)
    assert (again.scale, again.method) == (found.scale, found.method)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_foreign_partial_and_failed_files_are_told_apart(tmp_path):
    path = tmp_path / "foreground.tif"
    with pytest.raises(FormatError, match=r"foreground\.tif"):
        Foreground.read(path)
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8))
    with pytest.raises(FormatError, match="expected 'gigaseg/foreground/1'"):
        Foreground.read(path)
    Foreground(np.ones((300, 300), bool), (1.0, 1.0), "all").write(path)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(FormatError, match=r"foreground\.tif"):
        Foreground.read(path)
    write_failure(path, "inspect", "no such file")
    with pytest.raises(UpstreamFailure, match="no such file"):
        Foreground.read(path)


def test_the_tissue_of_a_real_section_is_found_and_its_glass_is_not(data):
    import tiffslide

    with tiffslide.TiffSlide(data / "slides" / "CMU-1-Small-Region.svs") as file:
        image = np.asarray(file.read_region((0, 0), 0, file.dimensions).convert("RGB"))
    found = find_foreground(ArraySlide(image, pixel_size=0.499))
    assert 0.40 < found.mask.mean() < 0.53
    for x, y in [(1000, 1500), (1200, 2300), (300, 1080), (1450, 500), (1150, 150)]:
        assert at(found, x, y)
    for x, y in [(300, 300), (200, 2000), (2000, 1500), (2080, 610), (20, 90)]:
        assert not at(found, x, y)
