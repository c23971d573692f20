"""Readers by name, and how a slide is opened."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from gigaseg.errors import SlideError, is_machine_fault, one_line, unknown
from gigaseg.slides.base import Slide, SlideInfo
from gigaseg.slides.fingerprint import fingerprint
from gigaseg.slides.pyramid import PyramidSlide
from gigaseg.slides.source import Source, reason

READERS = ("rasterio", "tiffslide", "openslide", "tifffile", "pillow")
"""Reader names in the order in which `auto` tries them.

rasterio takes georeferenced files only (the others would lose the CRS); tiffslide the 8-bit RGB tiled TIFFs
it reads in full (it decodes them several times as fast as openslide); openslide the vendors' formats;
tifffile OME-TIFF, 16-bit, multichannel and untiled TIFF; pillow PNG, JPEG and other plain pictures.
"""

AUTO = "auto"
"""Name that stands for the first reader that opens the file."""


def open_source(path: str | Path, reader: str = AUTO) -> tuple[str, Source]:
    """Open a file with `reader`, or with the first that takes it.

    Returns
    -------
    The reader's name and the open file.

    Raises
    ------
    SlideError
        The file is missing, empty or a folder, the reader is unknown, or no reader takes the file (the
        message has each one's reason).
    """
    if reader != AUTO and reader not in READERS:
        raise SlideError(f"{path}: {unknown('reader', reader, (AUTO, *READERS))}")
    _check_file(Path(path))
    _check_tiff(Path(path))
    reasons = []
    for name in READERS if reader == AUTO else (reader,):
        try:
            return name, _open_with(name, path, reader == AUTO)
        except Exception as error:  # a reader's reason, whatever library it comes from
            if is_machine_fault(error):
                raise
            reasons.append(f"{name}: {reason(error)}")
    if reader == AUTO:
        raise SlideError(f"{path}: no reader opens it; {'; '.join(reasons)}")
    raise SlideError(f"{path}: cannot be opened; {reasons[0]}")


def open_slide(info: SlideInfo) -> Slide:
    """Open a slide again from the content of its slide.json.

    Raises
    ------
    SlideError
        The file is missing, has changed since inspect, or cannot be opened by `info.reader`.
    """
    _check_file(Path(info.path))
    if fingerprint(info.path) != info.fingerprint:
        raise SlideError(f"{info.path}: the file has changed since inspect; run inspect again")
    name, source = open_source(info.path, info.reader)
    if source.facts.levels != info.levels or source.facts.channels != info.channels:
        source.close()
        raise SlideError(f"{info.path}: reader {name} now finds other levels or channels; run inspect again")
    return PyramidSlide(info, source)


def _open_with(name: str, path: str | Path, auto: bool) -> Source:
    # reader modules load their library, so they are imported only when their turn comes
    module = importlib.import_module(f"gigaseg.slides.{name}_reader")
    return cast(Source, module.open_source(str(path), auto))


def _check_tiff(path: Path) -> None:
    """Raise SlideError when the sizes in a TIFF's header cannot be, whichever reader would take it."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        from gigaseg.slides.tiff_pages import check_sizes

        try:
            check_sizes(path)
        except SlideError as error:
            raise SlideError(f"{path}: {error}") from error


def _check_file(path: Path) -> None:
    try:
        found = path.exists()
    except OSError as error:  # a name longer than any file's, for instance
        raise SlideError(f"{path}: cannot be read ({one_line(error.strerror)})") from error
    if not found:
        raise SlideError(f"{path}: no such file")
    if path.is_dir():
        raise SlideError(f"{path}: is a folder, a file is needed (of a DICOM slide any one of its .dcm files)")
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise SlideError(f"{path}: cannot be read ({one_line(error.strerror)})") from error
    if empty:
        raise SlideError(f"{path}: the file is empty")
