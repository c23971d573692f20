"""Where data sets keep images and instances: our plain folder, and the published layouts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from gigaseg.errors import FormatError, unknown
from gigaseg.train.centersam.layouts import monuseg_crops, tissuenet
from gigaseg.train.cfrsam.layouts import consep, consep_types
from gigaseg.train.cfrsam.pannuke import pannuke
from gigaseg.train.data import Classes, Entry, read_labels
from gigaseg.train.densesam.conic import conic
from gigaseg.train.densesam.layouts import (
    cpm15,
    cpm17,
    cpm17_tiles,
    inria,
    inria_buildings,
    massachusetts,
    monuseg_tiles,
    whu,
)
from gigaseg.train.published import dsb2018, monuseg
from gigaseg.train.sac.layouts import glas

IMAGE_SUFFIXES = (".png", ".webp", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")


def plain(folder: Path) -> list[Entry]:
    """``images/NAME.*`` with ``labels/NAME.png`` and, optional, ``index.tsv`` and ``classes.tsv``.

    The index has the columns image (the stem) and, if wanted, modality or group, and split; only images it lists are
    taken. Without an index all images are. The classes have the columns image, instance (its id in the label image) and
    class.

    Raises
    ------
    FormatError
        A folder or column is missing, or an image has no label image (or the reverse).
    """
    images = _by_stem(folder / "images")
    labels = _by_stem(folder / "labels")
    index = folder / "index.tsv"
    if index.is_file():
        rows = read_tsv(index, ("image",))
        names = [row["image"] for row in rows]
    else:
        rows = [{"image": name} for name in images]
        names = list(images)
    classes = _classes(folder / "classes.tsv", names)
    for name in names:
        if name not in images:
            raise FormatError(f"{folder / 'images'}: no image '{name}', which {index} lists")
        if name not in labels:
            raise FormatError(f"{folder / 'labels'}: no label image for '{images[name].name}'; expected {name}.png")
    return [
        Entry(
            row["image"],
            images[row["image"]],
            partial(_label_image, labels[row["image"]]),
            group=row.get("modality") or row.get("group") or "",
            split=row.get("split") or "",
            classes=classes.get(row["image"]),
        )
        for row in rows
    ]


def _classes(path: Path, names: Sequence[str]) -> dict[str, Classes]:
    """The classes of each of these images, as a table states them; none without that table."""
    if not path.is_file():
        return {}
    stated: dict[str, dict[int, str]] = {name: {} for name in names}
    for row in read_tsv(path, ("image", "instance", "class")):
        image, instance = row["image"], row["instance"] or ""
        if not instance.isdecimal():
            raise FormatError(f"{path}: instance of image '{image}' is '{instance}', accepted: a whole number >= 1")
        if stated.setdefault(image, {}).setdefault(int(instance), row["class"] or "") != (row["class"] or ""):
            raise FormatError(f"{path}: instance {instance} of image '{image}' has two classes, accepted: one")
    return {image: Classes(path, partial(dict, found)) for image, found in stated.items()}


def _label_image(path: Path, shape: tuple[int, int]) -> np.ndarray:
    return read_labels(path)


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FormatError(f"{folder}: no such folder; expected images/ and labels/ with files of the same names")
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES}
    if not found:
        raise FormatError(f"{folder}: holds no image; accepted: {', '.join(IMAGE_SUFFIXES)}")
    return found


def read_tsv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a table of tab-separated values; raises FormatError when it cannot be read or lacks one of `columns`."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t")
            found = list(reader.fieldnames or [])
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path}: cannot be read ({error})") from error
    missing = [name for name in columns if name not in found]
    if missing:
        raise FormatError(f"{path}: no column {', '.join(missing)}; found: {', '.join(found)}")
    return rows


LAYOUTS: dict[str, Callable[[Path], list[Entry]]] = {
    "plain": plain,
    "dsb2018": dsb2018,
    "monuseg": monuseg,
    "monuseg-crops": monuseg_crops,
    "tissuenet": tissuenet,
    "glas": glas,
    "conic": conic,
    "cpm15": cpm15,
    "cpm17": cpm17,
    "cpm17-tiles": cpm17_tiles,
    "monuseg-tiles": monuseg_tiles,
    "whu": whu,
    "inria": inria,
    "inria-buildings": inria_buildings,
    "massachusetts": massachusetts,
    "pannuke": pannuke,
    "consep": consep,
    "consep-types": consep_types,
}
"""Layouts by name; a method's own layouts join here, and the help of `gigaseg.train.train` names them."""


def read_layout(name: str, folder: Path) -> list[Entry]:
    """Entries of the data set in `folder`; raises FormatError for an unknown layout or a wrong folder."""
    if name not in LAYOUTS:
        raise FormatError(unknown("layout", name, LAYOUTS))
    return LAYOUTS[name](folder)
