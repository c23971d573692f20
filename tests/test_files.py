"""Files appear whole or not at all, and failure records are recognised."""

import json
import shutil

import pyarrow as pa
import pytest

from gigaseg.errors import FormatError, UpstreamFailure, unknown
from gigaseg.files import (
    atomic,
    atomic_folder,
    digest,
    read_failure,
    read_json,
    read_parquet,
    write_failure,
    write_json,
    write_parquet,
)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write():
        with atomic(target) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_appears_whole_in_place_of_what_was_there_or_not_at_all(tmp_path):
    target = tmp_path / "a.zarr"

    def write(content, error=None):
        with atomic_folder(target) as temporary:
            (temporary / "sub").mkdir(parents=True)
            (temporary / "sub" / content).write_text(content)
            if error:
                raise error

    write("old")
    with pytest.raises(OSError, match="disk full"):
        write("half", OSError("disk full"))
    assert [path.name for path in target.rglob("*")] == ["sub", "old"]
    write("new")
    assert [path.name for path in target.rglob("*")] == ["sub", "new"]
    assert list(tmp_path.iterdir()) == [target]
    shutil.rmtree(target)
    target.write_text("a file")
    write("new")
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_record_is_recognised_whatever_the_name(tmp_path):
    for name in ("a.parquet", "b.tif", "c.json", "d.zarr"):
        write_failure(tmp_path / name, "grid", "line one\nline two")
        assert read_failure(tmp_path / name) == ("grid", "line one line two")
    with pytest.raises(UpstreamFailure, match="step 'grid' failed before: line one line two"):
        read_parquet(tmp_path / "a.parquet", "x")
    with pytest.raises(UpstreamFailure):
        read_json(tmp_path / "c.json", "x")


def test_the_failure_record_of_a_picture_is_a_picture(tmp_path):
    from PIL import Image

    write_failure(tmp_path / "overview.png", "inspect", "no such file: /data/größe.svs")
    with Image.open(tmp_path / "overview.png") as picture:
        assert picture.width > 300
    assert read_failure(tmp_path / "overview.png") == ("inspect", "no such file: /data/größe.svs")
    Image.new("RGB", (9, 9)).save(tmp_path / "plain.png")
    assert read_failure(tmp_path / "plain.png") is None


def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path):
    import subprocess
    import sys

    code = (
        "import os, sys; from gigaseg.files import atomic\n"
        "with atomic(sys.argv[1]) as t: t.write_text('half'); os.kill(os.getpid(), 9)"
    )
    target = tmp_path / "a.txt"
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert len(list(tmp_path.iterdir())) == 1, "a temporary file is left"
    with atomic(target) as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), MemoryError(), pa.lib.ArrowMemoryError("x")])
def test_a_fault_of_the_machine_is_never_taken_for_a_damaged_file(tmp_path, monkeypatch, fault):
    write_parquet(tmp_path / "a.parquet", pa.table({"a": [1]}), {"format": "x"})

    def broken(*args, **keys):
        raise fault

    monkeypatch.setattr(pa.parquet, "read_table", broken)
    with pytest.raises(type(fault)):
        read_parquet(tmp_path / "a.parquet", "x")


def test_other_files_are_no_failure_records(tmp_path):
    write_json(tmp_path / "a.json", {"format": "x", "status": "failed"})
    write_parquet(tmp_path / "b.parquet", pa.table({"a": [1]}), {"format": "x"})
    (tmp_path / "c").write_text("{broken")
    for name in ("a.json", "b.parquet", "c", "missing"):
        assert read_failure(tmp_path / name) is None


def test_a_foreign_partial_or_older_table_is_refused_by_name(tmp_path):
    good = tmp_path / "good.parquet"
    write_parquet(good, pa.table({"a": range(1000)}), {"format": "gigaseg/x/1"})
    table, metadata = read_parquet(good, "gigaseg/x/1")
    assert table.num_rows == 1000
    assert metadata["format"] == "gigaseg/x/1"
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:-20])
    foreign = tmp_path / "foreign.parquet"
    pa.parquet.write_table(pa.table({"a": [1]}), foreign)
    for path, words in ((cut, "cannot be read as Parquet"), (foreign, "no gigaseg metadata"), (good, "expected 'y'")):
        with pytest.raises(FormatError) as caught:
            read_parquet(path, "y")
        assert str(path) in str(caught.value)
        assert words in str(caught.value)


def test_tables_are_written_byte_for_byte_the_same(tmp_path):
    for name in ("a", "b"):
        write_parquet(tmp_path / name, pa.table({"a": [1, 2]}), {"format": "x", "b": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_nan_is_refused_in_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest(json.loads('{"b": [2], "a": 1}'))
    assert digest({"a": 1}) != digest({"a": 2})


def test_unknown_names_list_what_exists():
    assert unknown("reader", "x", ["a", "b"]) == "unknown reader 'x'; accepted: a, b"
