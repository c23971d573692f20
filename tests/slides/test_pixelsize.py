import math

import pytest

from gigaseg.errors import SlideError
from gigaseg.slides.pixelsize import plausible_scan, resolve_pixel_size, scanner_pixel_size
from gigaseg.slides.source import Facts, levels_from_sizes


def facts(**changes) -> Facts:
    return Facts("v", levels_from_sizes([(10, 10)]), ("grey",), "uint8", **changes)


def test_the_sheet_goes_before_metadata_and_metadata_before_the_objective():
    both = facts(pixel_size=(0.25, 0.26), objective_power=20)
    assert resolve_pixel_size("s", both, "um", 0.3) == ((0.3, 0.3), "um", "sheet")
    assert resolve_pixel_size("s", both, "um", " 0.3 ") == ((0.3, 0.3), "um", "sheet")
    assert resolve_pixel_size("s", both, "um", "px") == ((1, 1), "px", "sheet")
    assert resolve_pixel_size("s", both, "um", None) == ((0.25, 0.26), "um", "metadata")
    assert resolve_pixel_size("s", facts(objective_power=40), "um", None) == ((0.25, 0.25), "um", "objective")


def test_units_are_converted_both_ways():
    size, unit, _ = resolve_pixel_size("s", facts(pixel_size=(0.5, 0.5)), "m", None)
    assert (size, unit) == (pytest.approx((5e-7, 5e-7)), "m")
    size, unit, _ = resolve_pixel_size("s", facts(pixel_size=(0.3, 0.4), unit="m"), "um", None)
    assert (size, unit) == (pytest.approx((3e5, 4e5)), "um")
    size, _, _ = resolve_pixel_size("s", facts(objective_power=10), "m", None)
    assert size == pytest.approx((1e-6, 1e-6))


@pytest.mark.parametrize("value", [0, -0.25, math.nan, math.inf, 1e-4, 2e9, "nan", "half"])
def test_absurd_sizes_in_the_sheet_are_errors_that_name_the_value(value):
    with pytest.raises(SlideError, match=r"^s\.svs: column 'pixel_size'.* between 1 nm and 1 km") as caught:
        resolve_pixel_size("s.svs", facts(pixel_size=(0.25, 0.25)), "um", value)
    assert repr(value) in str(caught.value)
    assert "or px to work in pixels" in str(caught.value)


@pytest.mark.parametrize("size", [(0.0, 0.25), (math.nan, 0.25), (0.25, -1.0), (math.inf, math.inf), (1e10, 1.0)])
def test_absurd_sizes_in_the_metadata_are_errors_too(size):
    with pytest.raises(SlideError, match="its metadata: pixel size must be a number between") as caught:
        resolve_pixel_size("s.svs", facts(pixel_size=size, objective_power=20), "um", None)
    assert f"found {size[0]:g} x {size[1]:g} um" in str(caught.value)


def test_an_unknown_size_says_how_to_give_it():
    with pytest.raises(SlideError) as caught:
        resolve_pixel_size("a/s.tif", facts(), "um", None)
    assert str(caught.value) == (
        "a/s.tif: pixel size unknown: its metadata has none, nor an objective power; give it in the sheet's column "
        "'pixel_size' (in um per pixel, or px to work in pixels)"
    )


def test_an_unknown_unit_is_an_error():
    with pytest.raises(SlideError, match="unit is 'mm', accepted: um, m"):
        resolve_pixel_size("s", facts(), "mm", 1)


@pytest.mark.parametrize(
    ("um", "expected"),
    [(0.25, True), (0.5, True), (4.0, True), (25400 / 72, False), (25400 / 300, False), (150.0, False),
     (0.0, False), (math.nan, False), (25400 / 330, True), (29.0, True)],
)  # fmt: skip
def test_only_a_scanners_resolution_counts(um, expected):
    assert plausible_scan(um, um) is expected


def test_text_of_a_library_becomes_numbers_and_nonsense_nan():
    assert scanner_pixel_size("0.25", "0.26", generic_tiff=False) == ((0.25, 0.26), "")
    assert scanner_pixel_size(None, "0.26", generic_tiff=False)[0] is None
    size, _ = scanner_pixel_size("?", 0.2, generic_tiff=False)
    assert math.isnan(size[0])
    assert scanner_pixel_size(25400 / 96, 25400 / 96, generic_tiff=True)[0] is None
