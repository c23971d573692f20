"""The viewer as a folder of plain files, for a web server that knows nothing of slides."""

from __future__ import annotations

import json
import logging
import math
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from gigaseg.errors import FormatError, UserError, one_line
from gigaseg.files import scratch
from gigaseg.progress import Progress
from gigaseg.slides.base import SlideInfo
from gigaseg.viewer.cohort import ResultsFolder
from gigaseg.viewer.pack import make_pack
from gigaseg.viewer.picture import TILE, Pictures, max_level
from gigaseg.viewer.server import static_files

log = logging.getLogger(__name__)

_MARK = "gigaseg-viewer.json"
"""Lies in every folder that was written here: only such a one is replaced."""

_AHEAD = 64
"""Tiles a worker is given ahead, so that few wait in memory."""


def write_folder(results: ResultsFolder, out: Path, *, workers: int = 2) -> None:
    """Write the viewer of all slides that are done: the page, pictures as JPEG tiles, packs as their files.

    The folder needs a web server (browsers keep pages that lie on a disk from reading files), any one:
    ``python -m http.server --directory OUT``. It takes about the room of the slides at JPEG quality 85.

    Parameters
    ----------
    results : what to show.
    out : the folder; an older one of this kind is replaced when the new one is complete.
    workers : threads that render tiles.

    Raises
    ------
    FormatError : `out` is there and is no folder of this kind, or a slide's results cannot be read.
    SlideError : a slide's file cannot be read.
    """
    if out.is_symlink() or (out.exists() and not (out / _MARK).exists()):
        raise FormatError(f"{out}: is there already and no viewer, accepted: a new folder, or one written here before")
    # what is at work yet is not in the folder, and no link may lead to it
    slides = [line | {"state": "not done"} if line["state"] == "at work" else line for line in results.list()]
    with scratch(out) as folder:
        for name, data in static_files().items():
            (folder / name).write_bytes(data)
        for line in slides:
            if line["state"] == "ok":
                _write_slide(results, line["slide"], folder / "data" / line["slide"], workers)
        _json(folder / "data" / "slides.json", {"results": results.root.name, "slides": slides})
        _json(folder / _MARK, {"slides": [line["slide"] for line in slides]})
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    log.info("%d slides: %s", len(slides), out)


def _write_slide(results: ResultsFolder, slide: str, folder: Path, workers: int) -> None:
    info, about = results.info(slide), results.about(slide)
    _json(folder / "about.json", about)
    overview = results.folder(slide) / "overview.png"
    if overview.exists():
        shutil.copyfile(overview, folder / "overview.png")
    pack = folder / "pack.zip"
    make_pack(results.files(slide), pack, class_colors=results.class_colors(slide))
    with zipfile.ZipFile(pack) as archive:
        archive.extractall(folder / "pack")
    pack.unlink()
    if about["no_picture"] is None:
        _write_picture(info, folder / "picture", workers)
    else:
        log.warning("slide '%s': without its picture: %s", slide, about["no_picture"])


def _write_picture(info: SlideInfo, folder: Path, workers: int) -> None:
    pictures = Pictures()

    def write(place: tuple[int, int, int]) -> None:
        level, column, row = place
        try:
            data = pictures.tile(info, level, column, row)
        except UserError as error:
            raise FormatError(f"slide '{info.slide}': {one_line(error)}") from error
        (folder / str(level) / f"{column}_{row}.jpg").write_bytes(data)

    for level in range(max_level(info) + 1):
        (folder / str(level)).mkdir(parents=True)
    places = _places(info)
    total = sum(1 for _ in _places(info))
    with ThreadPoolExecutor(workers) as pool, Progress(f"slide '{info.slide}'", "tiles", total) as progress:
        while some := list(islice(places, _AHEAD * workers)):
            for _ in pool.map(write, some):
                progress.add()


def _places(info: SlideInfo) -> Iterator[tuple[int, int, int]]:
    """Level, column and row of all tiles, coarse ones first."""
    for level in range(max_level(info) + 1):
        step = 2 ** (max_level(info) - level) * TILE
        for row in range(math.ceil(info.height / step)):
            for column in range(math.ceil(info.width / step)):
                yield level, column, row


def _json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
