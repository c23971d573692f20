"""The tile store gives back the pixels that the slide gives, in one reproducible file."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
import zarr

from gigaseg.errors import FormatError, SlideError, UpstreamFailure
from gigaseg.files import write_failure
from gigaseg.slides.base import SlideInfo
from gigaseg.slides.inspect import inspect
from gigaseg.tiles.archive import ArchiveReader, ArchiveWriter
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.source import SlideTiles
from gigaseg.tiles.store import StoredTiles, tile, write_tiles
from gigaseg.tiles.tiling import Tiling


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A slide of 300 x 420 px that ends inside its last tiles, cut into 5 x 7 tiles in two shards and an empty one."""
    folder = tmp_path_factory.mktemp("store")
    pixels = np.random.default_rng(0).integers(0, 256, (300, 420, 3), dtype=np.uint8)
    tifffile.imwrite(
        folder / "slide.tif",
        pixels,
        tile=(64, 64),
        photometric="rgb",
        resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )
    write_inputs(folder, tile_px=70, overlap=8)
    return folder


def write_inputs(folder: Path, *, tile_px: int, overlap: int, scale: float = 1.0, reader: str = "auto") -> Grid:
    info = inspect(folder / "slide.tif", slide="s", reader=reader)
    info.write(folder / "slide.json")
    size = (int(np.ceil(info.width / scale)), int(np.ceil(info.height / scale)))
    tiling = Tiling(tile_px, overlap, *size, (scale, scale), (0.5 * scale, 0.5 * scale), "um")
    row, col = (axis.reshape(-1).astype(np.int32) for axis in np.indices((tiling.rows, tiling.cols)))
    shard = (np.arange(len(row)) >= len(row) // 2).astype(np.int32)
    grid = Grid(tiling, "s", row, col, np.ones(len(row), np.float32), shard, 3)
    grid.write(folder / "grid.parquet")
    return grid


def run(folder: Path, out: Path, shard: int = 0, workers: int = 1) -> int:
    return tile(folder / "slide.json", folder / "grid.parquet", shard, out, workers=workers, digest="d")


@pytest.fixture(scope="module")
def stored(folder) -> Path:
    run(folder, folder / "000.zarr.zip")
    return folder / "000.zarr.zip"


@pytest.mark.parametrize("scale", [1.0, 1.7], ids=["native", "resampled"])
def test_stored_tiles_equal_those_read_from_the_slide_beyond_its_rim_too(folder, tmp_path, scale):
    os.link(folder / "slide.tif", tmp_path / "slide.tif")
    grid = write_inputs(tmp_path, tile_px=70, overlap=8, scale=scale)
    source = SlideTiles(SlideInfo.read(tmp_path / "slide.json"), grid.tiling)
    for shard in range(2):
        count = run(tmp_path, tmp_path / "t.zarr.zip", shard)
        tiles = grid.tiles(shard)
        assert count == len(tiles) > 3
        store = StoredTiles(tmp_path / "t.zarr.zip")
        assert (store.slide, store.shard, store.tiling) == ("s", shard, grid.tiling)
        for one in reversed(tiles):
            np.testing.assert_array_equal(store.read(one), source.read(one))
        store.close()
    corner = source.read(grid.tiles(1)[-1])
    assert (corner[-1] == 255).all(), "the last tile must reach beyond the slide"


def test_a_read_tile_is_contiguous_and_may_be_changed(stored, folder):
    pixels = StoredTiles(stored).read(Grid.read(folder / "grid.parquet").tiles(0)[0])
    assert pixels.flags.c_contiguous
    pixels[:] = 0


def test_plain_zarr_opens_the_store_and_sees_the_same_pixels(stored, folder):
    tiles = Grid.read(folder / "grid.parquet").tiles(0)
    store = StoredTiles(stored)
    with zarr.storage.ZipStore(stored, mode="r") as archive:
        group = zarr.open_group(archive, mode="r")
        image = group["image"][:]
        facts = dict(group.attrs)["gigaseg"]
        assert group["image"].chunks == (1, 70, 70, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.stack([store.read(one) for one in tiles]))
    assert list(zip(facts["row"], facts["col"])) == [(one.row, one.col) for one in tiles]
    assert (facts["format"], facts["slide"], facts["shard"], facts["digest"]) == ("gigaseg/tiles/1", "s", 0, "d")
    assert Tiling.from_dict(facts["grid"]) == store.tiling


def test_the_archive_passes_the_integrity_check_of_zipfile(stored):
    with zipfile.ZipFile(stored) as archive:
        assert archive.testzip() is None
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_file_is_the_same_byte_for_byte_in_every_run(folder, stored, tmp_path, workers):
    run(folder, tmp_path / "again.zarr.zip", workers=workers)
    assert (tmp_path / "again.zarr.zip").read_bytes() == stored.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.zarr.zip"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_empty_shard_gives_an_empty_valid_store(folder, tmp_path, workers):
    assert run(folder, tmp_path / "empty.zarr.zip", shard=2, workers=workers) == 0
    store = StoredTiles(tmp_path / "empty.zarr.zip")
    assert store.shard == 2
    with zarr.storage.ZipStore(tmp_path / "empty.zarr.zip", mode="r") as archive:
        assert zarr.open_group(archive, mode="r")["image"].shape == (0, 70, 70, 3)


def test_one_worker_starts_no_process(folder, tmp_path):
    code = (
        "import sys, gigaseg.tiles.store as s, multiprocessing.process as p\n"
        "def refuse(self): raise RuntimeError('a process was started')\n"
        "p.BaseProcess.start = refuse\n"
        "print(s.tile(*sys.argv[1:3], 0, sys.argv[3], workers=1))\n"
        "try: s.tile(*sys.argv[1:3], 0, sys.argv[3], workers=2)\n"
        "except RuntimeError as error: print(error)\n"
    )
    paths = [str(folder / "slide.json"), str(folder / "grid.parquet"), str(tmp_path / "o.zarr.zip")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["17", "a process was started"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_slide_cut_short_gives_its_slide_error_and_leaves_nothing(folder, tmp_path, workers):
    work = tmp_path / "in"
    work.mkdir()
    whole = (folder / "slide.tif").read_bytes()
    (work / "slide.tif").write_bytes(whole)
    write_inputs(work, tile_px=70, overlap=8, reader="tifffile")
    (work / "slide.tif").write_bytes(whole[: len(whole) // 2])
    info = SlideInfo.read(work / "slide.json")
    state = (work / "slide.tif").stat()
    replace(info, fingerprint=f"{state.st_size}-{state.st_mtime_ns}").write(work / "slide.json")
    with pytest.raises(
        SlideError, match=r"slide\.tif: reader tifffile cannot decode level 0, x .*damaged or truncated"
    ):
        run(work, tmp_path / "out" / "t.zarr.zip", shard=1, workers=workers)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_slide_that_vanished_is_named_in_one_line(folder, tmp_path, workers):
    os.link(folder / "slide.tif", tmp_path / "slide.tif")
    write_inputs(tmp_path, tile_px=70, overlap=8)
    (tmp_path / "slide.tif").unlink()
    with pytest.raises(SlideError, match=r"slide\.tif: no such file") as caught:
        run(tmp_path, tmp_path / "t.zarr.zip", workers=workers)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_inputs_of_different_slides_are_refused(folder, tmp_path):
    replace(SlideInfo.read(folder / "slide.json"), slide="other").write(tmp_path / "slide.json")
    with pytest.raises(FormatError, match=r"grid\.parquet: made for slide 's', expected 'other'"):
        tile(tmp_path / "slide.json", folder / "grid.parquet", 0, tmp_path / "t.zarr.zip")


def test_a_shard_that_the_grid_does_not_have_is_refused(folder, tmp_path):
    with pytest.raises(FormatError, match="shard 3 is outside the grid"):
        run(folder, tmp_path / "t.zarr.zip", shard=3)


@pytest.fixture
def running(tmp_path):
    """A tile step with 2 workers in the middle of its work: its process, its output, its workers."""
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "slide.tif", pixels, tile=(256, 256), photometric="rgb", compression="zlib",
        resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    write_inputs(tmp_path, tile_px=512, overlap=448)
    out = tmp_path / "out" / "t.zarr.zip"
    code = "import sys; from gigaseg.tiles.store import tile; tile(*sys.argv[1:3], 0, sys.argv[3], workers=2)"
    paths = [str(tmp_path / "slide.json"), str(tmp_path / "grid.parquet"), str(out)]
    process = psutil.Popen([sys.executable, "-c", code, *paths], stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 60
        while not any(path.stat().st_size > 5_000_000 for path in out.parent.glob(".*")):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.005)
        yield process, out, [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_killed_worker_ends_the_step_with_an_error_and_leaves_nothing(running):
    process, out, workers = running
    assert len(workers) == 2
    workers[0].send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "BrokenProcessPool" in errors
    assert list(out.parent.iterdir()) == []


def test_workers_end_when_their_parent_is_killed(running):
    process, out, workers = running
    process.suspend()  # the ring fills up and the workers wait
    time.sleep(0.5)
    process.kill()
    process.wait(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    assert not out.exists()


def test_a_full_disk_is_an_operating_system_error_and_leaves_nothing(folder, tmp_path):
    pytest.importorskip("resource")
    code = (
        "import sys, resource, signal; from gigaseg.tiles.store import tile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))\n"
        "try: tile(*sys.argv[1:3], 0, sys.argv[3])\n"
        "except OSError as error: print(error.errno)\n"
    )
    paths = [str(folder / "slide.json"), str(folder / "grid.parquet"), str(tmp_path / "t.zarr.zip")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert int(done.stdout) == errno.EFBIG, "what the system says when a file may not grow"
    assert list(tmp_path.iterdir()) == []


# damaged and foreign stores


def test_a_missing_store_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"000\.zarr\.zip: cannot be opened .*expected gigaseg/tiles/1"):
        StoredTiles(tmp_path / "000.zarr.zip")


def test_a_failure_record_gives_the_step_that_failed(tmp_path):
    write_failure(tmp_path / "t.zarr.zip", "grid", "no foreground")
    with pytest.raises(UpstreamFailure, match="step 'grid' failed before: no foreground"):
        StoredTiles(tmp_path / "t.zarr.zip")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_partial_store_is_refused_wherever_it_ends(stored, tmp_path, share):
    whole = stored.read_bytes()
    (tmp_path / "t.zarr.zip").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FormatError, match=r"t\.zarr\.zip: no complete ZIP archive .*expected gigaseg/tiles/1"):
        StoredTiles(tmp_path / "t.zarr.zip")


def test_a_damaged_tile_is_found_and_the_others_are_still_read(stored, folder, tmp_path):
    content = bytearray(stored.read_bytes())
    with zipfile.ZipFile(stored) as archive:
        content[archive.getinfo("image/c/2/0/0/0").header_offset + 500] ^= 1
    (tmp_path / "t.zarr.zip").write_bytes(content)
    store, tiles = StoredTiles(tmp_path / "t.zarr.zip"), Grid.read(folder / "grid.parquet").tiles(0)
    np.testing.assert_array_equal(store.read(tiles[1]), StoredTiles(stored).read(tiles[1]))
    with pytest.raises(FormatError, match=r"t\.zarr\.zip: member image/c/2/0/0/0 is damaged: wrong CRC-32"):
        store.read(tiles[2])


def test_a_tile_of_another_shard_is_refused(stored, folder):
    other = Grid.read(folder / "grid.parquet").tiles(1)[0]
    with pytest.raises(FormatError, match=rf"holds no tile of row {other.row}, column {other.col}"):
        StoredTiles(stored).read(other)


def rewritten(stored: Path, target: Path, change, compression: int = zipfile.ZIP_STORED) -> Path:
    """The store with its members passed through `change(name, bytes)`; None drops one."""
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(target, "w", compression) as copy:
        for name in source.namelist():
            content = change(name, source.read(name))
            if content is not None:
                copy.writestr(name, content)
    return target


def edited(member: str, edit):
    def change(name: str, content: bytes) -> bytes:
        if name != member:
            return content
        parsed = json.loads(content)
        edit(parsed)
        return json.dumps(parsed).encode()

    return change


FOREIGN = {
    "no group": (lambda name, content: None if name == "zarr.json" else content, "has no member zarr.json"),
    "no array": (lambda name, content: None if name == "image/zarr.json" else content, "has no member image/zarr.json"),
    "no chunk": (lambda name, content: None if name == "image/c/3/0/0/0" else content, "has no member image/c/3/0/0/0"),
    "short chunk": (
        lambda name, content: content[:-1] if name == "image/c/3/0/0/0" else content,
        "member image/c/3/0/0/0 declares 14699 bytes, not 14700",
    ),
    "no JSON": (lambda name, content: b"{" if name == "zarr.json" else content, "zarr.json is no JSON"),
    "empty JSON": (lambda name, content: b"" if name == "zarr.json" else content, "zarr.json is no JSON"),
    "nested JSON": (lambda name, content: b"[" * 10**6 if name == "zarr.json" else content, "zarr.json is no JSON"),
    "another group": (edited("zarr.json", lambda group: group.pop("attributes")), "format is None"),
    "older": (
        edited("zarr.json", lambda group: group["attributes"]["gigaseg"].update(format="gigaseg/tiles/0")),
        "format is 'gigaseg/tiles/0'",
    ),
    "no slide": (edited("zarr.json", lambda group: group["attributes"]["gigaseg"].pop("slide")), "'slide' is missing"),
    "no places": (
        edited("zarr.json", lambda group: group["attributes"]["gigaseg"].update(row=[0])),
        "is missing or wrong",
    ),
    "huge tile": (
        edited("zarr.json", lambda group: group["attributes"]["gigaseg"]["grid"].update(tile=10**9)),
        "is missing or wrong",
    ),
    "tile no number": (
        edited("zarr.json", lambda group: group["attributes"]["gigaseg"]["grid"].update(tile="big")),
        "is missing or wrong",
    ),
    "another dtype": (
        edited("image/zarr.json", lambda array: array.update(data_type="uint16")),
        "array image is not uint8",
    ),
}


@pytest.mark.parametrize(("change", "message"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_store_is_refused_in_one_line(stored, tmp_path, change, message):
    path = rewritten(stored, tmp_path / "t.zarr.zip", change)
    with pytest.raises(FormatError, match=message) as caught:
        StoredTiles(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "expected gigaseg/tiles/1" in text
    assert "\n" not in text


def test_a_bomb_is_refused_before_it_is_unpacked(stored, tmp_path):
    bomb = bytes(50_000_000)
    path = rewritten(
        stored, tmp_path / "t.zarr.zip", lambda name, _: bomb if name == "zarr.json" else b"", zipfile.ZIP_DEFLATED
    )
    with pytest.raises(FormatError, match=r"member zarr\.json is compressed, not stored"):
        StoredTiles(path)


def test_a_chunk_that_declares_more_than_the_file_holds_is_refused(stored, tmp_path):
    content = bytearray(stored.read_bytes())
    end = content.rindex(b"PK\1\2")  # the last entry of the directory: its sizes
    content[end + 20 : end + 28] = struct.pack("<2L", 0xFFFFFFFE, 0xFFFFFFFE)
    (tmp_path / "t.zarr.zip").write_bytes(content)
    with pytest.raises(FormatError, match="declares 4294967294 bytes, not 14700"):
        StoredTiles(tmp_path / "t.zarr.zip")


def test_a_compressed_picture_under_the_name_of_a_store_is_refused(folder):
    with pytest.raises(FormatError, match="no complete ZIP archive"):
        StoredTiles(folder / "slide.tif")


# the archive


def test_an_archive_beyond_4_gib_is_read_by_zipfile_and_by_the_reader(tmp_path):
    path = tmp_path / "large.zip"
    hole, last = np.zeros(2**31, np.uint8), b"the last member"
    try:
        with path.open("wb") as stream:
            archive = ArchiveWriter(_Sparse(stream))
            crc = zlib.crc32(hole)
            for index in range(3):
                archive.add(f"hole/{index}", hole.data, crc)
            archive.add("last", last, zlib.crc32(last))
            archive.close()
        with zipfile.ZipFile(path) as opened:
            assert opened.namelist() == ["hole/0", "hole/1", "hole/2", "last"]
            assert opened.read("last") == last
        assert ArchiveReader(path, "an archive").read("last", 100) == last
    finally:
        path.unlink(missing_ok=True)


class _Sparse:
    """A file in which large members become holes, so that a test of 6 GB writes none of them."""

    def __init__(self, stream) -> None:
        self._stream = stream
        self.fileno = stream.fileno

    def write(self, content) -> None:
        size = memoryview(content).nbytes
        if size > 2**20:
            self._stream.seek(size, os.SEEK_CUR)
        else:
            self._stream.write(content)


def test_an_archive_of_more_than_65535_members_is_read_by_zipfile(tmp_path):
    with (tmp_path / "many.zip").open("wb") as stream:
        archive = ArchiveWriter(stream)
        for index in range(70_000):
            archive.add(str(index), b"", 0)
        archive.close()
    with zipfile.ZipFile(tmp_path / "many.zip") as opened:
        assert len(opened.namelist()) == 70_000
        assert opened.namelist()[-1] == "69999"


def test_opening_is_cheap_and_reading_touches_one_tile(tmp_path):
    count, side = 2000, 64
    tiling = Tiling(side, 0, side * count, side, (1.0, 1.0), (0.5, 0.5), "um")
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    provenance = {
        "format": "gigaseg/tiles/1", "slide": "s", "shard": 0, "grid": tiling.to_dict(),
        "row": [0] * count, "col": list(range(count)),
    }  # fmt: skip
    path = tmp_path / "t.zarr.zip"
    write_tiles(path, provenance, side, ((pixels, zlib.crc32(pixels)) for _ in range(count)))
    before = psutil.Process().io_counters().read_chars
    store = StoredTiles(path)
    np.testing.assert_array_equal(store.read(tiling.get(0, 1234)), pixels)
    read = psutil.Process().io_counters().read_chars - before
    assert read < 0.1 * path.stat().st_size


def test_a_real_slide_gives_the_same_pixels_from_the_store(data, tmp_path):
    info = inspect(data / "slides" / "CMU-1-Small-Region.svs", slide="cmu")
    info.write(tmp_path / "slide.json")
    tiling = Tiling(512, 32, info.width, info.height, (1.0, 1.0), info.pixel_size, "um")
    row, col = np.array([2, 2, 2, 3, 6], np.int32), np.array([1, 2, 3, 1, 4], np.int32)
    grid = Grid(tiling, "cmu", row, col, np.ones(5, np.float32), np.zeros(5, np.int32), 1)
    grid.write(tmp_path / "grid.parquet")
    assert run(tmp_path, tmp_path / "t.zarr.zip", workers=2) == 5
    store, source = StoredTiles(tmp_path / "t.zarr.zip"), SlideTiles(info, tiling)
    for one in grid.tiles(0):
        np.testing.assert_array_equal(store.read(one), source.read(one))
