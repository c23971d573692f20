"""OME-Zarr 0.5: the label image of the instances as a pyramid with its pixel size, for napari, Fiji and the like.

Fields as the specification has them: https://ngff.openmicroscopy.org/0.5 (multiscales, image-label).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from gigaseg.export.labels import LabelPyramid
from gigaseg.export.measured import MeasuredInstances
from gigaseg.files import atomic_folder

MOST_COLORED = 100_000
"""Instances whose colours are written: the format has them one by one, in a header that is read whole."""

UNITS = {"um": "micrometer", "m": "meter"}
"""Units of length as the format names them; pixels have none."""


def write_ome_zarr(found: MeasuredInstances, path: Path) -> None:
    """Write the label image as a Zarr folder; the slide's picture is not in it.

    Every instance up to `MOST_COLORED` of them has its class's colour and name; of more, viewers choose the colours.

    Parameters
    ----------
    found : the instances of a slide.
    path : target, a folder; replaced when complete.

    Raises
    ------
    FormatError
        As `MeasuredInstances`; or instances.parquet does not tell its working resolution.
    """
    labels = LabelPyramid.of(found)
    with atomic_folder(path) as temporary:
        group = zarr.create_group(temporary, attributes={"ome": _header(found, labels)})
        labels.write(group)


def _header(found: MeasuredInstances, labels: LabelPyramid) -> dict[str, Any]:
    x, y = labels.tiling.pixel_size
    unit = UNITS.get(labels.tiling.unit)
    axes = [{"name": name, "type": "space", **({"unit": unit} if unit else {})} for name in ("y", "x")]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [y * 2**level, x * 2**level]}],
        }
        for level in range(len(labels.shapes))
    ]
    multiscale = {"name": "instances", "axes": axes, "datasets": datasets, "type": "nearest"}
    label: dict[str, Any] = {"version": "0.5"}
    if found.count <= MOST_COLORED:
        number = [(found.classes[k], [*found.colors[k], 255], i) for i, k in enumerate(_classes(found), 1)]
        label["colors"] = [{"label-value": i, "rgba": rgba} for _, rgba, i in number]
        label["properties"] = [{"label-value": i, "class": name} for name, _, i in number]
    return {"version": "0.5", "multiscales": [multiscale], "image-label": label}


def _classes(found: MeasuredInstances) -> list[int]:
    """Class of each instance, in the order of their numbers."""
    return list(np.concatenate([np.empty(0, np.int32), *(batch.class_index for batch in found)]).tolist())
