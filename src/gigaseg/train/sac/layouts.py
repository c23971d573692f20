"""The layout of a data set of SAC's published results: GlaS."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.train.data import Entry, read_labels

_PARTS = {"train": "train", "testA": "test", "testB": "test"}

_GRADES = ("benign", "malignant")

_NAME, _PATIENT, _GRADE = "name", "patient ID", "grade (GlaS)"


def glas(folder: Path) -> list[Entry]:
    """GlaS 2015 (Warwick-QU): ``PART_N.bmp`` and ``PART_N_anno.bmp`` with one id a gland; PART: train, testA, testB.

    ``Grade.csv`` states patient and grade of each image; the group is the grade. Without it there is neither. The
    parts share patients, as the challenge published them.

    Raises
    ------
    FormatError
        There is no such file, an image or annotation is without its counterpart, or the table lacks a column or image.
    """
    images: dict[str, Path] = {}
    annotated: dict[str, Path] = {}
    for path in sorted(folder.glob("*.bmp")):
        if path.name.partition("_")[0] in _PARTS:
            (annotated if path.stem.endswith("_anno") else images)[path.stem.removesuffix("_anno")] = path
    if not images:
        raise FormatError(f"{folder}: no train_N.bmp, testA_N.bmp or testB_N.bmp; expected the GlaS layout")
    for name in sorted(images.keys() ^ annotated.keys()):
        found = images.get(name) or annotated[name]
        raise FormatError(f"{found}: has no counterpart; expected {name}.bmp and {name}_anno.bmp")
    table = folder / "Grade.csv"
    stated = _grades(table) if table.is_file() else dict.fromkeys(images, ("", ""))
    for name in sorted(images.keys() - stated.keys()):
        raise FormatError(f"{table}: no row of image '{name}'; expected one for each image, or no such file")
    return [
        Entry(
            name,
            path,
            partial(_ids, annotated[name]),
            group=stated[name][1],
            split=_PARTS[name.partition("_")[0]],
            patient=stated[name][0],
        )
        for name, path in images.items()
    ]


def _ids(path: Path, shape: tuple[int, int]) -> np.ndarray:
    return read_labels(path)


def _grades(path: Path) -> dict[str, tuple[str, str]]:
    """Patient and grade of each image; blanks around names and values, which the published table has, do not count."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = [[cell.strip() for cell in line] for line in csv.reader(stream) if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read ({one_line(error)})") from error
    columns = lines[0] if lines else []
    missing = [name for name in (_NAME, _PATIENT, _GRADE) if name not in columns]
    if missing:
        raise FormatError(f"{path}: no column {', '.join(missing)}; found: {', '.join(columns)}")
    found = {}
    for row in (dict(zip(columns, line)) for line in lines[1:]):
        name, patient, grade = (row.get(column, "") for column in (_NAME, _PATIENT, _GRADE))
        if grade not in _GRADES:
            raise FormatError(
                f"{path}: grade of '{one_line(name)}' is '{one_line(grade)}', accepted: benign, malignant"
            )
        found[name] = (patient, grade)
    return found
