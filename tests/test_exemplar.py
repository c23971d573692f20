"""The sheet's column `exemplar`."""

import geopandas
import numpy as np
import pytest
import shapely
from PIL import Image

from gigaseg.errors import FormatError
from gigaseg.exemplar import MOST_SHOWN, exemplar_files, mask_beside, read_exemplar
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


def test_a_soft_mask_is_one_object_and_colours_are_none_of_its_alpha(tmp_path, info):
    image, labels = discs()
    write_picture(tmp_path / "disc.png", image, labels == 2)
    soft = np.where(labels == 2, 255, np.where(labels == 3, 40, 0)).astype(np.uint8)  # 40: as on a soft rim
    Image.fromarray(soft).save(tmp_path / "disc_mask.png")
    (mask,) = read_exemplar(tmp_path / "disc.png", info, TILING, 64).masks
    assert (mask == (labels == 2)).all()
    alpha = np.dstack([soft, np.full_like(soft, 255)])
    Image.fromarray(alpha, "LA").save(tmp_path / "disc_mask.png")
    assert (read_exemplar(tmp_path / "disc.png", info, TILING, 64).masks[0] == (labels == 2)).all()


def test_few_of_many_polygons_serve(tmp_path, info):
    many = [shapely.box(20 + 4 * i, 20, 23 + 4 * i, 23) for i in range(20)]
    shown = read_exemplar(write(tmp_path / "x.geojson", *many), info, TILING, 128)
    assert len(shown.masks) == MOST_SHOWN


def test_a_raster_s_exemplar_is_in_its_crs(tmp_path):
    import rasterio
    from rasterio.transform import from_origin

    image, _ = discs()
    with rasterio.open(
        tmp_path / "r.tif", "w", driver="GTiff", width=256, height=256, count=3, dtype="uint8", crs="EPSG:32616",
        transform=from_origin(5e5, 4e6, 0.5, 0.5),
    ) as raster:  # fmt: skip
        raster.write(np.moveaxis(image, 2, 0))
    raster_info = inspect(tmp_path / "r.tif", slide="r", unit="m")
    place = shapely.Point(5e5 + 40 * 0.5, 4e6 - 40 * 0.5).buffer(13 * 0.5)
    geopandas.GeoDataFrame(geometry=[place], crs="EPSG:32616").to_file(tmp_path / "x.gpkg")
    tiling = Tiling(256, 32, 256, 256, (1.0, 1.0), (0.5, 0.5), "m")
    shown = read_exemplar(tmp_path / "x.gpkg", raster_info, tiling, 128)
    grey = shown.rgb[..., 0].astype(float)
    assert grey[shown.masks[0]].mean() > 120
    assert grey[~shown.masks[0]].mean() < 40


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
        (lambda folder: _deep(folder), "more than 8 bits"),
        (
            lambda folder: write(folder / "speck.geojson", shapely.box(10.1, 10.1, 10.4, 10.4)),
            "covers no working pixel",
        ),
        (lambda folder: write(folder / "far.geojson", shapely.box(900, 900, 950, 950)), "lies on slide"),
        (lambda folder: write(folder / "big.geojson", shapely.box(0, 0, 250, 250)), "125 x 125 working px, accepted"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, info, make, words):
    with pytest.raises(FormatError, match=words) as caught:
        read_exemplar(make(tmp_path), info, TILING, 64)
    assert "\n" not in str(caught.value)


def _deep(folder):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "deep.png")
    return folder / "deep.png"


def _lonely(folder):
    Image.new("RGB", (8, 8)).save(folder / "lonely.png")
    return folder / "lonely.png"


def _picture(folder, mask):
    write_picture(folder / "p.png", np.zeros((8, 8, 3), np.uint8), mask)
    return folder / "p.png"
