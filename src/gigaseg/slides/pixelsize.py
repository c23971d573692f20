"""Size of a level-0 pixel: the sheet's word, the file's metadata, or the objective's power."""

from __future__ import annotations

import logging
import math
from typing import Any

from gigaseg.errors import SlideError
from gigaseg.slides.source import Facts

_log = logging.getLogger(__name__)

PIXELS = "px"
"""Value of the sheet's pixel_size, and the unit it gives: work and measure in pixels."""

_IN_METRES = {"um": 1e-6, "m": 1.0}
_SMALLEST_M, _LARGEST_M = 1e-9, 1e3
"""Pixel sizes outside 1 nm .. 1 km are taken for mistakes."""

_PRINT_DPI = (72, 96, 100, 120, 144, 150, 180, 200, 240, 300, 350, 360, 400, 600, 720, 1200)
"""Resolution tags with these values (dots per inch) describe a screen or a printer, not a scanner."""

_LARGEST_SCAN_UM = 100.0
"""A resolution tag that says more µm per pixel than this is a default, not a scanner's."""

_OBJECTIVE_UM = 10.0
"""µm per pixel of a 1x scan by convention: 20x is 0.5 µm, 40x is 0.25 µm."""


def resolve_pixel_size(
    path: str, facts: Facts, unit: str, given: float | str | None
) -> tuple[tuple[float, float], str, str]:
    """Decide the size of a level-0 pixel.

    Parameters
    ----------
    path : for messages.
    facts : of the file.
    unit : the preset's unit, "um" or "m".
    given : the sheet's pixel_size: a number in `unit`, "px", or None.

    Returns
    -------
    ((x, y), unit, source): the size; `unit`, or "px"; "sheet", "metadata" or "objective".

    Raises
    ------
    SlideError
        The size is unknown or absurd; the message says how to give it.
    """
    if unit not in _IN_METRES:
        raise SlideError(f"{path}: unit is '{unit}', accepted: {', '.join(_IN_METRES)}")
    override = f"give it in the sheet's column 'pixel_size' (in {unit} per pixel, or px to work in pixels)"
    if given is not None and str(given).strip() == PIXELS:
        return (1.0, 1.0), PIXELS, "sheet"
    if given is not None:
        size = _number(given)
        _check(
            path,
            (size, size),
            unit,
            "column 'pixel_size' of the sheet (or --pixel-size)",
            f"found {given!r}; {override}",
        )
        return (size, size), unit, "sheet"
    if facts.pixel_size is not None:
        found = f"found {facts.pixel_size[0]:g} x {facts.pixel_size[1]:g} {facts.unit}; {override}"
        factor = 1.0 if facts.unit == unit else _IN_METRES[facts.unit] / _IN_METRES[unit]
        size_xy = (facts.pixel_size[0] * factor, facts.pixel_size[1] * factor)
        _check(path, size_xy, unit, "its metadata", found)
        return size_xy, unit, "metadata"
    if facts.objective_power is not None and 0 < facts.objective_power < math.inf:
        size = _OBJECTIVE_UM / facts.objective_power
        if unit != "um":
            size *= _IN_METRES["um"] / _IN_METRES[unit]
        _check(path, (size, size), unit, "its objective's power", f"found {facts.objective_power:g}x; {override}")
        return (size, size), unit, "objective"
    raise SlideError(f"{path}: pixel size unknown: {facts.pixel_size_note}, nor an objective power; {override}")


def warn_objective(path: str, facts: Facts, pixel_size: tuple[float, float], unit: str) -> None:
    """Log that the pixel size is a guess from the objective's power."""
    _log.warning(
        "%s: no pixel size in its metadata; %g %s per pixel assumed from the %gx objective (10 µm / power). "
        "Give it in the sheet's column 'pixel_size' when you know better.",
        path, pixel_size[0], unit, facts.objective_power,
    )  # fmt: skip


def scanner_pixel_size(mpp_x: Any, mpp_y: Any, *, generic_tiff: bool) -> tuple[tuple[float, float] | None, str]:
    """Pixel size in µm from what a slide library reports (numbers or text, None when absent).

    In a generic TIFF it comes from the resolution tags, which count only when a scanner may have written
    them.

    Returns
    -------
    ((x, y) or None, why it is None). What is no number is NaN, so that `resolve_pixel_size` names it.
    """
    if mpp_x is None or mpp_y is None:
        return None, "its metadata has none"
    size = (_number(mpp_x), _number(mpp_y))
    if generic_tiff and not plausible_scan(*size):
        return None, f"its resolution tags ({size[0]:g} µm) are a screen's, a printer's or a default"
    return size, ""


def plausible_scan(um_x: float, um_y: float) -> bool:
    """Whether resolution tags that give this many µm per pixel can come from a scanner."""
    for um in (um_x, um_y):
        if not 0 < um <= _LARGEST_SCAN_UM:
            return False
        if any(abs(25400 / um / dpi - 1) < 0.005 for dpi in _PRINT_DPI):
            return False
    return True


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _check(path: str, size: tuple[float, float], unit: str, where: str, tail: str) -> None:
    metres = [value * _IN_METRES[unit] for value in size]
    if not all(_SMALLEST_M <= value <= _LARGEST_M for value in metres):
        raise SlideError(f"{path}: {where}: pixel size must be a number between 1 nm and 1 km, {tail}")
