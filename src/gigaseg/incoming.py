"""The slides of a folder, in place of a sample sheet: which are there, what they are called, which are still copied."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gigaseg.errors import ConfigError, one_line
from gigaseg.files import atomic, write_json
from gigaseg.sheet import MAX_NAME, Row, accepts_name
from gigaseg.slides.fingerprint import companions, last_change

log = logging.getLogger(__name__)

SUFFIXES = frozenset(
    {
        ".svs", ".tif", ".tiff", ".btf", ".tf8", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm",
        ".jp2", ".png", ".jpg", ".jpeg",
    }
)  # fmt: skip
"""Ends of the names of files that are taken for slides."""

NAMES = ".names.json"
"""File in the results folder that holds the name of every slide that was ever found."""

SHEET = "slides.tsv"
"""File in the results folder that holds the sample sheet made of the slides found."""


@dataclass(frozen=True)
class Found:
    """Slides of a folder.

    Attributes
    ----------
    rows : those that are complete, sorted by path.
    waiting : names of those that changed too recently: they may still be copied.
    names : name of every slide that was ever found, by its path.
    """

    rows: list[Row]
    waiting: list[str]
    names: dict[str, str]

    def save(self, results: Path) -> None:
        """Write the names and the sample sheet into the results folder."""
        write_json(results / NAMES, self.names)
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
        writer.writerow(["slide", "path", "preset"])
        writer.writerows([row.slide, str(row.path), row.preset] for row in self.rows)
        with atomic(results / SHEET) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")


def find_slides(folder: Path, results: Path, settle_minutes: float, preset: str) -> Found:
    """The slides of a folder and its sub-folders.

    A slide is called by its file's name without the ending, a DICOM slide by its folder's; what a name may not hold
    becomes "_", and a name that is taken gets a number. Once found a slide keeps its name. Hidden files and those
    that belong to another slide (``companions``) are no slides of their own.

    Parameters
    ----------
    folder : where to look.
    results : the results folder, which has the names of slides found before.
    settle_minutes : how long nothing of a slide may have changed.
    preset : of all of them.

    Raises
    ------
    ConfigError
        There is no such folder, or no slide in it (nothing is mounted there?).
    """
    if not folder.is_dir():
        raise ConfigError(f"slides_dir is '{folder}', no such folder")
    paths = list(_slides(folder.resolve()))
    if not paths:
        raise ConfigError(f"slides_dir is '{folder}', where no slide is (not mounted?); accepted: a folder with slides")
    names = _known(results)
    taken = {name.lower() for name in names.values()}
    rows: list[Row] = []
    waiting: list[str] = []
    for path in paths:
        if str(path) not in names:
            names[str(path)] = _name(path, taken)
            taken.add(names[str(path)].lower())
        # a time ahead of the clock by more than that is a wrong clock, not a copy under way
        if abs(time.time() - last_change(path)) < settle_minutes * 60:
            waiting.append(names[str(path)])
        else:
            rows.append(Row(len(rows) + 2, names[str(path)], path, preset))
    return Found(rows, waiting, names)


def _slides(folder: Path) -> Iterator[Path]:
    """Files that are slides, sorted."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in files if not name.startswith(".")]
    slides = sorted(path for path in found if path.suffix.lower() in SUFFIXES and path.is_file())
    belongs: set[Path] = set()
    for path in slides:
        if path not in belongs:
            belongs.update(companions(path))
    for path in slides:
        if path not in belongs:
            if any(character in str(path) for character in "\t\r\n") or not str(path).isprintable():
                log.warning("%r is left out: its path holds characters that a table cannot", str(path))
            else:
                yield path


def _known(results: Path) -> dict[str, str]:
    try:
        known = json.loads((results / NAMES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        # without it slides would change their names, and finished ones run again
        raise ConfigError(f"{results / NAMES}: cannot be read ({one_line(error)}); mend it or remove it") from error
    if not isinstance(known, Mapping):
        raise ConfigError(f"{results / NAMES}: holds no names; mend it or remove it")
    return {str(path): str(name) for path, name in known.items()}


def _name(path: Path, taken: set[str]) -> str:
    stem = path.parent.name if path.suffix.lower() == ".dcm" else path.name.removesuffix(path.suffix)
    stem = re.sub(r"\.ome$", "", stem, flags=re.IGNORECASE)
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", stem).lstrip(".-")[: MAX_NAME - 6] or "slide"
    name, number = stem, 1
    while name.lower() in taken or not accepts_name(name):
        number += 1
        name = f"{stem}-{number}"
    return name
