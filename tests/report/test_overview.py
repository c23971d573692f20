import json

import numpy as np
import pytest
import shapely
from PIL import Image

from gigaseg.errors import ConfigError, UpstreamFailure
from gigaseg.files import write_failure
from gigaseg.geometry import Bounds
from gigaseg.report.legend import scale_bar
from gigaseg.report.overview import overview
from gigaseg.report.thumbnail import thumbnail
from gigaseg.testing.array_slide import ArraySlide

GREEN, ORANGE, BLUE = (0, 200, 83), (255, 145, 0), (41, 98, 255)


def picture_of(files, tmp_path, **options):
    out = tmp_path / "overview.png"
    overview(*files, out, **options)
    return np.asarray(Image.open(out)), out


def slide_of(picture, width, height):
    """The slide within the sheet: below the title (which is short), above the legend."""
    margin = 12
    top = next(y for y in range(len(picture)) if (picture[y, margin + width - 30] != 255).all())
    return picture[top : top + height, margin : margin + width]


def near(picture, color, tolerance=60):
    """Pixels of about a colour."""
    return (np.abs(picture.astype(int) - color) < tolerance).all(axis=2)


def test_picture_has_the_slide_the_instances_the_foreground_and_the_grid(slide_files, squares, tmp_path):
    picture, _ = picture_of(slide_files(squares), tmp_path, long_side=800)
    slide = slide_of(picture, 800, 600)
    # each instance: its outline on its border, its fill a tint inside
    for x, y in [(100, 100), (200, 100), (100, 300), (200, 300)]:
        assert near(slide[y - 1 : y + 2, x + 5 : x + 35], GREEN, 100).any(axis=0).all()
        assert slide[y + 20, x + 20].tolist() == pytest.approx([169, 211, 197], abs=3)
    # the foreground's outline and the grid start at 500 and 512 px
    assert near(slide[150:550, 497:505], ORANGE).any(axis=1).all()
    assert near(slide[300:301, 512:513], BLUE, 100).any()
    assert not near(slide[:, :490], ORANGE).any()
    assert not near(slide[50:90, 20:90], BLUE, 110).any()


def test_legend_lies_outside_the_slide_and_picture_says_whose_it_is(slide_files, squares, tmp_path):
    picture, out = picture_of(slide_files(squares), tmp_path, long_side=800)
    assert picture.shape[0] > 600
    assert picture.shape[1] >= 800
    assert near(picture[-40:], GREEN, 5).sum() > 50
    about = json.loads(Image.open(out).text["gigaseg"])
    assert about["format"] == "gigaseg/overview/1"
    assert about["slide"] == "case-1"


def test_classes_have_their_own_colours(slide_files, squares, tmp_path):
    files = slide_files(squares, classes=("tumour", "stroma", "immune"))
    picture, _ = picture_of(files, tmp_path, long_side=800, instance_color="#ff0000")
    legend = picture[-40:]
    assert near(legend, (255, 0, 0), 5).any()
    assert near(legend, (240, 228, 66), 5).any()
    assert near(legend, (86, 180, 233), 5).any()


def test_instances_too_small_to_see_are_drawn_as_density(slide_files, tmp_path):
    random = np.random.default_rng(0)
    x, y = random.uniform(450, 550, 5000), random.uniform(250, 350, 5000)
    picture, _ = picture_of(slide_files(shapely.box(x, y, x + 1.5, y + 1.5)), tmp_path, long_side=800)
    # no green; viridis' dense end about (500, 300), grey slide elsewhere
    assert not near(picture[:-40], GREEN, 20).any()
    slide = slide_of(picture, 800, 600)
    assert (np.ptp(slide[270:330, 470:530], axis=2) > 40).mean() > 0.9
    assert (slide[50:200, 50:350] == slide[50, 50, 0]).all()


def test_slide_without_instances_or_foreground_gives_a_picture(slide_files, tmp_path):
    picture, _ = picture_of(slide_files(np.empty(0, object)), tmp_path, long_side=400)
    assert picture.shape[1] > 400


