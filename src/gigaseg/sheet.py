"""slides.tsv: the sample sheet. A wrong row becomes a failed slide; a sheet that cannot be read is an error."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path

from gigaseg.errors import SheetError, one_line, unknown

COLUMNS = {
    "slide": "name, letters, digits, '.', '_' and '-'",
    "path": "slide file, relative to the sheet",
    "preset": "preset in config.yaml; empty: the first one",
    "pixel_size": "size of a level-0 pixel in the preset's unit, or px to work and measure in pixels",
    "reader": "reader by name; empty: auto",
    "channels": "channels to render, by name or 1-based number, comma-separated",
    "annotations": "polygons for the segmenter 'annotations' (GeoJSON, GeoPackage, GeoParquet)",
    "prompts": "points, boxes, polygons for segmenter 'prompted', points for 'sac' (GeoJSON, GeoPackage, GeoParquet)",
    "exemplar": "what 'persense' looks for: polygons on the slide (GeoJSON, GeoPackage, GeoParquet), or a picture with "
    "NAME_mask.png beside it",
    "regions": "polygons to report on",
    "group": "label for comparisons in the cohort",
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
MAX_NAME = 128
_RESERVED = {
    "cohort.tsv", "cohort.parquet", "cohort_measurements.tsv", "report.html", "slides.tsv", "log", "run", "nights",
    "viewer",
}  # fmt: skip
"""Names in the results folder that are the cohort's own."""


@dataclass(frozen=True)
class Row:
    """One valid row; paths are absolute or relative to the working directory, empty cells None."""

    line: int
    slide: str
    path: Path
    preset: str
    pixel_size: str | None = None
    reader: str = "auto"
    channels: str | None = None
    annotations: Path | None = None
    prompts: Path | None = None
    exemplar: Path | None = None
    regions: Path | None = None
    group: str | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: how the cohort names it, and why."""

    line: int
    slide: str
    reason: str


def read_sheet(path: str | Path, presets: list[str]) -> tuple[list[Row], list[BadRow]]:
    """Read the sample sheet.

    Parameters
    ----------
    path : TSV with a header line; lines that start with # and empty lines are skipped.
    presets : names of the presets; the first is the default.

    Raises
    ------
    SheetError
        The file is missing, no UTF-8 text, lacks a required column, or has an unknown one.
    """
    sheet = Path(path)
    try:
        lines = sheet.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SheetError(
            f"{sheet}: cannot be read ({one_line(error)}); expected a tab-separated sample sheet"
        ) from error
    numbered = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not numbered:
        raise SheetError(f"{sheet}: is empty; expected a header line with the columns slide and path")
    cells = list(csv.reader((line for _, line in numbered), delimiter="\t", quoting=csv.QUOTE_NONE))
    header = [name.strip() for name in cells[0]]
    for name in header:
        if name not in COLUMNS:
            hint = "; columns are separated by tabs" if "," in name or ";" in name else ""
            raise SheetError(f"{sheet}: {unknown('column', name, COLUMNS)}{hint}")
    for name in dict.fromkeys(["slide", "path", *header]):
        if header.count(name) != 1:
            raise SheetError(f"{sheet}: column '{name}' occurs {header.count(name)} times, expected once")
    rows: list[Row] = []
    bad: list[BadRow] = []
    first_line: dict[str, int] = {}
    for (line, _), values in zip(numbered[1:], cells[1:]):
        found = _row(sheet, line, header, values, presets)
        if isinstance(found, Row):
            clash = first_line.setdefault(found.slide.lower(), line)
            if clash == line:
                rows.append(found)
                continue
            reason = f"{sheet} line {line}: slide '{found.slide}' is already on line {clash}; names must differ"
            found = BadRow(line, f"{found.slide} (line {line})", reason)
        bad.append(found)
    return rows, bad


def accepts_name(name: str) -> bool:
    """Whether a slide may be called so."""
    return _is_name(name) and name.lower() not in _RESERVED


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and len(name) <= MAX_NAME


def _row(sheet: Path, line: int, header: list[str], values: list[str], presets: list[str]) -> Row | BadRow:
    cell = {name: value.strip() for name, value in zip(header, values) if value.strip()}
    shown = f"{cell.get('slide', '')} (line {line})".strip()

    def wrong(text: str) -> BadRow:
        return BadRow(line, shown, f"{sheet} line {line}: {text}")

    if len(values) > len(header):
        return wrong(f"{len(values)} cells under {len(header)} columns")
    name = cell.get("slide", "")
    if not _is_name(name):
        return wrong(f"slide is '{name}', accepted: {COLUMNS['slide']}, not starting with '.' or '-', up to {MAX_NAME}")
    if not accepts_name(name):
        return wrong(f"slide is '{name}', a name that the results folder needs; accepted: any other")
    if "path" not in cell:
        return wrong(f"path of slide '{name}' is empty, accepted: {COLUMNS['path']}")
    preset = cell.get("preset", presets[0])
    if preset not in presets:
        return wrong(unknown("preset", preset, presets))
    size = cell.get("pixel_size")
    if size is not None and size != "px" and not _positive(size):
        return wrong(f"pixel_size is '{size}', accepted: a positive number or px")
    files = {key: sheet.parent / cell[key] for key in ("annotations", "prompts", "exemplar", "regions") if key in cell}
    texts = {key: cell[key] for key in ("reader", "channels", "group") if key in cell}
    return Row(line, name, sheet.parent / cell["path"], preset, pixel_size=size, **texts, **files)  # type: ignore[arg-type]


def _positive(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and value > 0
