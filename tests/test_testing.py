"""Synthetic label images and slides: their truth is what the other tests rely on."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gigaseg.errors import ConfigError
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.testing import LABEL_KINDS, ArraySlide, label_image, synthetic_image, synthetic_slide

EIGHT = np.ones((3, 3))


@pytest.mark.parametrize("kind", LABEL_KINDS)
@settings(max_examples=15, deadline=None)
@given(shape=st.tuples(st.integers(1, 90), st.integers(1, 90)), seed=st.integers(0, 2**31))
def test_every_label_is_one_8_connected_object_and_none_is_skipped(kind, shape, seed):
    labels = label_image(kind, shape, seed)
    assert labels.shape == shape
    assert labels.dtype == np.uint32
    assert sorted(set(labels.ravel()) - {0}) == list(range(1, labels.max() + 1))
    for label, box in enumerate(ndimage.find_objects(labels.astype(int)), start=1):
        assert ndimage.label(labels[box] == label, EIGHT)[1] == 1
    assert np.array_equal(labels, label_image(kind, shape, seed))


def test_each_kind_shows_what_its_name_says():
    images = {kind: label_image(kind, (200, 200), 3) for kind in LABEL_KINDS}
    extents = {
        kind: max(max(s.stop - s.start for s in box) for box in ndimage.find_objects(image.astype(int)))
        for kind, image in images.items()
    }
    assert extents["nuclei"] <= 50
    assert extents["fibres"] > 100
    assert extents["giants"] > 90
    assert (images["crowd"] > 0).all()
    assert images["nuclei"].max() > 50
    for kind in ("buildings", "porous"):
        holed = (images[kind] == i for i in range(1, images[kind].max() + 1))
        assert any((ndimage.binary_fill_holes(one) & ~one).sum() > 4 for one in holed), kind


def test_unknown_kind_of_label_image_lists_the_accepted_ones():
    with pytest.raises(ConfigError, match=r"'nucle'; accepted: nuclei, fibres, .*did you mean 'nuclei'"):
        label_image("nucle", (10, 10), 0)


def test_array_slide_gives_back_its_own_pixels_and_background_around_them():
    array = np.arange(22 * 11 * 3, dtype=np.uint8).reshape(22, 11, 3)
    slide = ArraySlide(array)
    assert np.array_equal(slide.read(Bounds(0, 0, 11, 22), Shape2d(22, 11)), array)
    shifted = slide.read(Bounds(-2, -3, 13, 22), Shape2d(25, 15), [1])
    assert np.array_equal(shifted[3:, 2:13, 0], array[..., 1])
    assert (shifted[:3] == 255).all()
    assert (shifted[:, 13:] == 255).all()
    assert (slide.read(Bounds(100, 100, 107, 103), Shape2d(2, 3)) == 255).all()


@given(
    x=st.floats(-15, 30),
    y=st.floats(-15, 30),
    width=st.floats(0.3, 40),
    height=st.floats(0.3, 40),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_array_slide_averages_exactly_over_the_area_it_is_asked_for(x, y, width, height, seed):
    array = np.random.default_rng(seed).random((13, 17))
    slide = ArraySlide(array, kind="raster", background=0.25)
    value = slide.read(Bounds(x, y, x + width, y + height), Shape2d(1, 1))[0, 0, 0]
    cols = [max(0, min(x + width, i + 1) - max(x, i)) for i in range(17)]
    rows = [max(0, min(y + height, i + 1) - max(y, i)) for i in range(13)]
    inside = np.outer(rows, cols)
    expected = ((array - 0.25) * inside).sum() / (width * height) + 0.25
    assert value == pytest.approx(expected, abs=1e-9)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return synthetic_slide(tmp_path_factory.mktemp("slide") / "small.tif", width=1500, height=1100, seed=5)


def test_openslide_and_tiffslide_open_the_synthetic_slide_alike(small):
    import openslide
    import tiffslide

    with openslide.OpenSlide(small.slide) as one, tiffslide.TiffSlide(small.slide) as other:
        assert one.level_dimensions == other.level_dimensions == ((1500, 1100), (375, 275))
        assert float(one.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert other.properties["tiffslide.mpp-y"] == pytest.approx(0.5)
        for level in (0, 1):
            box = (100, 200), level, (200, 150)
            pixels = [np.asarray(slide.read_region(*box).convert("RGB"), int) for slide in (one, other)]
            assert np.array_equal(*pixels)


def test_labels_and_outlines_of_a_slide_tell_of_the_same_nuclei(small):
    labels = small.read_labels()
    features = json.loads(small.outlines.read_text())["features"]
    assert labels.shape == (1100, 1500)
    assert len(features) == small.count > 200
    areas = np.bincount(labels.ravel(), minlength=small.count + 1)[1:]
    assert (areas > 0).all()
    whole = 0
    for feature in features:
        x, y = np.array(feature["geometry"]["coordinates"][0]).T
        assert (x[0], y[0]) == (x[-1], y[-1])
        if x.min() > 2 and x.max() < 1498 and y.min() > 2 and y.max() < 1098:
            outline_area = abs(np.dot(x[1:], y[:-1]) - np.dot(x[:-1], y[1:])) / 2
            whole += 0.8 < areas[feature["id"] - 1] / outline_area < 1.2
    assert whole > 0.9 * small.count  # the rest are overlapped by a neighbour


def test_nuclei_are_darker_and_bluer_than_what_surrounds_them(small):
    image = tifffile.imread(small.slide).astype(float)
    nuclei = small.read_labels() > 0
    ring = ndimage.binary_dilation(nuclei, iterations=8) & ~ndimage.binary_dilation(nuclei, iterations=3)
    inside, outside = image[nuclei].mean(0), image[ring].mean(0)
    assert inside[0] < outside[0] - 40
    assert inside[2] - inside[0] > outside[2] - outside[0]
    corner = image[:40, :40]
    assert corner.min() > 215


def test_the_same_seed_gives_the_same_file_and_another_seed_another(tmp_path):
    def write(name, seed):
        return synthetic_slide(tmp_path / name, width=600, height=500, seed=seed)

    first, again, other = write("a.tif", 1), write("b.tif", 1), write("c.tif", 2)
    assert first.slide.read_bytes() == again.slide.read_bytes()
    assert np.array_equal(first.read_labels(), again.read_labels())
    assert not np.array_equal(first.read_labels(), other.read_labels())


def test_nuclei_can_be_limited_and_fluorescence_has_one_wide_channel(tmp_path):
    truth = synthetic_slide(tmp_path / "f.tif", width=700, height=520, kind="fluorescence", nuclei=30)
    image, labels = tifffile.imread(truth.slide, key=0), truth.read_labels()
    assert truth.count == len(np.unique(labels)) - 1 == 30
    assert image.dtype == np.uint16
    assert image.shape == (520, 700)
    assert np.median(image[labels > 0]) > 3 * np.median(image[labels == 0])


def test_an_image_in_memory_agrees_with_the_slide(small):
    image, labels = synthetic_image((1100, 1500), seed=5)
    assert np.array_equal(labels, small.read_labels())
    assert np.abs(image.astype(int) - tifffile.imread(small.slide)).mean() < 4  # JPEG


def test_impossible_slides_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="accepted: brightfield, fluorescence"):
        synthetic_slide(tmp_path / "a.tif", kind="raster")
    with pytest.raises(ConfigError, match="at least 64 px"):
        synthetic_slide(tmp_path / "a.tif", width=10)


def test_importing_the_module_is_light():
    code = "import sys, gigaseg.testing; print(*(m in sys.modules for m in ('torch', 'skimage', 'tifffile', 'cv2')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 4
