"""Which images train and which validate: as the data set says, as a file says, or as the papers drew it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from gigaseg.errors import ConfigError, FormatError
from gigaseg.metrics.pannuke import FOLDS
from gigaseg.train.data import Entry
from gigaseg.train.layouts import read_tsv

PARTS = ("train", "val", "test")


def _own(entries: Sequence[Entry], seed: int) -> list[str]:
    """The split that the data set's index states."""
    for entry in entries:
        if entry.split not in PARTS:
            raise ConfigError(
                f"--split is own, but image '{entry.name}' has no split in the data set's index; accepted: "
                f"{', '.join(NAMED)}, or a TSV file with the columns image and split or fold"
            )
    return [entry.split for entry in entries]


def _own_val(entries: Sequence[Entry], seed: int, percent: int) -> list[str]:
    """The own split, where at least this part of each group's training images validates, patients undivided.

    For data sets that state no validation part. Patients are drawn at random; an image without one is its own.
    """
    parts = _own(entries, seed)
    if "val" in parts:
        raise ConfigError(
            f"--split is own-val-{percent}, but the data set has a validation part of its own; accepted: own"
        )
    of = {entry.name: entry.patient or entry.name for entry, part in zip(entries, parts) if part == "train"}
    patients = sorted(set(of.values()))
    order = [patients[i] for i in np.random.default_rng(seed).permutation(len(patients))]
    held: set[str] = set()
    for group in sorted({entry.group for entry in entries}):
        mine = [of[entry.name] for entry in entries if entry.name in of and entry.group == group]
        for patient in order:
            if sum(one in held for one in mine) >= len(mine) * percent / 100:
                break
            if patient in mine:
                held.add(patient)
        if mine and all(one in held for one in mine):
            raise ConfigError(
                f"--split own-val-{percent} leaves group '{group}' no image to train on (it has {len(mine)} of "
                f"{len(set(mine))} patients); accepted: groups of two patients and more"
            )
    return ["val" if of.get(entry.name) in held else part for entry, part in zip(entries, parts)]


def _all(entries: Sequence[Entry], seed: int) -> list[str]:
    """Every image trains; nothing validates."""
    return ["train"] * len(entries)


def _random_80_10_10(entries: Sequence[Entry], seed: int) -> list[str]:
    """80 % train, 10 % val, 10 % test at random: how dsb2018 is split in the papers, whose seeds are not known.

    Parts are rounded half up, the rest trains: 670 images give 536, 67 and 67.
    """
    n = len(entries)
    tenth = int(n / 10 + 0.5)
    parts = np.array(["train"] * n, dtype=object)
    order = np.random.default_rng(seed).permutation(np.argsort([entry.name for entry in entries]))
    parts[order[:tenth]], parts[order[tenth : 2 * tenth]] = "val", "test"
    return [str(part) for part in parts]


def _random_85_15(entries: Sequence[Entry], seed: int) -> list[str]:
    """85 % train, 15 % val at random, rounded half up: for a folder whose test images are a folder of their own."""
    n = len(entries)
    parts = np.array(["train"] * n, dtype=object)
    order = np.random.default_rng(seed).permutation(np.argsort([entry.name for entry in entries]))
    parts[order[: int(0.15 * n + 0.5)]] = "val"
    return [str(part) for part in parts]


def _pannuke(entries: Sequence[Entry], seed: int, folds: tuple[int, int, int]) -> list[str]:
    """A fold each to train, to validate and to test, as PanNuke's protocol has it (`gigaseg.metrics.pannuke.FOLDS`)."""
    part_of = {f"fold{fold}": part for fold, part in zip(folds, PARTS)}
    for entry in entries:
        if entry.whole not in part_of:
            raise ConfigError(
                f"--split is {_pannuke_name(folds)}, but image '{entry.name}' is of no fold; accepted: with "
                "--layout pannuke"
            )
    return [part_of[entry.whole] for entry in entries]


def _pannuke_name(folds: tuple[int, int, int]) -> str:
    return "pannuke-" + "".join(map(str, folds))


NAMED: dict[str, Callable[[Sequence[Entry], int], list[str]]] = {
    "own": _own,
    "own-val-20": partial(_own_val, percent=20),
    "own-val-15": partial(_own_val, percent=15),
    "random-80-10-10": _random_80_10_10,
    "random-85-15": _random_85_15,
    **{_pannuke_name(folds): partial(_pannuke, folds=folds) for folds in FOLDS},
    "all": _all,
}
"""Splits by name."""


def split(
    entries: Sequence[Entry], name: str = "own", *, fold: int | None = None, seed: int = 0, needed: str = "train"
) -> dict[str, list[Entry]]:
    """Divide entries into train, val and test.

    Parameters
    ----------
    name : one of `NAMED`, or a TSV file with the columns image and split (train, val, test), or image and fold.
    fold : with a file of folds, the one that validates; all others train.
    seed : of the random splits.
    needed : the part that must not be empty.

    Raises
    ------
    ConfigError
        The name is neither known nor a file, the fold is missing or not in the file, or `needed` is empty.
    FormatError
        The file lacks a column, or an image of the data set.
    """
    if name in NAMED and fold is not None:
        raise ConfigError(f"--fold is {fold}, but --split {name} has no folds; accepted: with a TSV file of folds")
    parts = NAMED[name](entries, seed) if name in NAMED else _from_file(entries, Path(name), fold)
    divided: dict[str, list[Entry]] = {part: [] for part in PARTS}
    for entry, part in zip(entries, parts, strict=True):
        divided[part].append(entry)
    if not divided[needed]:
        use = "to train on" if needed == "train" else f"for {needed}"
        raise ConfigError(f"--split {name} leaves no image {use}; found: {_counts(divided)}")
    return divided


def _counts(divided: dict[str, list[Entry]]) -> str:
    return ", ".join(f"{len(entries)} {part}" for part, entries in divided.items())


def _from_file(entries: Sequence[Entry], path: Path, fold: int | None) -> list[str]:
    if not path.is_file():
        raise ConfigError(f"--split is '{path}', accepted: {', '.join(NAMED)}, or a TSV file of images")
    rows = read_tsv(path, ("image",))
    column = "fold" if rows and "fold" in rows[0] else "split"
    if rows and column not in rows[0]:
        raise FormatError(f"{path}: no column split or fold; found: {', '.join(rows[0])}")
    listed = {row["image"]: row[column] or "" for row in rows}
    accepted = sorted(set(listed.values()))
    if column == "fold":
        if str(fold) not in accepted:
            raise ConfigError(f"--fold is {fold}, accepted with {path}: {', '.join(accepted)}")
        listed = {image: "val" if part == str(fold) else "train" for image, part in listed.items()}
    parts = []
    for entry in entries:
        part = listed.get(entry.name, listed.get(entry.whole))
        if part not in PARTS:
            raise FormatError(f"{path}: image '{entry.name}' has split '{part}', accepted: {', '.join(PARTS)}")
        parts.append(part)
    return parts
