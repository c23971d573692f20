import numpy as np
import pytest
import tifffile

from gigaseg.errors import SlideError
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.inspect import inspect
from gigaseg.slides.ome import parse_ome
from gigaseg.slides.registry import open_slide

BLUE, GREEN, RED = 0x0000FFFF, 0x00FF00FF, 0xFF0000FF - 2**32
"""Colours as OME writes them: signed 32-bit RGBA."""


@pytest.fixture(scope="session")
def stains() -> np.ndarray:
    """(3, 300, 400) uint16, three fluorescence channels: dark ground, bright spots."""
    rng = np.random.default_rng(3)
    planes = rng.integers(90, 130, (3, 300, 400)).astype(np.uint16)
    for channel in range(3):
        for y, x in rng.integers(10, 290, (25, 2)):
            planes[channel, y - 6 : y + 6, x - 6 : x + 6] = 2000 * (channel + 1)
    return planes


@pytest.fixture(scope="session")
def ome_pyramid(tmp_path_factory, stains):
    """A BigTIFF OME pyramid of three 16-bit channels with names, colours and pixel size."""
    path = tmp_path_factory.mktemp("ome") / "stains.ome.tif"
    metadata = {
        "axes": "CYX",
        "PhysicalSizeX": 325.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": ["DAPI", "CD3", "CD8"], "Color": [BLUE, GREEN, RED]},
    }
    options = {"photometric": "minisblack", "tile": (64, 64), "compression": "zlib"}
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(stains, subifds=2, metadata=metadata, **options)
        tif.write(stains[:, ::2, ::2], subfiletype=1, **options)
        tif.write(stains[:, ::4, ::4], subfiletype=1, **options)
    return path


def test_an_ome_pyramid_keeps_its_channels_names_colours_and_pixel_size(ome_pyramid):
    info = inspect(ome_pyramid, slide="s")
    assert (info.reader, info.vendor, info.kind) == ("tifffile", "ome-tiff", "fluorescence")
    assert info.channels == ("DAPI", "CD3", "CD8")
    assert info.dtype == "uint16"
    assert info.pixel_size == pytest.approx((0.325, 0.5))
    assert [level[:2] for level in info.levels] == [(400, 300), (200, 150), (100, 75)]
    assert info.background == (0, 0, 0)
    assert info.rendering.channels == (0, 1, 2)
    assert info.rendering.colors == ((0, 0, 1), (0, 1, 0), (1, 0, 0))
    for channel, (low, high) in enumerate(info.rendering.limits):
        assert 85 < low < 115
        assert 1500 * (channel + 1) < high <= 2000 * (channel + 1)


def test_native_channels_are_read_at_any_level(ome_pyramid, stains):
    slide = open_slide(inspect(ome_pyramid, slide="s"))
    found = slide.read(Bounds(30, 40, 94, 84), Shape2d(44, 64))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, np.moveaxis(stains[:, 40:84, 30:94], 0, -1))
    found = slide.read(Bounds(40, 80, 240, 240), Shape2d(80, 100), channels=[2, 0])
    np.testing.assert_array_equal(found, np.moveaxis(stains[[2, 0], 80:240:2, 40:240:2], 0, -1))


def test_a_chosen_channel_is_rendered_grey(ome_pyramid, stains):
    info = inspect(ome_pyramid, slide="s", channels=["dapi"])
    assert info.rendering.channels == (0,)
    assert info.rendering.colors is None
    rendered = info.rendering.rgb(np.moveaxis(stains, 0, -1))
    assert (rendered[..., 0] == rendered[..., 2]).all()
    assert (rendered[stains[0] == 2000] > 250).all()
    assert rendered[stains[0] < 130].mean() < 15


def test_two_chosen_channels_keep_their_own_colours(ome_pyramid):
    info = inspect(ome_pyramid, slide="s", channels=["CD8", "1"])
    assert info.rendering.channels == (2, 0)
    assert info.rendering.colors == ((1, 0, 0), (0, 0, 1))
    with pytest.raises(SlideError, match="name a channel twice"):
        inspect(ome_pyramid, slide="s", channels=["CD8", "3"])


