"""The text around an overview picture: title, legend, scale bar, colour bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from gigaseg.report.layers import Picture, Rgb, density_colors

_INK: Rgb = (38, 38, 38)
_MIN_WIDTH_EM = 40
"""Least width of the sheet in font sizes, that a narrow slide still has room for its title."""


class ScaleBar(NamedTuple):
    """A bar `length` picture px long, and what it stands for."""

    length: float
    label: str


@dataclass(frozen=True)
class Item:
    """One entry of the legend: a label behind a mark that `draw` puts into the rectangle (x, y, width, height)."""

    label: str
    width: float
    draw: Callable[[Picture, tuple[int, int, int, int]], None]


def scale_bar(pixel_size: float, unit: str, width: int) -> ScaleBar:
    """The longest bar of 1, 2 or 5 times a power of ten that takes at most a fifth of the picture's width.

    Parameters
    ----------
    pixel_size : of a picture pixel along x, in `unit`.
    unit : "um", "m" or "px".
    width : of the picture, px.

    >>> scale_bar(2.0, "um", 1600)
    ScaleBar(length=250.0, label='500 µm')
    """
    room = pixel_size * width / 5
    power = 10.0 ** math.floor(math.log10(room))
    length = max(step * power for step in (1, 2, 5) if step * power <= room * (1 + 1e-9))
    large = {"um": "mm", "m": "km"}
    if length >= 1000 and unit in large:
        return ScaleBar(length / pixel_size, f"{length / 1000:g} {large[unit]}")
    return ScaleBar(length / pixel_size, f"{length:,g} {'µm' if unit == 'um' else unit}")


def swatch(label: str, color: Rgb, em: int) -> Item:
    """A filled square."""

    def draw(sheet: Picture, box: tuple[int, int, int, int]) -> None:
        x, y, w, h = box
        cv2.rectangle(sheet, (x, y), (x + w - 1, y + h - 1), color, -1)

    return Item(label, em, draw)


def line(label: str, color: Rgb, em: int, thickness: int) -> Item:
    """A piece of line."""

    def draw(sheet: Picture, box: tuple[int, int, int, int]) -> None:
        x, y, w, h = box
        cv2.line(sheet, (x, y + h // 2), (x + w - 1, y + h // 2), color, thickness, cv2.LINE_AA)

    return Item(label, 1.5 * em, draw)


def bar(scale: ScaleBar) -> Item:
    """The scale bar."""

    def draw(sheet: Picture, box: tuple[int, int, int, int]) -> None:
        x, y, w, h = box
        middle = y + h // 2
        cv2.line(sheet, (x, middle), (x + w, middle), _INK, 2)
        for end in (x, x + w):
            cv2.line(sheet, (end, y), (end, y + h - 1), _INK, 2)

    return Item(scale.label, scale.length, draw)


def color_bar(label: str, em: int) -> Item:
    """The colours of densities from 0 to the top."""

    def draw(sheet: Picture, box: tuple[int, int, int, int]) -> None:
        x, y, w, h = box
        sheet[y : y + h, x : x + w] = density_colors(np.linspace(0, 1, w)[np.newaxis])

    return Item(label, 8 * em, draw)


def compose(picture: Picture, title: str, subtitle: str, items: Sequence[Item], em: int) -> Picture:
    """The picture on a white sheet, with title and subtitle above and the legend below.

    Parameters
    ----------
    picture : (height, width, 3) uint8 RGB.
    title, subtitle : one line each; what does not fit is wrapped at blanks.
    items : the legend, in order; wrapped.
    em : font size, px.
    """
    height, width = picture.shape[:2]
    margin = em
    room = max(width, _MIN_WIDTH_EM * em)
    head = [(text, round(1.4 * em)) for text in _wrap(title, room, round(1.4 * em))]
    head += [(text, em) for text in _wrap(subtitle, room, em)]
    top = margin + sum(round(1.5 * size) for _, size in head) + em // 2
    rows = _rows(items, room, em)
    line_height = round(1.8 * em)
    sheet = np.full((top + height + em + line_height * len(rows) + margin // 2, room + 2 * margin, 3), 255, np.uint8)
    y = margin
    for text, size in head:
        y += round(1.5 * size)
        draw_text(sheet, text, margin, y - size // 2, size)
    sheet[top : top + height, margin : margin + width] = picture
    y = top + height + em
    for row in rows:
        x = float(margin)
        for item in row:
            mark = round(item.width)
            item.draw(sheet, (round(x), y + em // 4, mark, em))
            draw_text(sheet, item.label, round(x) + mark + em // 2, y + em + em // 8, em)
            x += _item_width(item, em)
        y += line_height
    return sheet


def _rows(items: Sequence[Item], room: float, em: int) -> list[list[Item]]:
    rows: list[list[Item]] = []
    used = math.inf
    for item in items:
        width = _item_width(item, em)
        if used + width - 1.5 * em > room:
            rows.append([])
            used = 0
        rows[-1].append(item)
        used += width
    return rows


def _item_width(item: Item, em: int) -> float:
    return item.width + em / 2 + _text_width(item.label, em) + 1.5 * em


def _wrap(text: str, room: int, size: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and _text_width(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _font() -> cv2.FontFace:
    return cv2.FontFace("sans")


def _text_width(text: str, size: int) -> int:
    box = cv2.getTextSize((1, 1), text, (0, 0), _font(), size, 400)
    return int(box[2])


def draw_text(sheet: Picture, text: str, x: int, baseline: int, size: int) -> None:
    """Write one line, `size` px high."""
    cv2.putText(sheet, text, (x, baseline), _INK, _font(), size, 400)
