import math

import numpy as np
import pytest
from pyproj import CRS, Geod
from rasterio.transform import Affine

from gigaseg.errors import SlideError
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.ground import ground_pixel_size
from gigaseg.slides.inspect import inspect
from gigaseg.slides.registry import open_slide

MERCATOR_60 = 6378137 * math.log(math.tan(math.pi / 4 + math.radians(60) / 2))
"""y of 60 degrees north in EPSG:3857."""

LOCAL_FEET = 'LOCAL_CS["site grid",UNIT["foot",0.3048],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'


@pytest.fixture
def band() -> np.ndarray:
    """(200, 300, 1) uint16 smooth values between 1000 and 3000."""
    y, x = np.mgrid[:200, :300]
    return (2000 + 1000 * np.sin(x / 40) * np.cos(y / 30)).astype(np.uint16)[..., None]


def centred(pixel: float, x: float, y: float, angle: float = 0.0) -> Affine:
    """Affine of square pixels whose 300 x 200 px raster is centred at (x, y), turned by `angle` degrees."""
    turned = Affine.translation(x, y) @ Affine.rotation(angle) @ Affine.scale(pixel, -pixel)
    return turned @ Affine.translation(-150, -100)


def test_epsg_3857_at_60_degrees_north_has_half_the_pixel_on_the_ground(tmp_path, raster_writer, band):
    raster_writer(tmp_path / "r.tif", band, crs="EPSG:3857", transform=centred(2.0, 1e6, MERCATOR_60))
    info = inspect(tmp_path / "r.tif", slide="r", unit="m")
    # 1 / cos(60 degrees) = 2 on the sphere; the ellipsoid changes it by less than 0.3 %
    assert info.pixel_size == pytest.approx((1.0, 1.0), rel=4e-3)
    assert info.pixel_size_source == "metadata"
    assert info.unit == "m"
    geod = Geod(ellps="WGS84")
    lon = math.degrees(1e6 / 6378137)
    step = math.degrees(2.0 / 6378137)
    assert info.pixel_size[0] == pytest.approx(geod.line_length([lon, lon + step], [60, 60]), rel=1e-6)


def test_degrees_become_metres(tmp_path, raster_writer, band):
    raster_writer(tmp_path / "r.tif", band, crs="EPSG:4326", transform=centred(1e-5, 8.5, 47.4))
    info = inspect(tmp_path / "r.tif", slide="r", unit="m")
    _, _, x = Geod(ellps="WGS84").inv(8.5 - 5e-6, 47.4, 8.5 + 5e-6, 47.4)
    _, _, y = Geod(ellps="WGS84").inv(8.5, 47.4 - 5e-6, 8.5, 47.4 + 5e-6)
    assert info.pixel_size == pytest.approx((x, y), rel=1e-6)
    assert x == pytest.approx(0.755, abs=0.001)
    assert y == pytest.approx(1.112, abs=0.001)


@pytest.mark.parametrize("angle", [0, 17, 90, 123.4])
def test_a_rotated_affine_keeps_area(tmp_path, raster_writer, band, angle):
    transform = centred(0.5, 500_000, 5_000_000, angle)
    raster_writer(tmp_path / "r.tif", band, crs="EPSG:32633", transform=transform)
    info = inspect(tmp_path / "r.tif", slide="r", unit="m")
    # UTM shrinks by 0.9996 on its central meridian
    assert info.pixel_size == pytest.approx((0.5 / 0.9996, 0.5 / 0.9996), rel=1e-5)
    assert info.transform == pytest.approx(tuple(transform)[:6])
    found = open_slide(info).read(Bounds(10, 20, 50, 80), Shape2d(60, 40))
    np.testing.assert_array_equal(found, band[20:80, 10:50])


def test_a_local_crs_uses_its_own_unit():
    assert ground_pixel_size(LOCAL_FEET, (3, 0, 0, 0, -4, 0), 100, 100) == pytest.approx((0.9144, 1.2192))
    turned = (3 * 0.6, 4 * 0.8, 0, 3 * 0.8, -4 * 0.6, 0)
    assert ground_pixel_size(LOCAL_FEET, turned, 100, 100) == pytest.approx((0.9144, 1.2192))


