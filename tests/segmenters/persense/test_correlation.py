"""Densities without training, on pictures whose objects are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.persense.base import Exemplar, Scene
from gigaseg.segmenters.persense.correlation import (
    FeatureDensity,
    NccDensity,
    correlate,
    peaks,
    scattered,
    templates,
)
from gigaseg.segmenters.persense.idm import detect_points, grey_levels
from gigaseg.segmenters.persense.similarity import SimilarityDetector

PLACES = [(40, 40), (120, 48), (60, 130), (190, 100), (140, 150), (200, 30)]


def ellipses(places, shape=(200, 240), a=13, b=9, noise=4, seed=0):
    """Bright ellipses, each turned by a quarter more than the one before, on noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    grey = np.full(shape, 60.0)
    for i, (cx, cy) in enumerate(places):
        u, v = (x - cx, y - cy) if i % 2 == 0 else (y - cy, x - cx)
        grey[(u / a) ** 2 + (v / b) ** 2 <= 1] = 190
    grey += rng.normal(0, noise, shape)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def exemplar(scene, place=PLACES[0], a=13, b=9):
    x, y = place
    return Exemplar(scene, np.array([x - a, y - b, x + a + 1, y + b + 1], float), 1.0, np.pi * a * b)


def test_ncc_finds_all_copies_turned_or_not():
    scene = Scene(ellipses(PLACES))
    found = NccDensity().density(scene, [exemplar(scene)])
    assert found.count == len(PLACES)
    assert found.map.sum() == pytest.approx(len(PLACES), rel=1e-3)
    xy = peaks(found.map, 10, 1e-4)
    for place in PLACES:
        assert np.abs(xy - (place[0] + 0.5, place[1] + 0.5)).max(1).min() <= 1


def test_ncc_finds_them_in_another_picture_and_nothing_on_empty_ground():
    shown = Scene(ellipses(PLACES))
    other = Scene(ellipses(PLACES[2:], seed=1))
    empty = Scene(ellipses([], seed=2, noise=1))
    assert NccDensity().density(other, [exemplar(shown)]).count == len(PLACES) - 2
    nothing = NccDensity().density(empty, [exemplar(shown)])
    assert nothing.count == 0
    assert nothing.map.max() == 0


@settings(max_examples=10)
@given(st.floats(0.3, 1.3), st.integers(-30, 30))
def test_correlation_knows_neither_brightness_nor_contrast(gain, shift):
    grey = ellipses(PLACES)[..., 0].astype(np.float32)
    template = next(templates(exemplar(Scene(ellipses(PLACES)))))
    found, plain = correlate(grey * gain + shift, template), correlate(grey, template)
    seen = (found > -1) & (plain > -1)
    assert seen.sum() > 1000
    assert np.abs(found - plain)[seen].max() < 1e-3


def test_correlation_is_one_where_the_template_was_cut():
    scene = Scene(ellipses(PLACES))
    one = exemplar(scene)
    best = np.max([correlate(scene.rgb[..., 0].astype(np.float32), t) for t in templates(one)], axis=0)
    assert best.shape == scene.shape
    assert best.max() == pytest.approx(1, abs=1e-3)
    assert np.unravel_index(best.argmax(), best.shape) == pytest.approx((40, 40), abs=1)


@pytest.mark.parametrize("radius", [1.5, 2, 3, 4])
def test_small_objects_have_points_too(radius):
    y, x = np.mgrid[:80, :100] + 0.5
    grey = np.full((80, 100), 50.0)
    for cx, cy in [(20, 20), (60, 25), (40, 60)]:
        grey[np.hypot(x - cx, y - cy) <= radius] = 200
    scene = Scene(np.repeat(grey.astype(np.uint8)[..., None], 3, 2))
    shown = Exemplar(scene, np.array([20 - radius, 20 - radius, 20 + radius, 20 + radius]), 1.0, np.pi * radius**2)
    found = NccDensity().density(scene, [shown])
    assert found.count >= 3
    points = detect_points(grey_levels(found.map, 0.0, NccDensity().lone([shown])))
    assert len(points.xy) == found.count


def test_a_flat_exemplar_looks_like_nothing():
    scene = Scene(ellipses([], noise=0))
    noise = Scene(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    assert NccDensity().density(noise, [exemplar(scene)]).count == 0


def test_an_exemplar_at_the_corner_has_templates():
    scene = Scene(ellipses([(5, 5), (100, 100)]))
    corner = Exemplar(scene, np.array([0, 0, 18, 14], float), 1.0, 200.0)
    assert all(min(template.shape) >= 3 for template in templates(corner))
    assert np.isfinite(NccDensity().density(scene, [corner]).map).all()


@given(st.lists(st.tuples(st.floats(0, 79.9), st.floats(0, 59.9)), max_size=20), st.floats(0.5, 8))
def test_mass_is_kept_wherever_objects_lie(places, sigma):
    assert scattered(np.array(places).reshape(-1, 2), (60, 80), sigma).sum() == pytest.approx(len(places), abs=1e-3)


def test_a_plateau_is_one_peak():
    values = np.zeros((20, 20), np.float32)
    values[5:8, 10:13] = 1
    assert peaks(values, 5, 0.5).tolist() == [[11.5, 6.5]]


def features_of(scene, cell=8):
    """Features that tell what is in a cell: mean, deviation, gradients."""
    grey = torch.from_numpy(scene.rgb[..., 0].astype(np.float32))
    dy, dx = (torch.gradient(grey)[k] for k in (0, 1))
    planes = torch.stack([grey, dx.abs(), dy.abs(), grey.square() / 255])
    return torch.nn.functional.avg_pool2d(planes[None], cell)[0]


def test_features_find_all_copies():
    rgb = ellipses(PLACES, a=13, b=13)
    scene = Scene(rgb, features_of(Scene(rgb)))
    found = FeatureDensity().density(scene, [exemplar(scene, b=13)])
    assert found.count == len(PLACES)
    detector = SimilarityDetector()
    detector.learn([exemplar(scene, b=13)])
    boxes = detector.detect(scene, "disc")
    sure = boxes.xyxy[boxes.scores > 0.5]
    assert (np.diff(boxes.scores) <= 0).all()
    for x, y in PLACES:
        assert ((sure[:, :2] < (x, y)) & (sure[:, 2:] > (x, y))).all(1).any()


def test_without_features_or_exemplars_one_line_says_so():
    scene = Scene(ellipses(PLACES))
    with pytest.raises(SegmenterError, match="features"):
        FeatureDensity().density(scene, [exemplar(scene)])
    with pytest.raises(SegmenterError, match="learnt no exemplar"):
        SimilarityDetector().detect(scene, "disc")
