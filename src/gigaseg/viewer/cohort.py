"""The slides of a results folder, as the viewer lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gigaseg.errors import FormatError, one_line
from gigaseg.files import read_failure
from gigaseg.slides.base import SlideInfo
from gigaseg.viewer.pack import SlideFiles
from gigaseg.viewer.picture import TILE, is_there, max_level

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class ResultsFolder:
    """A results folder, or the folder of one slide in it.

    Parameters
    ----------
    path : ``results`` or ``results/SLIDE``.
    class_colors : #rrggbb of each class that does not get the palette's, by slide.

    Raises
    ------
    FormatError : nothing in it is a slide's results.
    """

    def __init__(self, path: Path, class_colors: Mapping[str, Mapping[str, str]] | None = None) -> None:
        path = Path(path)
        single = (path / "slide.json").exists()
        self.root = path.resolve().parent if single else path
        self._only = path.resolve().name if single else None
        self._class_colors = class_colors or {}
        self._infos: dict[str, tuple[int, SlideInfo]] = {}
        if not self.names():
            raise FormatError(f"{path}: no results of a slide, expected {path}/SLIDE/slide.json or {path}/slide.json")

    def names(self) -> list[str]:
        """Its slides, sorted."""
        if self._only is not None:
            return [self._only]
        found = [path.parent.name for path in self.root.glob("*/slide.json")] if self.root.is_dir() else []
        return sorted(name for name in found if _NAME.fullmatch(name))

    def folder(self, name: str) -> Path:
        """Where a slide's results lie; raises KeyError for what is no slide of this folder."""
        known = name == self._only if self._only is not None else _NAME.fullmatch(name)
        if not known or not (self.root / name / "slide.json").exists():
            raise KeyError(name)
        return self.root / name

    def class_colors(self, name: str) -> Mapping[str, str]:
        """Colours of a slide's classes, as `gigaseg.viewer.pack.make_pack` takes them."""
        return self._class_colors.get(name, {})

    def files(self, name: str) -> SlideFiles:
        """The results of a slide that the viewer reads."""
        return SlideFiles.of(self.folder(name))

    def info(self, name: str) -> SlideInfo:
        """Its slide.json."""
        path = self.folder(name) / "slide.json"
        changed = path.stat().st_mtime_ns
        if name not in self._infos or self._infos[name][0] != changed:
            self._infos[name] = changed, SlideInfo.read(path)
        return self._infos[name][1]

    def about(self, name: str) -> dict[str, Any]:
        """What the browser must know before anything is packed.

        Raises UpstreamFailure or FormatError for a slide that could not be inspected.
        """
        info = self.info(name)
        return {
            "slide": name,
            "width": info.width,
            "height": info.height,
            "pixel_size": list(info.pixel_size),
            "unit": info.unit,
            "tile": TILE,
            "max_level": max_level(info),
            "version": info.fingerprint,
            "no_picture": is_there(info),
        }

    def list(self) -> list[dict[str, Any]]:
        """A line for each slide: name, state, number of instances, why it failed."""
        return [_line(name, self.root / name) for name in self.names()]


def _line(name: str, folder: Path) -> dict[str, Any]:
    line: dict[str, Any] = {"slide": name, "overview": (folder / "overview.png").exists()}
    for file in ("slide.json", "instances.parquet", "measurements.parquet"):
        failure = read_failure(folder / file)
        if failure is not None:
            return {**line, "state": "failed", "reason": f"{failure[0]}: {failure[1]}"}
    if not (folder / "measurements.parquet").exists():
        return {**line, "state": "at work"}
    try:
        return {**line, "state": "ok", "instances": pq.read_metadata(folder / "instances.parquet").num_rows}
    except (OSError, ValueError) as error:
        return {**line, "state": "failed", "reason": one_line(error)}


def colors_in(config: Mapping[str, Any], source: str) -> dict[str, dict[str, str]]:
    """The colours that a configuration gives to classes, by slide.

    Parameters
    ----------
    config, source : the configuration, and its name in messages.

    Raises
    ------
    ConfigError, SheetError : the configuration or its sheet is wrong.
    """
    from gigaseg.config import load_config
    from gigaseg.incoming import SHEET
    from gigaseg.sheet import read_sheet

    found = load_config(config, source)
    sheet = Path(found.slides) if found.slides_dir is None else Path(found.results) / SHEET
    rows, _ = read_sheet(sheet, list(found.presets))
    return {row.slide: found.presets[row.preset].class_colors for row in rows}