def test_feet_of_a_projected_crs_are_converted():
    # New York Long Island, US survey feet; the scale factor is within 1e-4 of 1
    found = ground_pixel_size(CRS(2263).to_wkt(), (1, 0, 984_000, 0, -1, 200_000), 100, 100)
    assert found == pytest.approx((0.3048006, 0.3048006), rel=1e-4)


def test_a_centre_outside_the_projection_is_an_error(tmp_path, raster_writer, band):
    raster_writer(tmp_path / "r.tif", band, crs="EPSG:32633", transform=centred(1.0, 1e12, 1e12))
    with pytest.raises(SlideError, match=r"r\.tif: .*pixel size must be a number between 1 nm and 1 km"):
        inspect(tmp_path / "r.tif", slide="r", unit="m")


def test_a_transform_without_crs_needs_the_sheet(tmp_path, raster_writer, band):
    raster_writer(tmp_path / "r.tif", band, transform=centred(0.3, 1000, 1000))
    with pytest.raises(SlideError, match=r"no CRS.*column 'pixel_size' \(in m per pixel, or px"):
        inspect(tmp_path / "r.tif", slide="r", unit="m")
    info = inspect(tmp_path / "r.tif", slide="r", unit="m", pixel_size=0.3)
    assert (info.reader, info.kind, info.crs, info.pixel_size) == ("rasterio", "raster", None, (0.3, 0.3))
    assert info.pixel_size_source == "sheet"


def test_metres_are_converted_for_a_preset_in_micrometres(tmp_path, raster_writer, band):
    raster_writer(tmp_path / "r.tif", band, crs="EPSG:32633", transform=centred(0.5, 500_000, 5e6))
    info = inspect(tmp_path / "r.tif", slide="r", unit="um")
    assert info.pixel_size == pytest.approx((500_200, 500_200), rel=1e-4)
    assert info.unit == "um"


def test_nodata_is_background_has_no_weight_and_does_not_stretch(tmp_path, raster_writer, band):
    band[:, 100:] = 65000
    raster_writer(tmp_path / "r.tif", band, crs="EPSG:32633", transform=centred(0.5, 5e5, 5e6), nodata=65000)
    info = inspect(tmp_path / "r.tif", slide="r", unit="m")
    assert info.nodata == 65000
    assert info.background == (65000,)
    ((low, high),) = info.rendering.limits
    valid = band[:, :100]
    assert low == pytest.approx(np.percentile(valid, 2), abs=15)
    assert high == pytest.approx(np.percentile(valid, 98), abs=15)
    slide = open_slide(info)
    found = slide.read(Bounds(0, 0, 300, 200), Shape2d(53, 81))
    assert ((found == 65000) | (found <= 3000)).all()
    assert (slide.read(Bounds(-10, -10, 0, 0), Shape2d(5, 5)) == 65000).all()


def test_nan_is_no_data_and_survives_json(tmp_path, raster_writer, band):
    heights = band.astype(np.float32)
    heights[50:60, 70:90] = np.nan
    raster_writer(tmp_path / "r.tif", heights, crs="EPSG:32633", transform=centred(0.5, 5e5, 5e6), nodata=math.nan)
    info = inspect(tmp_path / "r.tif", slide="r", unit="m")
    info.write(tmp_path / "slide.json")
    found = open_slide(info).read(Bounds(0, 0, 300, 200), Shape2d(200, 300))
    assert np.isfinite(found).all()
    assert (found[50:60, 70:90] == info.nodata).all()
    rendered = info.rendering.rgb(found)
    assert (rendered[50:60, 70:90] == 0).all()
    assert rendered.max() == 255


def test_an_alpha_band_is_a_mask_and_no_channel(tmp_path, raster_writer):
    rgba = np.full((200, 300, 4), 200, dtype=np.uint8)
    rgba[:, 150:, 3] = 0
    raster_writer(
        tmp_path / "r.tif", rgba, crs="EPSG:32633", transform=centred(0.5, 5e5, 5e6), photometric="RGB", alpha=True
    )  # fmt: skip
    info = inspect(tmp_path / "r.tif", slide="r", unit="m")
    assert info.channels == ("red", "green", "blue")
    assert info.nodata == 0
    found = open_slide(info).read(Bounds(0, 0, 300, 200), Shape2d(200, 300))
    assert (found[:, :150] == 200).all()
    assert (found[:, 150:] == 0).all()


