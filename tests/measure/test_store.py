"""What is put aside comes back, and goes when the step has ended."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gigaseg.errors import is_machine_fault
from gigaseg.files import scratch
from gigaseg.measure.store import Store


def test_rows_come_back_as_they_were_put_aside(tmp_path):
    store = Store.create(tmp_path, 10, {"a": "f4", "b": "i4"})
    store.write("a", np.array([7, 2]), np.array([0.5, np.pi]))
    store.write("b", slice(3, 5), np.array([1, -1]))
    assert store.read("a", np.array([2, 7])).tolist() == [np.float32(np.pi), 0.5]
    assert np.isnan(store.read("a")).sum() == 8
    assert store.read("b").tolist() == [0, 0, 0, 1, -1, 0, 0, 0, 0, 0]


def test_no_rows_need_no_space(tmp_path):
    store = Store.create(tmp_path, 0, {"a": "f4"})
    store.write("a", slice(0, 0), np.empty(0))
    assert store.read("a").dtype == np.float32
    assert len(store.read("a")) == 0


def test_a_scratch_folder_goes_with_its_block_also_when_it_fails(tmp_path):
    def use():
        with scratch(tmp_path / "a.parquet") as folder:
            (folder / "x").write_text("aside")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        use()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_put_aside_is_removed_by_the_next(tmp_path):
    code = (
        "import os, sys; from gigaseg.files import scratch\n"
        "with scratch(sys.argv[1]) as f: (f / 'x').write_text('aside'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.parquet")], check=False)
    assert len(list(tmp_path.glob(".*/x"))) == 1
    with scratch(tmp_path / "a.parquet") as folder:
        assert list(tmp_path.iterdir()) == [folder]
        assert list(folder.iterdir()) == []


def test_what_another_machine_left_is_removed_after_a_day(tmp_path):
    old, new = (tmp_path / f".other-{age}.77.a.parquet.scratch" for age in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
        (folder / "x").write_text("aside")
    day_ago = time.time() - 90_000
    for path in (old, old / "x"):
        os.utime(path, (day_ago, day_ago))
    with scratch(tmp_path / "a.parquet"):
        assert new.exists()
        assert not old.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_the_machines_fault(tmp_path):
    (tmp_path / "a").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        Store.create(tmp_path, 2**21, {"a": "f8"})
    assert is_machine_fault(caught.value)
