"""A slide on disk whose instances are known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from gigaseg.slides.inspect import inspect
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.tiling import Tiling
from measured import Files, instances_of, write_instances


@pytest.fixture
def slide_files(tmp_path: Path) -> Callable[..., Files]:
    """Write an image as a slide, and the instances of a label image of its working pixels, measured in `unit`."""

    def write(image, labels, *, classes=("nucleus",), scale=(1.0, 1.0), unit="um", mask=None, **options) -> Files:
        files = Files(tmp_path)
        tifffile.imwrite(
            files.slide, image, tile=(128, 128), compression="zlib", resolution=(2e4, 2e4),
            resolutionunit="CENTIMETER", photometric="rgb" if image.shape[-1] == 3 else "minisblack", metadata=None,
        )  # fmt: skip
        info = replace(inspect(files.slide, slide="case-1", unit=unit), **options)
        info.write(files.info)
        size = (info.pixel_size[0] * scale[0], info.pixel_size[1] * scale[1])
        tiling = Tiling(256, 64, labels.shape[1], labels.shape[0], scale, size, info.unit)
        write_instances(files.instances, instances_of(labels, classes, scale), tiling)
        mask = np.ones((5, 5), bool) if mask is None else mask
        Foreground(mask, (info.width / mask.shape[1], info.height / mask.shape[0]), "tissue").write(files.foreground)
        return files

    return write
