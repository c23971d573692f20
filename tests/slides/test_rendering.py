from dataclasses import replace

import numpy as np
import pytest

from gigaseg.errors import SlideError
from gigaseg.slides.rendering import choose_channels, find_kind, make_rendering
from gigaseg.slides.source import Facts, levels_from_sizes


def facts(channels=("a",), dtype="uint8", **changes) -> Facts:
    return Facts("v", levels_from_sizes([(100, 100)]), tuple(channels), dtype, **changes)


RGB = facts(("red", "green", "blue"), rgb=(0, 1, 2), pixel_size=(0.5, 0.5))


def noise(mean, shape=(100, 100, 3), dtype="uint8", seed=0):
    return np.clip(np.random.default_rng(seed).normal(mean, 3, shape), 0, None).astype(dtype)


def test_light_on_dark_is_fluorescence_and_dark_on_light_brightfield():
    dark = noise(8)
    dark[40:60, 40:60] = 220
    assert find_kind(RGB, "um", dark, (255, 255, 255)) == "fluorescence"
    assert find_kind(RGB, "um", 255 - dark, (255, 255, 255)) == "brightfield"


def test_the_scanners_empty_background_does_not_decide_the_kind():
    dark = noise(8)
    dark[:90] = 255
    assert find_kind(RGB, "um", dark, (255, 255, 255)) == "fluorescence"
    all_white = np.full((50, 50, 3), 255, np.uint8)
    assert find_kind(RGB, "um", all_white, (255, 255, 255)) == "brightfield"


def test_16_bit_brightness_is_judged_by_its_own_range():
    bright = noise(900, dtype="uint16")
    wide = replace(RGB, dtype="uint16")
    assert find_kind(wide, "um", bright, (65535,) * 3) == "brightfield"
    dim = noise(40, dtype="uint16")
    dim[:5] = 900
    assert find_kind(wide, "um", dim, (65535,) * 3) == "fluorescence"


def test_metadata_goes_before_brightness():
    assert find_kind(replace(RGB, fluorescence=False), "um", noise(8), (0, 0, 0)) == "brightfield"
    assert find_kind(replace(RGB, fluorescence=True), "um", noise(200), (0, 0, 0)) == "fluorescence"
    assert find_kind(replace(RGB, georeferenced=True), "um", noise(200), (0, 0, 0)) == "raster"


def test_a_plain_picture_is_a_raster_under_a_preset_in_metres():
    plain = replace(RGB, pixel_size=None)
    assert find_kind(plain, "m", noise(200), (255,) * 3) == "raster"
    assert find_kind(RGB, "m", noise(200), (255,) * 3) == "brightfield"


def test_fluorescence_limits_are_percentiles_of_what_was_scanned():
    overview = noise(100, (100, 100, 1), "uint16")
    overview[:30] = 0  # never scanned
    overview[90:] = 5000
    rendering = make_rendering(facts(dtype="uint16"), "fluorescence", (0,), overview, None)
    ((low, high),) = rendering.limits
    assert 85 < low < 97
    assert high == 5000
    assert rendering.colors is None


def test_an_empty_fluorescence_slide_is_not_stretched_to_noise():
    rendering = make_rendering(facts(dtype="uint16"), "fluorescence", (0,), noise(100, (100, 100, 1), "uint16"), None)
    assert rendering.rgb(noise(100, (50, 50, 1), "uint16")).max() < 40


def test_rgb_fluorescence_stays_as_it_is_unless_channels_are_chosen():
    overview = noise(8)
    overview[:10, :, 2] = 200
    assert make_rendering(RGB, "fluorescence", (0, 1, 2), overview, None).limits is None
    blue = make_rendering(RGB, "fluorescence", (2,), overview, None)
    assert blue.limits[0][1] == 200
    assert blue.rgb(overview)[:10].min() >= 254


def test_several_channels_get_distinct_colours():
    names = [f"c{i}" for i in range(5)]
    rendering = make_rendering(facts(names, "uint16"), "fluorescence", (0, 1, 2, 3, 4), noise(9, (50, 50, 5)), None)
    assert len(set(rendering.colors)) == 5
    assert rendering.colors[0] == (0, 0, 1)


def test_of_many_channels_the_nuclear_stains_are_used(caplog):
    many = facts([f"CD{i}" for i in range(8)] + ["DAPI 1", "Hoechst"], "uint16")
    assert choose_channels("s", many, "fluorescence", None) == (8, 9)
    assert "pictures and models see DAPI 1, Hoechst" in caplog.text
    unnamed = facts([f"CD{i}" for i in range(8)], "uint16")
    assert choose_channels("s", unnamed, "fluorescence", None) == (0, 1, 2)


def test_channels_by_name_number_and_case():
    stains = facts(("DAPI", "CD3", "2"), "uint16")
    assert choose_channels("s", stains, "fluorescence", ["cd3", "1"]) == (1, 0)
    assert choose_channels("s", stains, "fluorescence", ["2"]) == (2,)  # a name goes before a number
    with pytest.raises(SlideError, match=r"^s: unknown channel 'CD33'; .*did you mean 'CD3'"):
        choose_channels("s", stains, "fluorescence", ["CD33"])
    with pytest.raises(SlideError, match="unknown channel '0'"):
        choose_channels("s", stains, "fluorescence", ["0"])
    with pytest.raises(SlideError, match="2 channels for a brightfield slide"):
        choose_channels("s", RGB, "brightfield", ["red", "blue"])


def test_8_bit_brightfield_and_rasters_are_taken_as_they_are():
    assert make_rendering(RGB, "brightfield", (0, 1, 2), noise(200), None).limits is None
    assert make_rendering(facts(), "raster", (0,), noise(100, (50, 50, 1)), 0).limits is None
