"""Annotation files of COCO and LVIS: where each class is, without holding every outline.

The text of the file is held, and of each annotation where it begins; its outline is parsed when its mask is wanted.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.one_shot.base import Mask
from gigaseg.one_shot.masks import decode_segmentation

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True, eq=False)
class Annotations:
    """An annotation file.

    Attributes
    ----------
    path : the file.
    images : path of each image below the folder of images, by its id.
    categories : name of each, by ascending id.
    at : by category and image (in the file's order), where the annotations begin in the text.
    """

    path: Path
    images: Mapping[int, str]
    categories: Mapping[int, str]
    at: Mapping[int, Mapping[int, list[int]]]
    text: str

    def mask(self, category: int, image: int, shape: tuple[int, int]) -> Mask:
        """Union of the class's annotations in an image of `shape` (h, w), crowds too: all its pixels.

        Raises
        ------
        FormatError
            An annotation has no outline, or a wrong one.
        """
        found = np.zeros(shape, np.bool_)
        for start in self.at[category][image]:
            record = _DECODER.raw_decode(self.text, start)[0]
            try:
                found |= decode_segmentation(record.get("segmentation"), shape)
            except (ValueError, TypeError) as error:
                raise FormatError(f"{self.path}: annotation {record.get('id')}: {one_line(error)}") from error
        return found


def read_annotations(path: Path) -> Annotations:
    """Read an annotation file of COCO (images have a `file_name`) or of LVIS (they have a `coco_url`).

    Raises
    ------
    FormatError
        The file is missing or no JSON, or a list or a field is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
        images: dict[int, str] = {}
        categories: dict[int, str] = {}
        at: defaultdict[int, dict[int, list[int]]] = defaultdict(dict)
        seen = set()
        for name, number, record, start in _records(text):
            seen.add(name)
            where = f"{path}: {name}[{number}]"
            if name == "images":
                images[_number(where, record, "id")] = _image_path(where, record)
            elif name == "categories":
                categories[_number(where, record, "id")] = _text(where, record, "name")
            else:
                category, image = _number(where, record, "category_id"), _number(where, record, "image_id")
                at[category].setdefault(image, []).append(start)
    except (OSError, ValueError) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read as annotations ({one_line(error)})") from error
    for name in _LISTS:
        if name not in seen:
            there = ", ".join(sorted(seen)) or "none"
            raise FormatError(f"{path}: no {name}; found: {there}, expected images, annotations and categories")
    for category, of in at.items():
        if category not in categories:
            raise FormatError(f"{path}: category_id {category} of an annotation is not among its categories")
        for image in of:
            if image not in images:
                raise FormatError(f"{path}: image_id {image} of an annotation is not among its images")
    return Annotations(path, images, dict(sorted(categories.items())), at, text)


def _records(text: str) -> Iterator[tuple[str, int, dict[str, Any], int]]:
    """Records of the lists wanted, one at a time: list, position in it, record and where it begins in the text."""
    place = _expect(text, _skip(text, 0), "{")
    while text[place : place + 1] != "}":
        name, place = _DECODER.raw_decode(text, place)
        place = _skip(text, _expect(text, _skip(text, place), ":"))
        if name in _LISTS and text[place : place + 1] == "[":
            place, number = _skip(text, place + 1), 0
            while text[place : place + 1] != "]":
                record, end = _DECODER.raw_decode(text, place)
                if not isinstance(record, dict):
                    raise ValueError(f"{name}[{number}] is {type(record).__name__}, expected an object")
                yield name, number, record, place
                place, number = _comma(text, end, "]"), number + 1
            place += 1
        else:
            _, place = _DECODER.raw_decode(text, place)
        place = _comma(text, place, "}")


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _expect(text: str, place: int, sign: str) -> int:
    if text[place : place + 1] != sign:
        raise ValueError(f"character {place} is '{text[place : place + 1]}', expected '{sign}'")
    return _skip(text, place + 1)


def _comma(text: str, place: int, end: str) -> int:
    """Where the next item begins, or the sign that ends the list."""
    place = _skip(text, place)
    return place if text[place : place + 1] == end else _expect(text, place, ",")


def _number(where: str, record: Mapping[str, Any], field: str) -> int:
    value = record.get(field)
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"{where}: {field} is {_shown(record, field)}, accepted: a whole number")
    return value


def _text(where: str, record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not value:
        raise FormatError(f"{where}: {field} is {_shown(record, field)}, accepted: a text")
    return value


def _image_path(where: str, record: Mapping[str, Any]) -> str:
    """LVIS names the folder of COCO 2017 by the address alone: .../val2017/000000397133.jpg."""
    if "file_name" in record:
        return _text(where, record, "file_name")
    if "coco_url" in record:
        return "/".join(_text(where, record, "coco_url").split("/")[-2:])
    raise FormatError(f"{where}: has neither file_name nor coco_url, expected one")


def _shown(record: Mapping[str, Any], field: str) -> str:
    return f"'{one_line(record[field])[:60]}'" if field in record else "missing"
