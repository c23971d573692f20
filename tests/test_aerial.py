"""Generated aerial scenes: a segmenter of buildings is trained on them, so their labels must be what they show."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from gigaseg.errors import ConfigError
from gigaseg.testing import AERIAL_KINDS, synthetic_aerial
from gigaseg.testing.aerial.blocks import lay_out
from gigaseg.testing.aerial.ground import Ground
from gigaseg.testing.aerial.paint import Canvas, Light
from gigaseg.testing.aerial.parts import Building, Part, Roof, Tree, rectangle, uniform_surface
from gigaseg.testing.aerial.style import Style

EIGHT = np.ones((3, 3))
GREY = (0.5, 0.5, 0.5)
UPRIGHT = Light((0.0, -math.sqrt(0.5), math.sqrt(0.5)), np.full(3, 0.7), np.full(3, 0.3), (0.0, 0.0))


@pytest.mark.parametrize("kind", AERIAL_KINDS)
def test_every_kind_of_scene_is_drawn_alike_each_time_with_whole_numbered_roofs(kind):
    image, labels = synthetic_aerial((100, 130), 0.6, seed=3, kind=kind)
    assert image.shape == (100, 130, 3)
    assert image.dtype == np.uint8
    assert labels.shape == (100, 130)
    assert labels.dtype == np.int32
    assert image.std() > 3
    assert 20 < image.mean() < 235
    assert sorted(set(labels.ravel()) - {0}) == list(range(1, labels.max() + 1))
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        assert ndimage.label(labels[box] == label, EIGHT)[1] == 1
    again = synthetic_aerial((100, 130), 0.6, seed=3, kind=kind)
    assert np.array_equal(image, again[0])
    assert np.array_equal(labels, again[1])


def test_seeds_differ_and_a_kind_is_drawn_where_none_is_named():
    images = [synthetic_aerial((64, 64), 0.5, seed)[0] for seed in range(3)]
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[1], images[2])


def test_some_scenes_have_no_building_and_towns_have_many():
    counts = [len(lay_out(80, 80, seed, "open").buildings) for seed in range(6)]
    assert 0 in counts
    assert synthetic_aerial((64, 64), 1.0, seed=counts.index(0), kind="open")[1].max() == 0
    assert all(len(lay_out(100, 100, seed, "informal").buildings) > 8 for seed in range(3))


@pytest.mark.parametrize("kind", ["suburb", "town"])
def test_a_seed_shows_the_same_buildings_at_every_pixel_size(kind):
    fine = synthetic_aerial((300, 420), 0.25, seed=8, kind=kind)[1] > 0
    coarse = synthetic_aerial((150, 210), 0.5, seed=8, kind=kind)[1] > 0
    assert fine.sum() * 0.25**2 == pytest.approx(coarse.sum() * 0.5**2, rel=0.03)
    reduced = fine.reshape(150, 2, 210, 2).mean((1, 3)) >= 0.5
    assert (reduced & coarse).sum() / (reduced | coarse).sum() > 0.93


def test_labels_are_the_outlines_that_were_laid_out():
    seed = next(s for s in range(99) if math.hypot(*Light.draw(np.random.default_rng([s, 101])).lean) < 0.01)
    labels = synthetic_aerial((240, 200), 0.4, seed, kind="suburb")[1]
    drawn = Image.new("1", (800, 960))
    for building in lay_out(200 * 0.4, 240 * 0.4, seed, "suburb").buildings:
        for part in building.parts:
            ImageDraw.Draw(drawn).polygon([(x, y) for x, y in part.corners() * 10 - 0.5], fill=1)
    expected = np.asarray(drawn).reshape(240, 4, 200, 4).mean((1, 3)) >= 0.5
    assert expected.sum() > 1000
    assert (expected & (labels > 0)).sum() / (expected | (labels > 0)).sum() > 0.95


def test_the_image_has_its_edges_where_the_labels_have_theirs():
    on, beside = [], []
    for seed in range(3):
        image, labels = synthetic_aerial((256, 256), 0.35, seed, kind="suburb")
        edges = np.hypot(*(ndimage.sobel(image.mean(-1), axis) for axis in (0, 1)))
        rim = (labels > 0) ^ ndimage.binary_erosion(labels > 0, border_value=1)
        on.append(edges[rim].mean())
        beside.append(edges[np.roll(rim, (4, -5), (0, 1))].mean())
    assert np.mean(on) > 1.3 * np.mean(beside)


def scene_of(building: Building | None, *trees: Tree) -> Canvas:
    """40 x 40 m of even grey at 0.2 m."""
    rng = np.random.default_rng(0)
    ground = Ground(40, 40, rng, Style(rng, "open"))
    ground.lay(ground.natural, rectangle(20, 20, 90, 90, 0), uniform_surface(GREY, mix=(0, 0, 0, 0), grain=0))
    if building is not None:
        assert ground.build(building)
    ground.trees.extend(trees)
    return Canvas(ground, (200, 200), 0.2, rng)


def block(kind: str = "flat", **changes: float) -> Part:
    """A building of 10 x 6 m, 5 m high."""
    return Part(
        **{"x": 20, "y": 20, "length": 10, "width": 6, "angle": 0.4, "eave": 5, **changes}, roof=Roof(kind, GREY, GREY)
    )


@pytest.mark.parametrize(
    "kind", ["flat", "gable", "hip", "pyramid", "mansard", "shed", "sawtooth", "barrel", "skeleton", "cone"]
)
def test_a_roof_of_any_form_covers_its_footprint(kind):
    canvas = scene_of(Building([block(kind)]))
    assert canvas.roof.sum() * 0.04 == pytest.approx(60, rel=0.03)
    assert canvas.height[canvas.roof].min() >= 4.99
    assert canvas.height[canvas.roof].max() < 9
    assert np.isfinite(canvas.lit(UPRIGHT)).all()


def test_buildings_do_not_stand_in_each_other():
    rng = np.random.default_rng(0)
    ground = Ground(40, 40, rng, Style(rng, "open"))
    assert ground.build(Building([block()]))
    assert not ground.build(Building([block(x=24)]))
    assert not ground.build(Building([block(x=400)]))
    assert ground.build(Building([block(x=36)]))


def test_a_shadow_is_as_long_as_the_sun_is_low():
    canvas = scene_of(Building([block(angle=0)]))
    image = canvas.lit(UPRIGHT)[..., 0]  # from above in the picture, 45°: 5 m of shadow below
    row, col = (canvas.margin + np.array([23, 20]) / 0.2).astype(int)
    bright = image[canvas.margin + 10, col]
    assert image[row + 1 : row + 23, col].max() < 0.5 * bright
    assert image[row + 27, col] == pytest.approx(bright, rel=0.05)


def test_a_camera_aslant_shifts_a_roof_by_its_height_and_shows_a_wall():
    building = Building([block(angle=0)], wall=(0.9, 0.1, 0.1))
    canvas = scene_of(building)
    aslant = Light(UPRIGHT.sun, UPRIGHT.sunlight, UPRIGHT.sky, (0.3, 0.0))
    image, roof = canvas.leaning(canvas.lit(aslant), aslant)
    centres = [np.array(ndimage.center_of_mass(mask)) * 0.2 for mask in (canvas.roof, roof)]
    assert centres[1] - centres[0] == pytest.approx([0, 1.5], abs=0.25)  # to a pixel of 0.2 m
    assert roof.sum() == pytest.approx(canvas.roof.sum(), rel=0.05)
    red = image[..., 0] > 2 * image[..., 1]
    assert red.sum() * 0.04 == pytest.approx(6 * 1.5, rel=0.4)
    assert not (red & roof).any()


def test_a_crown_over_a_roof_leaves_the_roof_in_the_labels():
    bare, hidden = scene_of(Building([block()])), scene_of(Building([block()]), Tree(20, 20, 4, 12, (0.1, 0.6, 0.1)))
    assert np.array_equal(bare.roof, hidden.roof)
    green = hidden.colour[..., 1] > 2 * hidden.colour[..., 0]
    assert green[hidden.roof].mean() > 0.3


@pytest.mark.parametrize(
    ("shape", "gsd", "kind", "message"),
    [
        ((64, 64), 0.05, None, "0.1-1 m/px"),
        ((8, 64), 0.3, None, "at least 16 px"),
        ((64, 64), 0.3, "subrub", "accepted: suburb, .*did you mean 'suburb'"),
    ],
)
def test_impossible_scenes_are_refused(shape, gsd, kind, message):
    with pytest.raises(ConfigError, match=message):
        synthetic_aerial(shape, gsd, kind=kind)


def test_the_training_set_is_written_once_and_goes_on_where_it_stopped(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "aerial_data.py"

    def write(scenes):
        subprocess.run([sys.executable, script, "--out", tmp_path, "--scenes", str(scenes)], check=True)
        with (tmp_path / "index.tsv").open(newline="") as stream:
            return list(csv.DictReader(stream, delimiter="\t"))

    assert len(write(1)) == 1
    first = (tmp_path / "images" / "aerial-0000.png").stat().st_mtime_ns
    rows = write(2)
    assert (tmp_path / "images" / "aerial-0000.png").stat().st_mtime_ns == first
    assert [row["image"] for row in rows] == ["aerial-0000", "aerial-0001"]
    for row in rows:
        assert row["modality"] in AERIAL_KINDS
        image, labels = (
            np.asarray(Image.open(tmp_path / part / f"{row['image']}.png")) for part in ("images", "labels")
        )
        assert image.shape == (*labels.shape, 3)
        assert labels.dtype == np.uint16
