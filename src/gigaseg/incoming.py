"""The slides of a folder, in place of a sample sheet: which are there, what they are called, which are still copied."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from gigaseg.errors import ConfigError, one_line
from gigaseg.files import atomic, write_json
from gigaseg.sheet import MAX_NAME, Row, accepts_name
from gigaseg.slides.fingerprint import companions, fingerprint, last_change

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
    names : path -> name of every slide that was ever found, and the fingerprint it was last taken with.
    """

    rows: list[Row]
    waiting: list[str]
    names: dict[str, tuple[str, str]]

    def save(self, results: Path) -> None:
        """Write the names and the sample sheet into the results folder."""
        write_json(results / NAMES, {path: list(known) for path, known in self.names.items()})
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
        writer.writerow(["slide", "path", "preset"])
        writer.writerows([row.slide, str(row.path), row.preset] for row in self.rows)
        with atomic(results / SHEET) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")


def find_slides(folder: Path, results: Path, settle_minutes: float, preset: str) -> Found:
    """The slides of a folder and its sub-folders (those that are links are not entered).

    A slide is called by its file's name without the ending, a DICOM slide by its folder's; what a name may not hold
    becomes "_", and a name that is taken gets a number. Once found a slide keeps its name. Hidden files and those
    that belong to another slide (``companions``) are no slides of their own.

    Parameters
    ----------
    folder : where to look.
    results : the results folder, which has the names of slides found before.
    settle_minutes : how long nothing of a slide may have changed; one that was taken before as it is does not wait.
    preset : of all of them.

    Raises
    ------
    ConfigError
        There is no such folder, it cannot be read, or no slide is in it (nothing is mounted there?).
    """
    if not folder.is_dir():
        raise ConfigError(f"slides_dir is '{folder}', no such folder")
    try:
        paths = _slides(folder.resolve())
    except OSError as error:  # half a folder would be half a cohort
        raise ConfigError(f"slides_dir is '{folder}', which cannot be read ({one_line(error)})") from error
    if not paths:
        raise ConfigError(f"slides_dir is '{folder}', where no slide is (not mounted?); accepted: a folder with slides")
    names = _known(results)
    taken = {name.lower() for name, _ in names.values()}
    rows: list[Row] = []
    waiting: list[str] = []
    for path in paths:
        shown = _shown(path)
        name, before = names.get(shown) or (_name(path, taken), "")
        taken.add(name.lower())
        now = fingerprint(path)
        # a time ahead of the clock by more than that is a wrong clock, not a copy under way
        if now != before and abs(time.time() - last_change(path)) < settle_minutes * 60:
            waiting.append(name)
            names[shown] = (name, before)
        else:
            rows.append(Row(len(rows) + 2, name, Path(shown), preset))
            names[shown] = (name, now)
    return Found(rows, waiting, names)


def _slides(folder: Path) -> list[Path]:
    """Files that are slides, sorted."""

    def fail(error: OSError) -> None:
        raise error

    found = []
    for place, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in files if not name.startswith(".")]
    slides = sorted(path for path in found if path.suffix.lower() in SUFFIXES and path.is_file())
    belongs: set[Path] = set()
    for path in slides:
        if path not in belongs:
            # of a Hamamatsu slide all files that begin like it count, and some may be other slides
            parts = {".jpg"} if path.suffix.lower() in (".vms", ".vmu") else SUFFIXES
            belongs.update(other for other in companions(path) if other.suffix.lower() in parts)
    return [path for path in slides if path not in belongs]


def _shown(path: Path) -> str:
    """A path as a line of the sheet can hold it; one that it cannot is written with escapes and found missing."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    fits = {c: c != "\t" and len(f"a{c}b".splitlines()) == 1 for c in set(text)}
    return "".join(c if fits[c] else c.encode("unicode_escape").decode("ascii") for c in text)


def _known(results: Path) -> dict[str, tuple[str, str]]:
    try:
        known = json.loads((results / NAMES).read_text(encoding="utf-8"))
        return {str(path): (str(name), str(taken)) for path, (name, taken) in known.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        # without it slides would change their names, and finished ones run again
        raise ConfigError(f"{results / NAMES}: cannot be read ({one_line(error)}); mend it or remove it") from error


def _name(path: Path, taken: set[str]) -> str:
    stem = path.parent.name if path.suffix.lower() == ".dcm" else path.name.removesuffix(path.suffix)
    stem = re.sub(r"\.ome$", "", stem, flags=re.IGNORECASE)
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", stem).lstrip(".-")[: MAX_NAME - 6] or "slide"
    name, number = stem, 1
    while name.lower() in taken or not accepts_name(name):
        number += 1
        name = f"{stem}-{number}"
    return name