def test_ome_units_and_light_are_understood():
    xml = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
    <Instrument ID="I:0"><Objective ID="O:0" NominalMagnification="5"/>
    <Objective ID="O:1" NominalMagnification="20.0"/></Instrument>
    <Image ID="Image:0"><ObjectiveSettings ID="O:1"/><Pixels PhysicalSizeX="1e-6" PhysicalSizeXUnit="m"
    PhysicalSizeY="0.001" PhysicalSizeYUnit="mm"><Channel Name="a" EmissionWavelength="461"/></Pixels></Image>
    <Image ID="Image:1"><Pixels PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1">
    <Channel IlluminationType="Transmitted"/></Pixels></Image></OME>"""
    first, second = parse_ome(xml, 0), parse_ome(xml, 1)
    assert first.pixel_size == pytest.approx((1.0, 1.0))
    assert (first.objective_power, first.fluorescence, first.names) == (20, True, ("a",))
    assert (second.pixel_size, second.fluorescence) == (None, False)
    assert parse_ome("no XML <", 0) == parse_ome(None, 0)


def test_an_ome_without_pixel_size_takes_the_objectives_and_warns(tmp_path, caplog):
    path = tmp_path / "o.ome.tif"
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Instrument ID="I:0">'
        '<Objective ID="O:0" NominalMagnification="20"/></Instrument><Image ID="Image:0"><Pixels ID="P:0" '
        'DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="64" SizeC="1" SizeZ="1" SizeT="1">'
        '<Channel ID="C:0"/><TiffData/></Pixels></Image></OME>'
    )
    tifffile.imwrite(path, np.full((64, 64), 9, np.uint8), description=xml, metadata=None)
    info = inspect(path, slide="s")
    assert (info.pixel_size, info.pixel_size_source) == ((0.5, 0.5), "objective")
    assert "0.5 um per pixel assumed from the 20x objective" in caplog.text


def test_a_bigtiff_without_tiles_opens(tmp_path, picture):
    tifffile.imwrite(tmp_path / "big.tif", picture, bigtiff=True, photometric="rgb", rowsperstrip=16)
    info = inspect(tmp_path / "big.tif", slide="s", pixel_size="px")
    assert (info.reader, info.unit, info.pixel_size, info.kind) == ("tifffile", "px", (1.0, 1.0), "brightfield")
    found = open_slide(info).read(Bounds(600, 400, 703, 501), Shape2d(101, 103))
    np.testing.assert_array_equal(found, picture[400:, 600:])


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_16_bit_rgb_is_stretched(tmp_path, picture, planar):
    array = picture.astype(np.uint16) * 16
    stored = array if planar == "contig" else np.moveaxis(array, -1, 0)
    tifffile.imwrite(tmp_path / "rgb.tif", stored, photometric="rgb", planarconfig=planar, tile=(64, 64))
    info = inspect(tmp_path / "rgb.tif", slide="s", pixel_size=0.5)
    assert (info.reader, info.dtype, info.kind) == ("tifffile", "uint16", "brightfield")
    assert info.background == (65535,) * 3
    found = open_slide(info).read(Bounds(10, 20, 110, 90), Shape2d(70, 100))
    np.testing.assert_array_equal(found, array[20:90, 10:110])
    rendered = info.rendering.rgb(found)
    expected = picture[20:90, 10:110].astype(float)
    assert np.corrcoef(rendered[..., 0].ravel(), expected[..., 0].ravel())[0, 1] > 0.99


def test_transparent_pixels_of_a_tiff_are_background(tmp_path, picture):
    rgba = np.concatenate([picture, np.full((*picture.shape[:2], 1), 255, np.uint8)], axis=-1)
    rgba[:, :50, 3] = 0
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], tile=(64, 64))
    info = inspect(tmp_path / "a.tif", slide="s", pixel_size=1)
    assert info.channels == ("red", "green", "blue")
    found = open_slide(info).read(Bounds(0, 0, 100, 100), Shape2d(100, 100))
    assert (found[:, :50] == 255).all()
    np.testing.assert_array_equal(found[:, 50:], picture[:100, 50:100])


def test_an_imagej_tiff_gives_its_pixel_size(tmp_path, stains):
    path = tmp_path / "ij.tif"
    tifffile.imwrite(path, stains, imagej=True, resolution=(4.0, 4.0), metadata={"axes": "CYX", "unit": "um"})
    info = inspect(path, slide="s")
    assert info.pixel_size == pytest.approx((0.25, 0.25))
    assert info.channels == ("channel 1", "channel 2", "channel 3")
    found = open_slide(info).read(Bounds(7, 8, 57, 48), Shape2d(40, 50))
    np.testing.assert_array_equal(found, np.moveaxis(stains[:, 8:48, 7:57], 0, -1))


def palette(path):
    colors = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(path, np.zeros((128, 128), np.uint8), photometric="palette", colormap=colors, tile=(64, 64))


def one_bit(path):
    tifffile.imwrite(path, np.zeros((128, 128), bool), photometric="minisblack", tile=(64, 64))


def white_is_zero(path):
    tifffile.imwrite(path, np.zeros((128, 128), np.uint8), photometric="miniswhite", tile=(64, 64))


@pytest.mark.parametrize(
    ("write", "found"),
    [(palette, "PALETTE with 8"), (one_bit, "MINISBLACK with 1"), (white_is_zero, "MINISWHITE with 8")],
)
def test_samples_that_are_no_brightness_are_refused(tmp_path, write, found):
    write(tmp_path / "x.tif")
    expected = f"photometric is {found} bits a sample, accepted: MINISBLACK, RGB or YCBCR with 8, 16, 32 or 64"
    with pytest.raises(SlideError) as caught:
        inspect(tmp_path / "x.tif", slide="s", pixel_size=1)
    message = str(caught.value)
    assert "\n" not in message
    # each reader that could have opened it says why it does not
    for reader in ("tiffslide", "openslide", "tifffile"):
        assert f"{reader}: {expected}" in message or f"{reader}: not a format" in message
    assert f"tifffile: {expected}" in message


def test_the_middle_plane_of_a_stack_is_read_with_a_warning(tmp_path, caplog):
    planes = np.arange(5, dtype=np.uint8)[:, None, None] * 10 + np.zeros((1, 64, 64), np.uint8)
    tifffile.imwrite(tmp_path / "z.ome.tif", planes, metadata={"axes": "ZYX"}, tile=(64, 64))
    info = inspect(tmp_path / "z.ome.tif", slide="s", pixel_size=1)
    assert "of 5 planes along Z only the middle one" in caplog.text
    assert (open_slide(info).read(Bounds(0, 0, 64, 64), Shape2d(64, 64)) == 20).all()


@pytest.mark.parametrize("dpi", [72, 96, 300, 600])
def test_a_printers_resolution_is_no_pixel_size(tmp_path, picture, dpi):
    tifffile.imwrite(
        tmp_path / "p.tif", picture, photometric="rgb", tile=(64, 64), resolution=(dpi, dpi), resolutionunit="INCH"
    )  # fmt: skip
    with pytest.raises(SlideError, match=r"p\.tif: pixel size unknown: its resolution tags .* a screen's"):
        inspect(tmp_path / "p.tif", slide="s")


def test_a_resolution_without_unit_is_no_pixel_size(tmp_path, picture):
    tifffile.imwrite(tmp_path / "p.tif", picture, photometric="rgb", resolution=(20000, 20000), resolutionunit="NONE")
    with pytest.raises(SlideError, match="pixel size unknown: its resolution tags have no absolute unit"):
        inspect(tmp_path / "p.tif", slide="s")
