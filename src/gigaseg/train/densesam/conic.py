"""The layout of CoNIC: patches of colon tissue with six classes of nuclei, in two arrays."""

from __future__ import annotations

import csv
import math
from functools import partial
from pathlib import Path

import numpy as np

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.train.data import Classes, Entry

CLASSES = ("neutrophil", "epithelial", "lymphocyte", "plasma", "eosinophil", "connective")
"""Names of the classes 1 to 6; 0 is background."""

_COLUMN = "patch_info"


def conic(folder: Path) -> list[Entry]:
    """CoNIC 2022: ``images.npy`` (n, y, x, 3) uint8 and ``labels.npy`` (n, y, x, 2), an instance and a class map each.

    ``patch_info.csv`` has a column patch_info with a name such as consep_1-0000 a patch: up to the dash that of the
    image which it is of, taken for a patient, and up to the underscore the group. Without it there is neither. The
    split is `parts`, which divides images. Arrays are mapped into memory, each patch is read when it is wanted.

    Raises
    ------
    FormatError
        An array is missing, damaged or of another shape or type, or the table does not name each patch.
    """
    images, labels = folder / "images.npy", folder / "labels.npy"
    shape = _mapped(images, 3).shape
    found = _mapped(labels, 2).shape
    if found[:3] != shape[:3]:
        raise FormatError(f"{labels}: is {list(found)}, expected {[*shape[:3], 2]}, as many patches as {images} has")
    table = folder / "patch_info.csv"
    names = _names(table, shape[0]) if table.is_file() else [f"patch-{i:04d}" for i in range(shape[0])]
    sources = [name.rpartition("-")[0] if table.is_file() else "" for name in names]
    return [
        Entry(
            name,
            images,
            partial(_labels, labels, i),
            source.rpartition("_")[0],
            part,
            pixels=partial(_pixels, images, i),
            whole=source,
            classes=Classes(labels, partial(_classes, labels, i)),
            patient=source,
        )
        for i, (name, source, part) in enumerate(zip(names, sources, parts(shape[0])))
    ]


def parts(count: int) -> list[str]:
    """The part of each patch, in their order: 3486 train, 997 val and 498 test of the 4981 of CoNIC.

    As scikit-learn's train_test_split draws it for DenseSAM, 30 % and of those two thirds, both times by state 42.
    """
    rest = _drawn(count, 0.3)[1]
    test, val = _drawn(len(rest), 2 / 3)
    found = np.full(count, "train", dtype="U5")
    found[rest[val]], found[rest[test]] = "val", "test"
    return [str(part) for part in found]


def _drawn(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices that stay and those that are held out."""
    held = math.ceil(share * count)
    order = np.random.RandomState(42).permutation(count)
    return order[held:], order[:held]


def _pixels(path: Path, i: int) -> np.ndarray:
    return np.array(_mapped(path, 3)[i])


def _labels(path: Path, i: int, shape: tuple[int, int]) -> np.ndarray:
    return np.asarray(_mapped(path, 2)[i, ..., 0], np.int32)


def _classes(path: Path, i: int) -> dict[int, str]:
    """An instance whose pixels have class 0 has none."""
    ids, kinds = np.array(_mapped(path, 2)[i]).reshape(-1, 2).T
    numbers, first = np.unique(ids, return_index=True)
    found = {}
    for number, kind in zip(numbers.tolist(), kinds[first].tolist()):
        if not 0 <= kind <= len(CLASSES):
            raise FormatError(
                f"{path}: instance {number} of patch {i} has class {kind}, accepted: 1 to 6 ({', '.join(CLASSES)})"
            )
        if number and kind:
            found[number] = CLASSES[kind - 1]
    return found


def _mapped(path: Path, channels: int) -> np.ndarray:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(
            f"{path}: cannot be read as an array ({one_line(error)}); expected images.npy and labels.npy of CoNIC"
        ) from error
    typed = array.dtype == np.uint8 if channels == 3 else array.dtype.kind in "iu"
    if array.ndim != 4 or array.shape[3] != channels or not typed:
        raise FormatError(
            f"{path}: is {list(array.shape)} of {array.dtype}, expected (n, y, x, {channels}) of "
            f"{'uint8' if channels == 3 else 'whole numbers'}"
        )
    return array


def _names(path: Path, count: int) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or [])
            names = [(row.get(_COLUMN) or "").strip() for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read ({one_line(error)})") from error
    if _COLUMN not in columns:
        raise FormatError(f"{path}: no column {_COLUMN}; found: {', '.join(columns)}")
    if len(names) != count or len(set(names)) != count:
        raise FormatError(
            f"{path}: names {len(set(names))} patches in {len(names)} rows, expected one for each of {count} patches"
        )
    return names
