"""Layouts of CFR-SAM's protocols beside PanNuke and those that other methods share: CoNSeP with its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from gigaseg.errors import FormatError
from gigaseg.metrics.images import read_labels
from gigaseg.train.data import Classes, Entry
from gigaseg.train.densesam.layouts import cpm15

CONSEP_TYPES = (
    "miscellaneous",
    "inflammatory",
    "healthy epithelial",
    "malignant epithelial",
    "fibroblast",
    "muscle",
    "endothelial",
)
"""Names of the types 1 to 7; 0 is background."""

CONSEP = ("miscellaneous", "inflammatory", "epithelial", "epithelial", "spindle", "spindle", "spindle")
"""The four classes that papers merge these into, as the readme of the data set says."""


def consep(folder: Path, names: Sequence[str] = CONSEP) -> list[Entry]:
    """CoNSeP: ``Images/NAME.png`` and ``Labels/NAME.mat``, once in ``Train`` and once in ``Test``.

    A label file has ``inst_map`` (y, x), and ``inst_type``, the type of each instance in the order of the ids, or
    ``type_map`` (y, x).

    Parameters
    ----------
    names : of the types 1 to 7.

    Raises
    ------
    FormatError
        A folder is missing, or an image or label file is without its counterpart.
    """
    return [
        replace(entry, split=part, classes=Classes(labels, partial(_types, labels, names)))
        for part in ("train", "test")
        for entry in cpm15(folder / part.capitalize())
        for labels in [folder / part.capitalize() / "Labels" / f"{entry.name}.mat"]
    ]


def consep_types(folder: Path) -> list[Entry]:
    """`consep` with all seven types."""
    return consep(folder, CONSEP_TYPES)


def _types(path: Path, names: Sequence[str]) -> dict[int, str]:
    """An instance of type 0 has no class."""
    found = {}
    stated = read_labels(path).class_of
    if stated is None:
        raise FormatError(f"{path}: states no types, expected inst_type or type_map")
    for number, kind in stated.items():
        if not 0 <= int(kind) <= len(names):
            raise FormatError(f"{path}: instance {number} has type {kind}, accepted: 1 to {len(names)}")
        if int(kind):
            found[number] = names[int(kind) - 1]
    return found
