"""Pixels of instances are the right ones, each once, wherever blocks are cut."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2hed
from skimage.feature import graycomatrix, graycoprops

from gigaseg.config import MeasureConfig
from gigaseg.instances.polygons import polygons_from_labels
from gigaseg.measure.channels import channels_of
from gigaseg.measure.measure import measure
from gigaseg.measure.runs import pixel_runs
from gigaseg.measure.sweep import Joiner, Statistics, measure_pixels
from gigaseg.measure.texture import PAIRS, haralick
from gigaseg.slides.base import Rendering
from gigaseg.testing.array_slide import ArraySlide
from gigaseg.testing.labels import LABEL_KINDS, label_image
from gigaseg.tiles.tiling import Tiling

QUANTILES = (0.1, 0.5, 1.0)


def sweep(image, labels, block, texture=False, window=10_000, order=None, **slide):
    """Measurements by column of the instances of a label image, measured in windows of `window` blocks along a side."""
    source = ArraySlide(image, **slide)
    tiling = Tiling(64, 0, labels.shape[1], labels.shape[0], (1.0, 1.0), (1.0, 1.0), "px")
    statistics = Statistics(channels_of(source.info), QUANTILES, texture)
    _, geometry = polygons_from_labels(labels)
    order = np.arange(len(geometry)) if order is None else order
    values, joiner = np.full((len(geometry), len(statistics.columns)), np.nan), Joiner(statistics)
    for ahead, part in enumerate(windows_of(labels.shape, window * block)):
        found = measure_pixels(source, tiling, statistics, geometry[order], part, block, ahead=bool(ahead % 2))
        values[found.index] = found.values
        index, joined = joiner.add(found.cut, found.sums, found.last)
        values[index] = joined
    return {name: values[np.argsort(order), i] for i, name in enumerate(statistics.columns)}


def windows_of(shape, side):
    height, width = shape
    return [
        (x, y, min(x + side, width), min(y + side, height))
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LABEL_KINDS), st.integers(0, 10**6), st.integers(1, 90), st.integers(1, 90), st.integers(0, 40))
def test_runs_of_pixel_outlines_are_the_label_image_again(kind, seed, height, width, top):
    labels = label_image(kind, (height, width), seed)
    ids, geometry = polygons_from_labels(labels)
    top = min(top, height - 1)
    runs = pixel_runs(geometry, top, height, width)
    place, owner = runs.pixels(0, top, width)
    again = np.zeros((height - top) * width, labels.dtype)
    again[place] = ids[owner] if len(ids) else 0
    assert len(np.unique(place)) == len(place) == np.count_nonzero(labels[top:])
    assert np.array_equal(again.reshape(-1, width), labels[top:])


def test_a_free_outline_covers_the_pixels_whose_centres_lie_in_it():
    rng = np.random.default_rng(0)
    shapes = [shapely.Point(*rng.uniform(-5, 65, 2)).buffer(r) for r in rng.uniform(0.2, 20, 40)]
    shapes.append(shapely.Point(30, 30).buffer(20).difference(shapely.Point(33, 28).buffer(8)))
    geometry = np.array(shapes)
    place, owner = pixel_runs(geometry, 0, 60, 60).pixels(0, 0, 60)
    x, y = np.meshgrid(np.arange(60) + 0.5, np.arange(60) + 0.5)
    for i, shape in enumerate(geometry):
        expected = np.flatnonzero(shapely.contains_xy(shape, x, y))
        assert np.array_equal(np.sort(place[owner == i]), expected)


@pytest.mark.parametrize("kind", LABEL_KINDS)
@pytest.mark.parametrize(("block", "window"), [(7, 100), (7, 5), (64, 100), (64, 1), (500, 1)])
def test_raw_channels_have_exact_statistics_wherever_blocks_and_windows_are_cut(kind, block, window):
    rng = np.random.default_rng(block)
    labels = label_image(kind, (150, 170), 3)
    image = rng.integers(0, 256, (150, 170, 2), dtype=np.uint8)
    found = sweep(image, labels, block, window=window, kind="fluorescence")
    for c, name in enumerate(("channel0", "channel1")):
        pixels = [image[..., c][labels == label] for label in range(1, labels.max() + 1)]
        assert found[f"{name}_mean"] == pytest.approx([p.mean() for p in pixels])
        assert found[f"{name}_sd"] == pytest.approx([p.std() for p in pixels], abs=1e-6)
        for q in QUANTILES:
            expected = [np.quantile(p, q, method="inverted_cdf") for p in pixels]
            assert found[f"{name}_q{q * 100:g}"].tolist() == expected


def test_the_order_of_instances_changes_nothing():
    labels = label_image("nuclei", (200, 160), 1)
    image = np.random.default_rng(1).integers(0, 4000, (200, 160), dtype=np.uint16)
    order = np.random.default_rng(2).permutation(labels.max())
    found = sweep(image, labels, 50, kind="fluorescence")
    for name, values in sweep(image, labels, 50, order=order, kind="fluorescence").items():
        assert np.array_equal(values, found[name])


def test_quantiles_of_16_bit_pixels_are_within_one_per_cent():
    labels = label_image("buildings", (120, 120), 5)
    image = (2 ** np.random.default_rng(5).uniform(0, 16, (120, 120))).astype(np.uint16)
    found = sweep(image, labels, 37, kind="fluorescence")
    pixels = [image[labels == label] for label in range(1, labels.max() + 1)]
    for q in QUANTILES:
        exact = [np.quantile(p, q, method="inverted_cdf") for p in pixels]
        assert found[f"channel0_q{q * 100:g}"] == pytest.approx(exact, rel=0.008)
    assert found["channel0_mean"] == pytest.approx([p.mean() for p in pixels])


def test_pixels_without_data_do_not_count():
    labels = np.ones((40, 40), np.int32)
    labels[:, 20:] = 2
    image = np.full((40, 40), 7.0, np.float32)
    image[:10, :20] = np.nan
    image[10:20, :20] = -9999
    image[:, 20:] = -9999
    found = sweep(image, labels, 16, kind="raster", nodata=-9999, rendering=Rendering((0,), ((0, 10),)))
    assert found["channel0_mean"][0] == 7
    assert found["channel0_sd"][0] == 0
    assert all(np.isnan(values[1]) for values in found.values())


def test_stains_are_those_of_scikit_image_in_optical_density():
    labels = label_image("nuclei", (180, 200), 7)
    image = np.random.default_rng(7).integers(1, 256, (180, 200, 3), dtype=np.uint8)
    found = sweep(image, labels, 64)
    # scikit-image's logarithm has base 1e6
    expected = 6 * rgb2hed(image)
    for c, name in enumerate(("haematoxylin", "eosin", "dab")):
        pixels = [expected[..., c][labels == label] for label in range(1, labels.max() + 1)]
        assert found[f"{name}_od_mean"] == pytest.approx([p.mean() for p in pixels], abs=2e-5)
        assert found[f"{name}_od_sd"] == pytest.approx([p.std() for p in pixels], abs=2e-4)
        for q in QUANTILES:
            exact = [min(np.quantile(p, q, method="inverted_cdf"), 2.555) for p in pixels]
            assert found[f"{name}_od_q{q * 100:g}"] == pytest.approx(exact, abs=0.0051)


@pytest.mark.parametrize(("block", "window"), [(11, 100), (11, 2), (200, 1)])
def test_texture_is_that_of_scikit_image_on_a_rectangle_wherever_blocks_and_windows_are_cut(block, window):
    rng = np.random.default_rng(0)
    image = np.repeat(rng.integers(0, 256, (60, 70, 1), dtype=np.uint8), 3, axis=2)
    labels = np.zeros((60, 70), np.int32)
    labels[5:40, 8:50] = 1
    labels[40:58, 8:30] = 2
    found = sweep(image, labels, block, texture=True, window=window)
    for label, area in ((1, np.s_[5:40, 8:50]), (2, np.s_[40:58, 8:30])):
        levels = image[area][..., 0] >> 4
        matrix = graycomatrix(levels, [1], np.arange(4) * np.pi / 4, levels=16, symmetric=True, normed=True)
        for ours, theirs in (
            ("contrast", "contrast"), ("correlation", "correlation"), ("energy", "ASM"),
            ("homogeneity", "homogeneity"), ("entropy", None),
        ):  # fmt: skip
            if theirs:
                expected = graycoprops(matrix, theirs).mean()
            else:
                p = np.where(matrix > 0, matrix, 1)
                expected = -(p * np.log2(p)).sum((0, 1)).mean()
            assert found[f"texture_{ours}"][label - 1] == pytest.approx(expected, rel=1e-6), ours
    assert sweep(image, labels, 1000)["haematoxylin_od_mean"] == pytest.approx(found["haematoxylin_od_mean"])


def test_texture_of_any_shape_is_that_of_its_own_pairs():
    labels = label_image("nuclei", (120, 130), 4)
    image = np.repeat(np.random.default_rng(4).integers(0, 256, (120, 130, 1), dtype=np.uint8), 3, axis=2)
    found = sweep(image, labels, 30, texture=True, window=2)
    levels = np.pad(image[..., 0] >> 4, 1).astype(int)
    around = np.pad(labels, 1)
    for label in range(1, labels.max() + 1):
        entropy = []
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
            both = (around == label) & (np.roll(around, (-dy, -dx), (0, 1)) == label)
            matrix = np.zeros((16, 16))
            np.add.at(matrix, (levels[both], np.roll(levels, (-dy, -dx), (0, 1))[both]), 1)
            p = (matrix + matrix.T) / (2 * matrix.sum()) if matrix.any() else np.full((16, 16), np.nan)
            entropy.append(-(p * np.log2(np.where(p > 0, p, 1))).sum())
        assert found["texture_entropy"][label - 1] == pytest.approx(np.mean(entropy), rel=1e-9, nan_ok=True)


def test_co_occurrence_of_large_objects_gives_the_same_features_as_of_small_ones():
    pairs = np.random.default_rng(0).integers(0, 50, (3, 4, PAIRS))
    assert haralick(pairs * 1000) == pytest.approx(haralick(pairs), rel=1e-9)


@pytest.mark.parametrize("window", [100, 2, 1])
def test_each_pixel_is_read_once(window):
    labels = label_image("giants", (300, 260), 2)
    image = np.zeros((300, 260), np.uint8)
    read = np.zeros_like(image)

    class Counting(ArraySlide):
        def read(self, bounds, shape, channels=None):
            x0, y0, x1, y1 = (int(side) for side in bounds)
            read[y0:y1, x0:x1] += 1
            return super().read(bounds, shape, channels)

    source = Counting(image, kind="fluorescence")
    tiling = Tiling(64, 0, 260, 300, (1.0, 1.0), (1.0, 1.0), "px")
    statistics = Statistics(channels_of(source.info), QUANTILES)
    geometry = polygons_from_labels(labels)[1]
    for part in windows_of(labels.shape, 64 * window):
        measure_pixels(source, tiling, statistics, geometry, part, block=64)
    assert read.max() == 1
    assert np.all(read[labels > 0] == 1)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_measure_reads_the_slide_at_the_working_resolution(slide_files, scale):
    labels = label_image("nuclei", (200, 240), 11)
    rng = np.random.default_rng(3)
    small = rng.integers(60, 250, (20, 24, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    image = small.repeat(int(scale), 0).repeat(int(scale), 1)
    files = slide_files(image, labels, scale=(scale, scale))
    measure(*files.inputs, config=MeasureConfig(intensity_quantiles=()))
    table = pq.read_table(files.measurements)
    expected = 6 * rgb2hed(small)[..., 0]
    means = [expected[labels == label].mean() for label in range(1, labels.max() + 1)]
    # resampling blurs the edges a little
    assert table["haematoxylin_od_mean"].to_numpy() == pytest.approx(means, abs=1e-4 if scale == 1 else 0.05)
    assert table["area_um2"].to_numpy() == pytest.approx(np.bincount(labels.ravel())[1:] * (scale / 2) ** 2)
