"""The density of a picture by a regressor that sees it at the exemplars' scale."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gigaseg.segmenters.persense.base import Exemplar, Scene
from gigaseg.segmenters.persense.config import DensityConfig
from gigaseg.segmenters.persense.density_net import DensityNet
from gigaseg.segmenters.persense.regressed import RegressedDensity

CONFIG = DensityConfig(4, 2, "batch", 2, 20.0, 2.5)


class Brightness(nn.Module):
    """Knows one thing: that bright discs are 20 px wide. So it counts only what was scaled to that."""

    reduction, multiple, reach, unit = 2, 8, 16, 0.1

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.seen = []

    def forward(self, images):
        self.seen.append(tuple(images.shape[2:]))
        bright = F.avg_pool2d(images[:, 0] / 255, 2) * 4  # px of a cell
        return self.gain * bright / (math.pi * 10**2) / self.unit


def random_net():
    """Finds something everywhere."""
    torch.manual_seed(0)
    net = DensityNet(CONFIG).eval()
    with torch.no_grad():
        for parameter in net.unet.head.parameters():
            parameter.abs_()
    return net


def discs(radius, side=300, pitch=None):
    """Picture of white discs on black, and their centres."""
    pitch = pitch or 3 * radius
    y, x = np.mgrid[:side, :side] + 0.5
    picture, centres = np.zeros((side, side, 3), np.uint8), []
    for cy in np.arange(pitch / 2, side - radius, pitch):
        for cx in np.arange(pitch / 2, side - radius, pitch):
            picture[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = 255
            centres.append((cx, cy))
    return picture, np.array(centres)


def exemplar(scene, centre, radius, area=0.0):
    half = np.array([radius, radius])
    return Exemplar(scene, np.concatenate([centre - half, centre + half]).astype(np.float64), area=area)


@pytest.mark.parametrize("radius", [4, 10, 17, 40])
def test_objects_of_any_size_are_counted_and_lie_where_they_are(radius):
    picture, centres = discs(radius, side=16 * radius + 3)
    scene = Scene(picture)
    shown = exemplar(scene, centres[0], radius, area=math.pi * radius**2)
    found = RegressedDensity(Brightness(), CONFIG).density(scene, [shown])
    assert found.map.shape == picture.shape[:2]
    assert found.map.dtype == np.float32
    assert (found.map >= 0).all()
    assert found.count == pytest.approx(len(centres), rel=0.05)
    assert found.map.sum(dtype=np.float64) == pytest.approx(found.count, rel=1e-5)
    reach = round(1.5 * radius)
    for x, y in centres.astype(int):
        around = found.map[max(y - reach, 0) : y + reach, max(x - reach, 0) : x + reach]
        assert around.sum() == pytest.approx(1, abs=0.1)


def test_the_exemplars_mean_size_tells_the_scale_by_area_or_else_by_box():
    picture, centres = discs(10)
    scene = Scene(picture)
    by_area = exemplar(scene, centres[0], 30, area=math.pi * 10**2)  # whatever its box
    by_box = exemplar(scene, centres[0], 10)
    apart = [exemplar(scene, centres[0], 5), exemplar(scene, centres[1], 15)]
    net = Brightness()
    for shown in ([by_area], [by_box], apart):
        RegressedDensity(net, CONFIG).density(scene, shown)
    assert net.seen == [(304, 304)] * 3
    RegressedDensity(net, CONFIG).density(scene, [exemplar(scene, centres[0], 20)])
    assert net.seen[-1] == (152, 152)


@pytest.mark.parametrize(("radius", "sides"), [(0.0, (160, 128)), (0.5, (160, 128)), (1000.0, (8, 8))])
def test_scales_have_limits(radius, sides):
    scene, net = Scene(np.zeros((40, 31, 3), np.uint8)), Brightness()
    found = RegressedDensity(net, CONFIG).density(scene, [exemplar(scene, np.array([9.0, 9.0]), radius)])
    assert net.seen == [sides]
    assert found.count == 0
    assert not found.map.any()


def test_without_an_exemplar_there_is_no_scale():
    with pytest.raises(ValueError, match="no exemplar; expected at least one"):
        RegressedDensity(Brightness(), CONFIG).density(Scene(np.zeros((8, 8, 3), np.uint8)), [])


@pytest.mark.parametrize("shape", [(1, 50), (50, 1), (37, 41), (33, 64), (3, 2)])
@pytest.mark.parametrize("factor", [0.125, 0.7, 1.0, 2.3])
def test_pictures_of_any_sides_keep_their_mass(shape, factor):
    net = random_net()
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = RegressedDensity(net, CONFIG).at(picture, factor)
    assert found.map.shape == shape
    assert np.isfinite(found.map).all()
    assert found.count > 0
    assert found.map.sum(dtype=np.float64) == pytest.approx(found.count, rel=1e-4)


@pytest.mark.parametrize("shape", [(300, 400), (333, 215), (201, 60)])
def test_tiles_of_a_large_picture_show_no_seams(shape):
    net = random_net()
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    whole = RegressedDensity(net, CONFIG).at(picture, 1.0)
    tiled = RegressedDensity(net, CONFIG, tile=200)
    found = tiled.at(picture, 1.0)
    assert np.abs(found.map - whole.map).max() < 1e-4 * whole.map.max()
    assert found.count == pytest.approx(whole.count, rel=1e-5)


def test_a_tile_is_never_so_small_that_nothing_of_it_is_its_own():
    assert RegressedDensity(random_net(), CONFIG, tile=0).tile == 2 * 56 + 8


def test_large_pictures_are_seen_in_tiles_of_bounded_size():
    net = Brightness()
    found = RegressedDensity(net, CONFIG).at(np.full((1700, 90, 3), 255, np.uint8), 2.0)
    assert len(net.seen) == 3
    assert max(max(shape) for shape in net.seen) == 1536
    assert found.count == pytest.approx(3400 * 180 / (math.pi * 100), rel=1e-4)


def test_calibrated_the_scene_s_own_exemplars_have_unit_mass():
    picture, centres = discs(10)
    scene, other = Scene(picture), Scene(picture.copy())
    timid = Brightness(0.6)
    shown = [exemplar(scene, centre, 12, math.pi * 100) for centre in centres[:3]]
    plain = RegressedDensity(timid, CONFIG).density(scene, shown)
    found = RegressedDensity(timid, CONFIG, calibrated=True).density(scene, shown)
    assert plain.count == pytest.approx(0.6 * len(centres), rel=0.05)
    assert found.count == pytest.approx(len(centres), rel=0.05)
    assert found.map.sum(dtype=np.float64) == pytest.approx(found.count, rel=1e-4)
    elsewhere = [exemplar(other, centre, 12, math.pi * 100) for centre in centres[:3]]
    same = RegressedDensity(timid, CONFIG, calibrated=True).density(scene, elsewhere)
    assert same.count == plain.count
    dark = [exemplar(scene, centres[0] + 15, 3, math.pi * 100)]  # shows nothing: that is no measure
    limited = RegressedDensity(timid, CONFIG, calibrated=True).density(scene, dark)
    assert limited.count == pytest.approx(2 * plain.count)


def test_it_says_what_it_is():
    density = RegressedDensity(Brightness(), CONFIG, "persense-v1")
    assert (density.name, density.needs_weights, density.deterministic) == (
        "density regressor persense-v1",
        True,
        True,
    )
