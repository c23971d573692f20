"""Slides on disk whose instances are known."""

from collections.abc import Callable
from pathlib import Path

import pytest

from measured import Files, write_slide


@pytest.fixture
def slide_files(tmp_path: Path) -> Callable[..., Files]:
    """Write an image as a slide, and the instances of a label image of its working pixels; see `write_slide`."""

    def write(image, labels, **options) -> Files:
        return write_slide(tmp_path, image, labels, **options)

    return write
