"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest


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
