"""Column names of measurements as people read them."""

from __future__ import annotations

_UNITS = {"um": "µm", "um2": "µm{}", "mm2": "mm{}", "m2": "m{}", "km2": "km{}", "px2": "px{}", "deg": "°"}
_CAPITALS = {"od", "nn", "x", "y"}


def display_name(column: str, square: str = "^2") -> str:
    """A column name in words, with its unit.

    Parameters
    ----------
    column : such as ``area_um2``.
    square : what stands for "squared": QuPath writes ^2.

    >>> display_name("area_um2"), display_name("centroid_x_px"), display_name("density_per_mm2", "²")
    ('Area µm^2', 'Centroid X px', 'Density per mm²')
    """
    words = [_word(word, square) for word in column.split("_")]
    first = words[0] if column.split("_")[0] in _UNITS else words[0][:1].upper() + words[0][1:]
    return " ".join([first, *words[1:]])


def _word(word: str, square: str) -> str:
    if word in _UNITS:
        return _UNITS[word].format(square)
    return word.upper() if word in _CAPITALS else word
