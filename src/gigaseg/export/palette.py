"""Colours of the classes, the same in exports and pictures."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping, Sequence

from gigaseg.errors import ConfigError

_BASE = (
    (0, 200, 83),
    (240, 228, 66),
    (86, 180, 233),
    (213, 94, 0),
    (204, 121, 167),
    (230, 159, 0),
    (0, 114, 178),
)
"""A green that stands out from haematoxylin, eosin, fluorescence and roofs alike, then six of the colours
that Okabe and Ito chose to be told apart with any colour vision (Color Universal Design, 2008)."""

_GOLDEN = 0.618033988749895


def class_color(index: int) -> tuple[int, int, int]:
    """RGB colour (0..255) of class `index`, >= 0; beyond the seventh, hues in steps of the golden ratio.

    >>> class_color(0)
    (0, 200, 83)
    """
    if index < len(_BASE):
        return _BASE[index]
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN % 1.0, 0.65, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def class_colors(classes: Sequence[str], chosen: Mapping[str, str]) -> list[tuple[int, int, int]]:
    """RGB colour of each class: the chosen one (#rrggbb), else that of its place among the classes.

    Raises ConfigError for what is no colour.

    >>> class_colors(["cell", "debris"], {"debris": "#ff0000"})
    [(0, 200, 83), (255, 0, 0)]
    """
    for name, value in chosen.items():
        if not re.fullmatch("#[0-9a-fA-F]{6}", value):
            raise ConfigError(f"the colour of class '{name}' is '{value}', accepted: a colour as #rrggbb")
    found = []
    for i, name in enumerate(classes):
        digits = chosen.get(name, "")[1:]
        red, green, blue = bytes.fromhex(digits) if digits else class_color(i)
        found.append((red, green, blue))
    return found
