"""The sheet's column `exemplar`."""

import geopandas
import numpy as np
import pytest
import shapely
from PIL import Image

from gigaseg.errors import FormatError
from gigaseg.exemplar import exemplar_files, mask_beside, read_exemplar
from gigaseg.slides.inspect import inspect
from gigaseg.tiles.tiling import Tiling
from persense_scenes import discs, write_picture

TILING = Tiling(128, 32, 128, 128, (2.0, 2.0), (1.0, 1.0), "px")
"""Working pixels are two of the slide's."""


@pytest.fixture
def info(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", discs()[0], photometric="rgb", tile=(128, 128))
    return inspect(tmp_path / "a.tif", slide="a", pixel_size="px")


def write(path, *geometries):
    geopandas.GeoDataFrame({"name": ["x"] * len(geometries)}, geometry=list(geometries)).to_file(path)
    return path


def test_polygons_on_the_slide_come_with_what_surrounds_them(tmp_path, info):
    near, far = shapely.Point(40, 40).buffer(13), shapely.Point(205, 210).buffer(13)
    shown = read_exemplar(write(tmp_path / "x.geojson", near, far), info, TILING, 64)
    assert shown.rgb.shape == (64, 64, 3)
    assert len(shown.masks) == 1  # the other one lies beyond the square
    assert shown.boxed == [False]
    assert shown.masks[0].sum() == pytest.approx(near.area / 4, rel=0.1)
    grey = shown.rgb[..., 0].astype(float)
    assert grey[shown.masks[0]].mean() > 120  # the mask lies on its disc
    rows, cols = np.nonzero(shown.masks[0])
    assert (cols.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((20, 20), abs=0.6)


def test_a_square_at_the_border_stays_on_the_slide(tmp_path, info):
    last = shapely.Point(240, 240).buffer(10)
    shown = read_exemplar(write(tmp_path / "x.geojson", last), info, TILING, 64)
    rows, cols = np.nonzero(shown.masks[0])
    assert (cols.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((56, 56), abs=0.6)


def test_a_box_is_known_as_one(tmp_path, info):
    both = write(tmp_path / "x.geojson", shapely.box(30, 30, 50, 52), shapely.Point(80, 40).buffer(9))
    assert read_exemplar(both, info, TILING, 128).boxed == [True, False]


def test_a_picture_with_its_mask(tmp_path, info):
    image, labels = discs()
    write_picture(tmp_path / "disc.jpg", image, labels == 2)
    shown = read_exemplar(tmp_path / "disc.jpg", info, TILING, 64)
    assert shown.rgb.shape == image.shape
    assert (shown.masks[0] == (labels == 2)).all()
    Image.fromarray(np.where(labels == 2, 7, np.where(labels == 3, 9, 0)).astype(np.uint8)).save(
        tmp_path / "disc_mask.png"
    )
    assert len(read_exemplar(tmp_path / "disc.jpg", info, TILING, 64).masks) == 2


def test_all_files_of_an_exemplar_count():
    from pathlib import Path

    assert exemplar_files(Path("a/x.png")) == [Path("a/x.png"), Path("a/x_mask.png")]
    assert exemplar_files(Path("a/x.geojson")) == [Path("a/x.geojson")]
    assert mask_beside(Path("x.tif")) == Path("x_mask.png")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none.png", "none.png: cannot be read .* expected a picture"),
        (lambda folder: _lonely(folder), "lonely_mask.png: cannot be read .* expected the mask of lonely.png"),
        (lambda folder: _picture(folder, np.zeros((8, 8), bool)), "marks nothing"),
        (lambda folder: _picture(folder, np.ones((8, 9), bool)), "is 9 x 8 px, accepted: 8 x 8"),
        (lambda folder: write(folder / "far.geojson", shapely.box(900, 900, 950, 950)), "lies on slide"),
        (lambda folder: write(folder / "big.geojson", shapely.box(0, 0, 250, 250)), "125 x 125 working px, accepted"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, info, make, words):
    with pytest.raises(FormatError, match=words) as caught:
        read_exemplar(make(tmp_path), info, TILING, 64)
    assert "\n" not in str(caught.value)


def _lonely(folder):
    Image.new("RGB", (8, 8)).save(folder / "lonely.png")
    return folder / "lonely.png"


def _picture(folder, mask):
    write_picture(folder / "p.png", np.zeros((8, 8, 3), np.uint8), mask)
    return folder / "p.png"
