"""Cards of the methods and checkpoints that a cohort was made with, and the versions of what made it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gigaseg.errors import UserError
from gigaseg.files import sha256_file
from gigaseg.report.tables import Cell, Table, memory, number
from gigaseg.sam.downloads import OFFICIAL, checkpoint_path, header_card, shipped
from gigaseg.segmenters.card import Card, read_card

PACKAGES = (
    *("snakemake", "torch", "torchvision", "segment-anything", "numpy", "scipy", "scikit-image"),
    *("opencv-python-headless", "shapely", "pyarrow", "pandas", "zarr", "dask"),
    *("openslide-python", "openslide-bin", "tiffslide", "tifffile", "rasterio", "pillow"),
)
"""Packages that results depend on, and Snakemake."""

_PRESET = ("checkpoint", "device", "overlaps")


@dataclass(frozen=True)
class Shown:
    """A card: its heading, facts (name, value) and tables."""

    name: str
    facts: list[tuple[str, str]]
    tables: list[Table] = field(default_factory=list)


def method_cards(summaries: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> list[Shown]:
    """The segmenters of the slides: what they are, and how the presets set them."""
    cards = []
    for name in sorted({str(summary.get("segmenter")) for summary in summaries}):
        sizes = sorted({_pixel(s) for s in summaries if s.get("segmenter") == name and s.get("working_pixel_size")})
        try:
            card = read_card(name)
        except UserError as error:
            cards.append(Shown(name, [("Card", str(error))]))
            continue
        facts = [
            ("What", card.summary),
            ("After", card.paper),
            ("Classes", ", ".join(card.classes)),
            ("Made for pixels of", f"{card.pixel_size:g} {_unit(card.unit)}" if card.pixel_size else "any size"),
            ("Worked at pixels of", "; ".join(sizes)),
            ("Object diameter", f"{card.object_diameter:g} working px" if card.object_diameter else "any"),
            ("Tile and overlap", f"{card.tile} and {card.overlap} working px, where a preset sets no others"),
            ("Revision", str(card.revision)),
        ]
        cards.append(Shown(name, [fact for fact in facts if fact[1]], _settings(card, config)))
    return cards


def _settings(card: Card, config: Mapping[str, Any]) -> list[Table]:
    """The options of a segmenter as each preset that uses it sets them."""
    found = []
    for preset, content in _mapping(config.get("presets")).items():
        chosen = _mapping(_mapping(content).get("segmenter"))
        if chosen.get("name") != card.name:
            continue
        given = _mapping(chosen.get("options"))
        rows = [[Cell(key), Cell(str(chosen[key])), Cell("")] for key in _PRESET if chosen.get(key) is not None]
        for name, option in card.options.items():
            value = given.get(name, option.default)
            told = option.help if value == option.default else f"default {option.default}; {option.help}"
            rows.append([Cell(name), Cell(str(value)), Cell(told)])
        if rows:
            found.append(Table(f"Options in preset {preset}", ["Option", "Value", "Meaning"], rows))
    return found


def checkpoint_cards(summaries: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> list[Shown]:
    """The model weights of the slides, each once: what their own cards hold, where the files are still there."""
    used: dict[str, set[str]] = {}
    for summary in summaries:
        if summary.get("checkpoint"):
            used.setdefault(str(summary["checkpoint"]), set()).add(str(summary.get("segmenter")))
    known = _files(used, config)
    cards = []
    for sha256, segmenters in sorted(used.items(), key=lambda item: (sorted(item[1]), item[0])):
        name, path = known.get(sha256, ("", None))
        facts = [("Segmenter", ", ".join(sorted(segmenters))), ("sha256", sha256)]
        tables = []
        if path is None:
            facts.append(("Card", "the file is no longer where the configuration names it"))
        else:
            card = header_card(path)
            facts += [("File", path.name), ("Size", memory(path.stat().st_size / 2**20).text), *_of_card(name, card)]
            tables = _figures(card)
        cards.append(Shown(name or sha256[:12], [fact for fact in facts if fact[1]], tables))
    return cards


def _files(used: Mapping[str, set[str]], config: Mapping[str, Any]) -> dict[str, tuple[str, Path]]:
    """sha256 -> name and file, of those that the presets and the cards of the segmenters name."""
    wanted = [_mapping(_mapping(preset).get("segmenter")) for preset in _mapping(config.get("presets")).values()]
    names = {str(chosen["checkpoint"]) for chosen in wanted if chosen.get("checkpoint")}
    for segmenter in {name for names_of in used.values() for name in names_of}:
        try:
            names.add(read_card(segmenter).checkpoint or "")
        except UserError:
            continue
    found = {}
    for name in sorted(names - {""}):
        try:
            path = checkpoint_path(name)
            found[sha256_file(path)] = (name if name in {*shipped(), *OFFICIAL} else path.stem, path)
        except (UserError, OSError):
            continue
    return found


def _of_card(name: str, card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts that a checkpoint's card holds."""
    base, images, loop = _mapping(card.get("base")), _mapping(card.get("images")), _mapping(card.get("loop"))
    official = OFFICIAL.get(name)
    trained = ", ".join(f"{count} images {part}" for part, count in images.items() if count)
    effort = [f"{card['step']:,} steps" if isinstance(card.get("step"), int) else ""]
    effort += [f"{card['minutes']:g} minutes" if isinstance(card.get("minutes"), int | float) else ""]
    effort += [f"{loop['batch']} crops a step" if "batch" in loop else ""]
    return [
        ("Licence", str(card.get("licence") or (official.licence if official else ""))),
        ("Published at", official.url if official else ""),
        ("Trained on", "; ".join(filter(None, [str(card.get("data", "")), trained]))),
        ("Split", str(card.get("split", ""))),
        ("Training", ", ".join(filter(None, effort))),
        ("Before that", str(card.get("history", ""))),
        ("Changes over", f"{base['name']}, sha256 {base.get('sha256', '')}" if "name" in base else ""),
        ("Classes", ", ".join(map(str, card.get("classes", [])))),
        ("Made by gigaseg", str(card.get("package", ""))),
    ]


def _figures(card: Mapping[str, Any]) -> list[Table]:
    """The figures of a card: those of all images, and by kind of image, named ``figure/kind``."""
    figures = {k: v for k, v in _mapping(card.get("figures")).items() if isinstance(v, int | float)}
    if not figures:
        return []
    kinds = list(dict.fromkeys(name.partition("/")[2] for name in figures))
    names = list(dict.fromkeys(name.partition("/")[0] for name in figures))
    rows = []
    for name in names:
        values = [figures.get(f"{name}/{kind}" if kind else name) for kind in kinds]
        rows.append([Cell(name), *(Cell("") if v is None else Cell(number(v), float(v)) for v in values)])
    caption = "Figures on its validation images, as its card holds them"
    return [Table(caption, ["Figure", *(kind or "all" for kind in kinds)], rows)]


def versions() -> Table:
    """Versions of Python and of `PACKAGES` where the report is made."""
    rows = [[Cell("Python"), Cell(platform.python_version())]]
    for package in PACKAGES:
        try:
            rows.append([Cell(package), Cell(version(package))])
        except PackageNotFoundError:
            continue
    return Table("Versions where this page was made", ["Package", "Version"], rows)


def _pixel(summary: Mapping[str, Any]) -> str:
    x, y = summary["working_pixel_size"]
    size = f"{x:.4g}" if abs(x - y) < 1e-6 * abs(x) else f"{x:.4g} × {y:.4g}"
    return f"{size} {_unit(summary.get('unit', 'px'))}"


def _unit(unit: str) -> str:
    return "µm" if unit == "um" else unit


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