@pytest.mark.parametrize("scale", [2, 3.3, 4, 9])
def test_overviews_and_none_agree(tmp_path, raster_writer, band, scale):
    place = {"crs": "EPSG:32633", "transform": centred(0.5, 5e5, 5e6)}
    raster_writer(tmp_path / "without.tif", band, **place)
    raster_writer(tmp_path / "with.tif", band, overviews=(2, 4), **place)
    shape = Shape2d(int(160 / scale), int(240 / scale))
    bounds = Bounds(16, 16, 16 + shape.width * scale, 16 + shape.height * scale)
    images = []
    for name, levels in (("without", 1), ("with", 3)):
        info = inspect(tmp_path / f"{name}.tif", slide="r", unit="m")
        assert len(info.levels) == levels
        images.append(open_slide(info).read(bounds, shape).astype(float))
    assert np.abs(images[0] - images[1]).mean() < 4
    assert np.abs(images[0] - images[1]).max() < 25  # of a range of 2000


def test_bands_are_chosen_by_name_or_number(tmp_path, raster_writer):
    bands = np.arange(5, dtype=np.uint8) * 10 + np.zeros((64, 64, 1), np.uint8)
    raster_writer(tmp_path / "r.tif", bands, crs="EPSG:32633", transform=centred(0.5, 5e5, 5e6))
    info = inspect(tmp_path / "r.tif", slide="r", unit="m")
    assert info.channels == ("band 1", "band 2", "band 3", "band 4", "band 5")
    assert info.rendering.channels == (0, 1, 2)
    info = inspect(tmp_path / "r.tif", slide="r", unit="m", channels=["4", "band 3", "2"])
    assert info.rendering.channels == (3, 2, 1)
    assert info.rendering.rgb(bands)[0, 0].tolist() == [30, 20, 10]
    with pytest.raises(SlideError, match=r"unknown channel '6'; accepted: band 1, .*a number 1\.\.5"):
        inspect(tmp_path / "r.tif", slide="r", unit="m", channels=["6"])
    with pytest.raises(SlideError, match=r"2 channels for a raster slide, accepted: one \(grey\) or three"):
        inspect(tmp_path / "r.tif", slide="r", unit="m", channels=["1", "2"])


def test_palette_and_one_bit_rasters_are_refused(tmp_path, raster_writer):
    place = {"crs": "EPSG:32633", "transform": centred(0.5, 5e5, 5e6)}
    array = np.ones((64, 64, 1), dtype=np.uint8)
    raster_writer(tmp_path / "palette.tif", array, photometric="palette", **place)
    raster_writer(tmp_path / "bit.tif", array, nbits=1, **place)
    with pytest.raises(SlideError, match="rasterio: photometric is PALETTE, accepted: grey, RGB or bands"):
        inspect(tmp_path / "palette.tif", slide="r", unit="m")
    with pytest.raises(SlideError, match="rasterio: it has 1 bit a sample, accepted: 8, 16, 32 or 64"):
        inspect(tmp_path / "bit.tif", slide="r", unit="m")


def test_the_real_rasters_open_with_their_ground_size(data):
    town = inspect(data / "raster" / "town.tif", slide="town", unit="m")
    assert (town.reader, town.kind, town.width, town.height) == ("rasterio", "raster", 1536, 1024)
    # 0.35 degrees north of the equator: east as in the file, north shorter by the ellipsoid's 1 - e^2
    assert town.pixel_size == pytest.approx((0.149288, 0.148289), abs=2e-6)
    assert CRS.from_wkt(town.crs).to_epsg() == 3857
    atlanta = inspect(data / "raster" / "atlanta_pan.tif", slide="atlanta", unit="m")
    assert (atlanta.reader, atlanta.dtype, atlanta.channels) == ("rasterio", "uint16", ("band 1",))
    assert atlanta.pixel_size == pytest.approx((0.49986, 0.49986), abs=1e-5)
    ((low, high),) = atlanta.rendering.limits
    assert 100 < low < high < 1500
    grey = atlanta.rendering.rgb(open_slide(atlanta).read(Bounds(0, 0, 900, 900), Shape2d(225, 225)))
    assert grey.shape == (225, 225, 3)
    assert 60 < grey.mean() < 190
