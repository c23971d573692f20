"""Overview pictures as they stand in the report: small, and inside the HTML."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gigaseg.errors import one_line
from gigaseg.files import read_failure

_QUALITY = 80
_SIDES = ((20, 900), (100, 600))
"""(up to so many pictures, long side in px): the report stays small, a few to a few dozen MB."""
_SMALL_SIDE = 400


@dataclass(frozen=True)
class PictureEntry:
    """The picture of a slide as a data URI with its size in px, or the reason why there is none."""

    slide: str
    uri: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def embed(overviews: Sequence[Path], slides: Collection[str]) -> list[PictureEntry]:
    """Read the overview pictures, in order; failure records and unreadable files give their reason.

    Parameters
    ----------
    overviews : paths of overview.png; a picture tells its slide itself, otherwise a folder of the path does.
    slides : names of the cohort's slides.
    """
    side = next((side for count, side in _SIDES if len(overviews) <= count), _SMALL_SIDE)
    return [_entry(path, slides, side) for path in overviews]


def _entry(path: Path, slides: Collection[str], side: int) -> PictureEntry:
    slide = next((part for part in reversed(path.parent.parts) if part in slides), path.parent.name)
    failure = read_failure(path)
    if failure is not None:
        return PictureEntry(slide, reason=f"failed at {failure[0]}: {failure[1]}")
    try:
        with Image.open(path) as image:
            slide = _slide_of(image) or slide
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's own word for a damaged PNG is SyntaxError
        return PictureEntry(slide, reason=f"the picture cannot be read: {one_line(error)}")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
    return PictureEntry(slide, uri, *small.size)


def _slide_of(image: Image.Image) -> str | None:
    try:
        slide = json.loads(image.info.get("gigaseg", "{}")).get("slide")
    except (ValueError, AttributeError, TypeError):
        return None
    return slide if isinstance(slide, str) else None