def test_tiles_too_small_to_draw_are_shown_as_the_area_they_cover(slide_files, squares, tmp_path):
    picture, _ = picture_of(slide_files(squares, tile=16), tmp_path, long_side=200)
    slide = slide_of(picture, 200, 150)
    assert not near(slide[100:140, 110:150], BLUE, 110).any()
    assert near(slide[148:], BLUE, 110).any()
    assert not near(slide[148:, :90], BLUE, 110).any()


def test_same_inputs_give_the_same_bytes(slide_files, squares, tmp_path):
    files = slide_files(squares)
    _, out = picture_of(files, tmp_path)
    first = out.read_bytes()
    _, out = picture_of(files, tmp_path)
    assert out.read_bytes() == first


@pytest.mark.parametrize("broken", ["info", "grid", "foreground", "instances"])
def test_failed_step_before_passes_on(slide_files, squares, tmp_path, broken):
    files = slide_files(squares)
    write_failure(getattr(files, broken), "grid", "no foreground")
    with pytest.raises(UpstreamFailure, match="no foreground"):
        overview(*files, tmp_path / "overview.png")
    assert not (tmp_path / "overview.png").exists()


def test_wrong_colour_is_told_with_its_key(slide_files, squares, tmp_path):
    with pytest.raises(ConfigError, match=r"report.grid_color is 'blau', accepted: a colour as #rrggbb"):
        overview(*slide_files(squares), tmp_path / "overview.png", grid_color="blau")


def test_real_slide_of_each_kind_is_drawn(data, slide_files, squares, tmp_path):
    from gigaseg.slides.inspect import inspect

    files = slide_files(squares)
    for name, unit in {"slides/CMU-1-Small-Region.svs": "um", "raster/town.tif": "m"}.items():
        inspect(data / name, slide="case-1", unit=unit).write(files.info)
        picture, _ = picture_of(files, tmp_path, long_side=600)
        # a real slide has many colours
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5000


@pytest.mark.parametrize(
    ("pixel_size", "unit", "width", "label"),
    [(2.0, "um", 1600, "500 µm"), (8.0, "um", 1600, "2 mm"), (0.15, "m", 1600, "20 m"), (6.0, "m", 2000, "2 km"),
     (4.0, "px", 1600, "1,000 px"), (0.01, "um", 100, "0.2 µm")],
)  # fmt: skip
def test_scale_bar_has_a_round_length_of_at_most_a_fifth_of_the_width(pixel_size, unit, width, label):
    bar = scale_bar(pixel_size, unit, width)
    assert bar.label == label
    assert width / 5 / 2.5 <= bar.length <= width / 5


def test_thumbnail_keeps_the_shape_and_the_place_of_things():
    array = np.zeros((220, 110, 3), np.uint8)
    array[110:, 55:] = (250, 100, 0)
    picture = thumbnail(ArraySlide(array), 100)
    assert picture.shape == (100, 50, 3)
    assert (picture[50:, 25:] == (250, 100, 0)).all()
    assert (picture[:50] == 0).all()


def test_tiny_slide_is_enlarged_four_times_at_most():
    assert thumbnail(ArraySlide(np.zeros((30, 20, 3), np.uint8)), 1600).shape == (120, 80, 3)


def test_thumbnail_read_in_strips_is_the_same(monkeypatch):
    random = np.random.default_rng(0)
    slide = ArraySlide(random.integers(0, 256, (333, 217, 3), dtype=np.uint8))
    whole = thumbnail(slide, 70)
    reads: list[Bounds] = []

    class Counting(ArraySlide):
        def read(self, bounds, shape, channels=None):
            reads.append(bounds)
            return super().read(bounds, shape, channels)

    monkeypatch.setattr("gigaseg.report.thumbnail._STRIP_PX", 217 * 50)
    assert (thumbnail(Counting(slide._array), 70) == whole).all()
    assert len(reads) >= 7
