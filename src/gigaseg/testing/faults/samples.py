"""An intact file of each format: real slides of a folder of data, and pictures that are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.testing.slides import synthetic_image

FORMATS: dict[str, str | None] = {
    "svs": "slides/CMU-1-Small-Region.svs",
    "ndpi": "slides/dapi.ndpi",
    "dicom": "slides/dicom/multi_frame_jpeg2000_camelyon_challenge_image.dcm",
    "pyramid": "slides/C3L-00601-26.tif",
    "geotiff": "raster/town.tif",
    "geotiff-16bit": "raster/atlanta_pan.tif",
    "ome-tiff": None,
    "strips": None,
    "png": None,
    "jpeg": None,
}
"""Formats, and where in the folder of data a file of each lies; None: it is made."""


@dataclass(frozen=True)
class Sample:
    """A file, and for a raster the polygons on it, which the segmenter `annotations` takes."""

    path: Path
    annotations: Path | None = None


def sample(name: str, folder: Path, data: Path | None) -> Sample:
    """The file of a format.

    Parameters
    ----------
    name : one of `FORMATS`.
    folder : where a made one is written.
    data : the folder of real slides.
    """
    place = FORMATS[name]
    if place is not None:
        if data is None:
            raise ValueError(f"format '{name}' needs the folder of real slides")
        polygons = data / place.replace(".tif", "_buildings.geojson")
        return Sample(data / place, polygons if name.startswith("geotiff") else None)
    suffix = {"ome-tiff": ".ome.tif", "strips": ".tif", "png": ".png", "jpeg": ".jpg"}[name]
    path = folder / f"{name}{suffix}"
    _write(name, path, synthetic_image((500, 700), seed=1)[0])
    return Sample(path)


def _write(name: str, path: Path, image: npt.NDArray[np.uint8]) -> None:
    import tifffile
    from PIL import Image

    if name in ("png", "jpeg"):
        Image.fromarray(image).save(path, quality=85)
        return
    options: dict[str, Any] = {"photometric": "rgb", "compression": "deflate"}
    if name == "strips":
        tifffile.imwrite(path, image, rowsperstrip=32, **options)
        return
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        options["tile"] = (128, 128)
        tif.write(image, subifds=1, metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, **options)
        tif.write(np.ascontiguousarray(image[::2, ::2]), subfiletype=1, **options)
