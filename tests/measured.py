"""Slides on disk whose instances are known, for tests of `measure`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from gigaseg.instances.polygons import polygons_from_labels
from gigaseg.instances.table import Instances


@dataclass(frozen=True)
class Files:
    """Inputs and outputs of `measure`."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        return self.folder / {
            "slide": "slide.tif", "info": "slide.json", "instances": "instances.parquet",
            "foreground": "foreground.tif", "measurements": "measurements.parquet", "summary": "summary.json",
        }[name]  # fmt: skip

    @property
    def inputs(self):
        return self.instances, self.info, self.foreground, self.measurements, self.summary


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
