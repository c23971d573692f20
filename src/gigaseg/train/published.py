"""Published layouts: the 2018 Data Science Bowl, and MoNuSeg."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.train.data import Entry, read_labels


def dsb2018(folder: Path) -> list[Entry]:
    """Stage 1 of the 2018 Data Science Bowl: ``ID/images/ID.png`` and ``ID/masks/*.png``, one mask an instance.

    `folder` is ``stage1_train`` or holds it. Where masks overlap, the later one in the order of names has the pixels.

    Raises
    ------
    FormatError
        No such folders, or an image without image file or masks.
    """
    inner = folder / "stage1_train"
    folder = inner if inner.is_dir() else folder
    entries = []
    for case in sorted(path for path in folder.iterdir() if (path / "images").is_dir()) if folder.is_dir() else ():
        images = sorted((case / "images").glob("*.png"))
        if len(images) != 1:
            raise FormatError(f"{case / 'images'}: holds {len(images)} PNG files, expected one")
        masks = sorted((case / "masks").glob("*.png"))
        if not masks:
            raise FormatError(f"{case / 'masks'}: holds no PNG file, expected one mask an instance")
        entries.append(Entry(case.name, images[0], partial(_from_masks, masks)))
    if not entries:
        raise FormatError(f"{folder}: no ID/images/ID.png; expected stage1_train of the 2018 Data Science Bowl")
    return entries


def _from_masks(masks: list[Path], shape: tuple[int, int]) -> np.ndarray:
    labels = np.zeros(shape, np.int32)
    for number, path in enumerate(masks, 1):
        mask = read_labels(path)
        if mask.shape != shape:
            raise FormatError(
                f"{path}: {mask.shape[1]} × {mask.shape[0]} px, but its image has {shape[1]} × {shape[0]} px"
            )
        labels[mask > 0] = number
    return labels


def monuseg(folder: Path) -> list[Entry]:
    """MoNuSeg 2018: ``Tissue Images/NAME.tif`` and ``Annotations/NAME.xml`` with a polygon an instance.

    The group is the patient: the first twelve characters of a TCGA barcode. Vertices are in px with pixel corners at
    integers; a pixel belongs to a polygon that holds its centre; where polygons overlap, to the later one.

    Raises
    ------
    FormatError
        A folder is missing, or an image or annotation is without its counterpart.
    """
    images = {path.stem: path for path in sorted((folder / "Tissue Images").glob("*.tif"))}
    outlines = {path.stem: path for path in sorted((folder / "Annotations").glob("*.xml"))}
    if not images or not outlines:
        raise FormatError(f"{folder}: no 'Tissue Images/*.tif' with 'Annotations/*.xml'; expected the MoNuSeg layout")
    for name in sorted(images.keys() ^ outlines.keys()):
        found = images.get(name) or outlines[name]
        raise FormatError(f"{found}: has no counterpart; expected Tissue Images/{name}.tif and Annotations/{name}.xml")
    return [Entry(name, path, partial(_from_xml, outlines[name]), name[:12]) for name, path in images.items()]


def _from_xml(path: Path, shape: tuple[int, int]) -> np.ndarray:
    from skimage.draw import polygon

    labels = np.zeros(shape, np.int32)
    try:
        regions = ElementTree.parse(path).getroot().iter("Region")
        for number, region in enumerate(regions, 1):
            corners = np.array([[float(v.attrib["Y"]), float(v.attrib["X"])] for v in region.iter("Vertex")])
            if len(corners) > 2:
                # skimage tests integer positions: shift so that these are the pixels' centres
                inside = polygon(corners[:, 0] - 0.5, corners[:, 1] - 0.5, shape)  # type: ignore[no-untyped-call]
                labels[inside] = number
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read as an XML of outlines ({one_line(error)})") from error
    return labels
