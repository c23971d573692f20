"""Fixtures that every test may use."""

import os
import subprocess
from pathlib import Path

import pytest

# two processes of pytest share a small machine with those that they start: more threads would wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # more are processes that each import torch


def pytest_collection_modifyitems(items):
    """Whole runs of the workflow first: at the end one process would wait for the other's."""
    items.sort(key=lambda item: {"slurm", "workflow"}.isdisjoint(item.path.parts))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images (GIGASEG_DATA, else ../shared/data beside the repository); skips when it is absent."""
    folder = Path(os.environ.get("GIGASEG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "slides").is_dir():
        pytest.skip(f"real images not found in {folder} (set GIGASEG_DATA)")
    return folder


@pytest.fixture
def discs(tmp_path_factory):
    """The segmenter `discs`, which takes points (`hinted.Discs`), is installed."""
    from hinted import installed  # torch, which few tests need

    with installed(tmp_path_factory.mktemp("installed")):
        yield


@pytest.fixture
def spots(tmp_path_factory):
    """The segmenter `spots`, which proposes points (`proposing.Spots`), is installed."""
    from proposing import installed

    with installed(tmp_path_factory.mktemp("installed")):
        yield


@pytest.fixture(scope="session")
def _chromium():
    from browser import chromium  # selenium, which few tests need

    with chromium() as driver:
        yield driver


@pytest.fixture
def browser(_chromium):
    """A Selenium driver of a headless Chromium, 1400 x 1000 px, on an empty page; skips where there is none."""
    from browser import reset

    reset(_chromium)
    return _chromium


@pytest.fixture
def faked_clock():
    """Environment of processes whose clock is off, "-1d" for one; skips where libfaketime is not installed."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        pytest.skip("libfaketime is not installed (Debian: faketime)")

    def environment(offset):
        # as on a real machine, the monotonic clock goes on when the other one is set
        return {"LD_PRELOAD": str(libraries[0]), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    return environment


@pytest.fixture
def mounted(tmp_path):
    """Mounts small disks in memory; takes the folder and mount's options."""
    folders = []

    def mount(folder, options):
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)
