"""Files that are missing, no slides, or cut short."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from gigaseg.errors import SlideError
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides import pillow_reader
from gigaseg.slides.fingerprint import fingerprint
from gigaseg.slides.inspect import header, inspect
from gigaseg.slides.registry import READERS, open_slide, open_source


def refusal(path, **arguments) -> str:
    with pytest.raises(SlideError) as caught:
        inspect(path, **{"slide": "s", "pixel_size": 1, **arguments})
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_a_missing_file_a_folder_and_an_empty_file_have_one_clear_line(tmp_path):
    (tmp_path / "empty.svs").touch()
    assert refusal(tmp_path / "none.svs").endswith("none.svs: no such file")
    assert "is a folder, a file is needed" in refusal(tmp_path)
    assert refusal(tmp_path / "empty.svs").endswith("empty.svs: the file is empty")


def test_a_text_file_is_refused_with_each_readers_reason(tmp_path):
    path = tmp_path / "notes.svs"
    path.write_text("This is no slide.\n" * 100)
    message = refusal(path)
    assert "no reader opens it" in message
    for reader in READERS:
        assert f"{reader}: " in message
        assert f"cannot be opened; {reader}: " in refusal(path, reader=reader)


def test_an_unknown_reader_is_refused_with_what_exists(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(path)
    message = refusal(path, reader="openslid")
    assert "unknown reader 'openslid'; accepted: auto, rasterio, tiffslide, openslide, tifffile, pillow" in message
    assert "did you mean 'openslide'?" in message


@pytest.mark.parametrize("reader", ["rasterio", "tiffslide", "tifffile", "pillow"])
def test_a_region_that_the_file_no_longer_holds_is_an_error(tmp_path, picture, reader):
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    if reader == "pillow":
        Image.fromarray(picture).save(whole, format="JPEG")
    else:
        tifffile.imwrite(whole, picture, photometric="rgb", tile=(64, 64), compression="jpeg")
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) * 6 // 10])
    source = open_source(cut, reader)[1]  # its header is there
    source.close()
    assert f"reader {reader} cannot decode level 0" in refusal(cut, reader=reader)
    refusal(cut)


def test_the_part_that_is_there_can_be_read(tmp_path, picture):
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(whole, picture, photometric="rgb", tile=(64, 64), compression="jpeg")
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) * 6 // 10])
    source = open_source(whole, "tiffslide")[1]
    assert source.read_level(0, 0, 0, 200, 150, (0, 1, 2)).shape == (150, 200, 3)
    with pytest.raises(SlideError, match="the file ends before 5 of the 5 blocks needed"):
        source.read_level(0, 400, 490, 250, 5, (0, 1, 2))


def test_a_file_that_ends_before_its_last_directory_is_refused(tmp_path, write_for):
    content = write_for("tiffslide").path.read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(content[: len(content) * 9 // 10])
    message = refusal(path)
    for reader in ("tiffslide", "tifffile"):
        assert f"{reader}: the file ends before its last directory" in message


def test_damage_inside_a_tile_is_an_error(tmp_path, picture):
    path = tmp_path / "d.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(64, 64), compression="deflate")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[20], tif.pages[0].databytecounts[20]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\xff" * count
    path.write_bytes(content)
    for reader in ("rasterio", "tiffslide", "tifffile"):
        assert f"reader {reader} cannot decode level 0" in refusal(path, reader=reader)


def test_a_truncated_svs_is_refused_by_every_reader(tmp_path, data):
    content = (data / "slides" / "CMU-1-Small-Region.svs").read_bytes()
    for share in (0.6, 0.95):
        path = tmp_path / f"cut{share}.svs"
        path.write_bytes(content[: int(len(content) * share)])
        refusal(path)
        for reader in READERS:
            refusal(path, reader=reader)


def test_truncated_dicom_and_ndpi_are_refused(tmp_path, data):
    for name in ("dapi.ndpi", "dicom/multi_frame_jpeg2000_camelyon_challenge_image.dcm"):
        content = (data / "slides" / name).read_bytes()
        path = tmp_path / name.replace("/", "")
        path.write_bytes(content[: len(content) * 6 // 10])
        refusal(path)


def test_tiles_that_were_never_written_go_to_openslide_and_become_background(tmp_path, picture):
    path = tmp_path / "sparse.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(64, 64), compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        counts = page.tags["TileByteCounts"]
        offsets = page.tags["TileOffsets"]
        places = [(tag.valueoffset, tif.tiff.byteorder + tag.dtype.name[0]) for tag in (counts, offsets)]
        width = {"S": 2, "L": 4}
        sizes = [width[place[1][1]] for place in places]
    content = bytearray(path.read_bytes())
    for (start, _), size in zip(places, sizes):
        content[start : start + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(SlideError, match="tiffslide: some tiles were never written"):
        open_source(path, "tiffslide")
    info = inspect(path, slide="s", pixel_size=1)
    assert info.reader == "openslide"
    found = open_slide(info).read(Bounds(0, 0, 128, 64), Shape2d(64, 128))
    assert (found[:, :64] == 255).all()
    assert np.abs(found[:, 64:].astype(int) - picture[:64, 64:128]).mean() < 30


def test_a_huge_picture_without_tiles_says_what_to_do(tmp_path):
    path = tmp_path / "huge.png"
    header_chunk = b"IHDR" + struct.pack(">IIBBBBB", 65000, 40000, 8, 0, 0, 0, 0)
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header_chunk, b"IDAT")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    message = refusal(path)
    assert "pillow: 65000 x 40000 px without tiles must be decoded as a whole, accepted up to 2,000,000,000" in message
    assert "vips tiffsave" in message
    with pytest.raises(SlideError, match="without tiles"):
        header(path, pixel_size=1, reader="pillow")


def test_a_large_picture_is_not_stopped_by_pillows_bomb_check(tmp_path, monkeypatch):
    monkeypatch.setattr(pillow_reader.Image, "MAX_IMAGE_PIXELS", 89478485)  # Pillow's own, whatever ran before
    path = tmp_path / "large.png"
    Image.new("L", (20000, 10000), 200).save(path, compress_level=1)  # more than Pillow's 178,956,970
    limit = pillow_reader.Image.MAX_IMAGE_PIXELS
    assert header(path, pixel_size=1).width == 20000
    assert limit == pillow_reader.Image.MAX_IMAGE_PIXELS, "the check of other programs is left as it was"


@pytest.mark.parametrize(("mode", "name"), [("P", "PALETTE"), ("1", "1-bit"), ("CMYK", "CMYK")])
def test_pictures_whose_values_are_no_brightness_are_refused(tmp_path, mode, name):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new(mode, (32, 32)).save(path)
    assert f"pillow: photometric is {name}, accepted: 8 or 16-bit grey, 8-bit RGB" in refusal(path)


def test_grey_16_bit_and_transparent_pictures(tmp_path):
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(ramp).save(tmp_path / "grey16.png")
    info = inspect(tmp_path / "grey16.png", slide="s", pixel_size="px")
    assert (info.dtype, info.channels) == ("uint16", ("grey",))
    found = open_slide(info).read(Bounds(0, 0, 64, 64), Shape2d(64, 64))
    np.testing.assert_array_equal(found[..., 0], ramp)
    rgba = np.full((64, 64, 4), 120, np.uint8)
    rgba[:, :32, 3], rgba[:, 32:, 3] = 0, 255
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    info = inspect(tmp_path / "rgba.png", slide="s", pixel_size="px")
    found = open_slide(info).read(Bounds(0, 0, 64, 64), Shape2d(64, 64))
    assert (found[:, :32] == 255).all()
    assert (found[:, 32:] == 120).all()


def test_a_fingerprint_changes_with_the_file_and_its_companions(tmp_path):
    slide = tmp_path / "a.mrxs"
    assert fingerprint(slide) == "missing"
    assert fingerprint(tmp_path) == "missing"
    slide.write_bytes(b"123")
    alone = fingerprint(slide)
    assert alone == f"3-{slide.stat().st_mtime_ns}"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"4567")
    assert fingerprint(slide).startswith("7-")
    raster = tmp_path / "r.tif"
    raster.write_bytes(b"12")
    before = fingerprint(raster)
    (tmp_path / "other.tfw").write_text("1")
    assert fingerprint(raster) == before
    (tmp_path / "r.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    assert fingerprint(raster) != before
    first, second = tmp_path / "1.dcm", tmp_path / "2.dcm"
    first.write_bytes(b"1")
    before = fingerprint(first)
    second.write_bytes(b"1")
    assert fingerprint(first) == fingerprint(second) != before
