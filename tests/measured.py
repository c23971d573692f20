"""Slides on disk whose instances are known, for tests of `measure`."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
import tifffile

from gigaseg.instances.polygons import polygons_from_labels
from gigaseg.instances.table import Instances
from gigaseg.slides.inspect import inspect
from gigaseg.tiles.foreground import Foreground
from gigaseg.tiles.tiling import Tiling


@dataclass
class Files:
    """Inputs and outputs of `measure`."""

    folder: Path
    regions: Path | None = None

    def __getattr__(self, name: str) -> Path:
        return self.folder / {
            "slide": "slide.tif", "info": "slide.json", "instances": "instances.parquet",
            "foreground": "foreground.tif", "measurements": "measurements.parquet", "summary": "summary.json",
        }[name]  # fmt: skip

    @property
    def inputs(self):
        return self.instances, self.info, self.foreground, self.measurements, self.summary


def write_slide(
    folder, image, labels, *, classes=("nucleus",), scale=(1.0, 1.0), unit="um", mask=None, **options
) -> Files:
    """Write an image as a slide, and the instances of a label image of its working pixels, measured in `unit`."""
    files = Files(folder)
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


def instances_of(labels, classes=("nucleus",), scale=(1.0, 1.0)):
    """Instances of a label image (working px) in level-0 px; classes in turn."""
    _, geometry = polygons_from_labels(labels)
    n = len(geometry)
    class_index = (np.arange(n) % len(classes)).astype(np.int32)
    return Instances(
        geometry=shapely.transform(geometry, lambda xy: xy * scale),
        score=np.ones(n, np.float32),
        class_index=class_index,
        class_prob=np.eye(len(classes), dtype=np.float32)[class_index],
        tile_row=np.zeros(n, np.int32),
        tile_col=np.zeros(n, np.int32),
        cut=np.zeros(n, np.uint8),
        prompt=np.full(n, -1, np.int64),
        classes=tuple(classes),
        members=np.ones(n, np.int16),
    )


def write_instances(path, found, tiling, outlines="pixels"):
    metadata = {"slide": "case-1", "segmenter": "annotations", "checkpoint": None, "outlines": outlines}
    found.write(path, {**metadata, "grid": tiling.to_dict(), "stitch": {}})
