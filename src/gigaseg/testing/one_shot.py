"""Small copies of one-shot data sets whose masks are known: coloured shapes of several classes on rough ground.

Written in the layouts in which PerSense-D, COCO and LVIS are published. The same arguments give the same files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Truth = dict[Path, dict[str, Mask]]
"""Mask of each class, by the file of the image and the name of the class."""

COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Numbers up to 90 that are no category of COCO."""

_COLOURS = (
    (200, 60, 50),
    (60, 140, 220),
    (240, 200, 60),
    (90, 190, 90),
    (190, 90, 200),
    (240, 140, 60),
    (60, 200, 200),
)


def write_persense_d(
    folder: Path,
    classes: Sequence[str] = ("beads", "coins", "pills"),
    *,
    queries: int = 3,
    shape: tuple[int, int] = (120, 160),
    masks: str = "",
    seed: int = 0,
) -> Truth:
    """PerSense-D: of each class image 00 with one object, and queries with 15 to 40.

    Parameters
    ----------
    queries : a class.
    shape : (h, w) of the images, px.
    masks : folder for the masks, such as "Annotations"; empty: beside the images.
    """
    truth: Truth = {}
    for number, name in enumerate(classes):
        images = folder / "Images" / name
        answers = folder / masks / name if masks else images
        for path in (images, answers):
            path.mkdir(parents=True, exist_ok=True)
        for index in range(queries + 1):
            rng = np.random.default_rng([seed, number, index])
            scene = _Scene(shape, rng)
            for _ in range(1 if index == 0 else int(rng.integers(15, 41))):
                scene.add(name, number, "disc", int(rng.integers(8, 15)))
            mask = scene.masks[name]
            path = images / f"{index:02}.jpg"
            _save(path, scene.rgb)
            Image.fromarray(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)).save(answers / f"{index:02}.png")
            truth[path] = {name: mask}
    return truth


def write_coco_20i(folder: Path, *, each: int = 2, images: int = 16, side: int = 96, seed: int = 0) -> Truth:
    """COCO 2014's validation images: 80 categories, of which the first `each` of every fold are in images.

    An image has two classes. Outlines are polygons, or runs of pixels as numbers (of a crowd, as COCO has them) or as
    text.
    """
    numbers = [n for n in range(1, 91) if n not in COCO_GAPS]
    names = {number: f"class {number}" for number in numbers}
    kinds = ("square", "plus", "disc", "step")
    used = [numbers[fold + 4 * k] for k in range(each) for fold in range(4)]
    content = _Content(names, used, lambda i: f"COCO_val2014_{i:012}.jpg", lambda name: {"file_name": name})
    truth = content.draw(folder / "val2014", images, 2, side, kinds, seed)
    content.write(folder / "annotations" / "instances_val2014.json")
    return truth


def write_lvis_92i(folder: Path, *, classes: int = 21, images: int = 24, side: int = 96, seed: int = 0) -> Truth:
    """LVIS v1's validation images, which are of both folders of COCO 2017.

    One class more is in a single image and another in none. Outlines are polygons.
    """
    names = {number: f"class_{number}" for number in range(1, classes + 3)}
    content = _Content(
        names,
        list(names)[:classes],
        lambda i: f"{('val2017', 'train2017')[i % 2]}/{i:012}.jpg",
        lambda name: {"coco_url": f"http://images.cocodataset.org/{name}"},
        once=classes + 1,
    )
    truth = content.draw(folder, images, 4, side, ("square", "plus", "step"), seed)
    content.write(folder / "lvis_v1_val.json")
    return truth


def run_lengths(mask: Mask) -> list[int]:
    """Lengths of runs, in turn background and foreground, down each column from the left: COCO's RLE.

    >>> run_lengths(np.array([[True, False], [True, True]]))
    [0, 2, 1, 1]
    """
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return [0, *counts] if flat.size and flat[0] else counts


def counts_text(counts: Sequence[int]) -> str:
    """Lengths of runs as COCO's text, the inverse of `gigaseg.one_shot.masks.parse_counts`.

    >>> counts_text([5, 2, 2, 2, 2, 2, 5])
    '5220003'
    """
    letters = []
    for place, count in enumerate(counts):
        left = count - counts[place - 2] if place > 2 else count
        while True:
            group, left = left & 31, left >> 5
            ends = left == (-1 if group & 16 else 0)
            letters.append(chr(48 + group + (0 if ends else 32)))
            if ends:
                break
    return "".join(letters)


class _Scene:
    """An image that is being drawn, with a mask of each class."""

    def __init__(self, shape: tuple[int, int], rng: np.random.Generator) -> None:
        self._rng = rng
        coarse = rng.normal(0, 1, (shape[0] // 8 + 2, shape[1] // 8 + 2)).repeat(8, 0).repeat(8, 1)
        ground = 110 + 8 * coarse[: shape[0], : shape[1]] + rng.normal(0, 6, shape)
        self._values = ground[..., None] + np.array([4.0, 0.0, -8.0])
        self._shape = shape
        self.masks: dict[str, Mask] = {}
        self.objects: list[tuple[str, str, tuple[int, int, int]]] = []

    @property
    def rgb(self) -> Picture:
        return np.asarray(self._values.clip(0, 255), dtype=np.uint8)

    def add(self, name: str, number: int, kind: str, size: int) -> None:
        """Draw an object of a class; it may hide others, whose masks keep what is hidden."""
        y, x = (int(self._rng.integers(0, length - size)) for length in self._shape)
        inside = np.zeros(self._shape, np.bool_)
        inside[y : y + size, x : x + size] = _shape_mask(kind, size)
        shade = np.array(_COLOURS[number % len(_COLOURS)], float)
        noise = self._rng.normal(0, 6, (int(inside.sum()), 1))
        self._values[inside] = shade + noise
        self.masks[name] = self.masks.get(name, np.zeros(self._shape, np.bool_)) | inside
        self.objects.append((name, kind, (y, x, size)))


@dataclass
class _Content:
    """An annotation file that is being made.

    Attributes
    ----------
    names : of all categories.
    used : categories that images have, in turn.
    path : of an image, by its number.
    reference : how the file names it.
    once : category that only the first image has too.
    """

    names: dict[int, str]
    used: list[int]
    path: Callable[[int], str]
    reference: Callable[[str], dict[str, str]]
    once: int | None = None
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def draw(self, folder: Path, images: int, classes: int, side: int, kinds: Sequence[str], seed: int) -> Truth:
        numbers = {name: number for number, name in self.names.items()}
        truth: Truth = {}
        for index in range(images):
            rng = np.random.default_rng([seed, index])
            shape = (side, side + 8 * (index % 3))
            scene = _Scene(shape, rng)
            there = [self.used[(index * classes + k) % len(self.used)] for k in range(classes)]
            for number in [*there, *([self.once] if self.once and not index else [])]:
                for _ in range(int(rng.integers(1, 4))):
                    scene.add(self.names[number], number, kinds[number % len(kinds)], int(rng.integers(12, 24)))
            name = self.path(index + 1)
            _save(folder / name, scene.rgb)
            self.images.append({"id": index + 1, **self.reference(name), "height": shape[0], "width": shape[1]})
            for at, (label, kind, box) in enumerate(scene.objects):
                self._annotate(index + 1, numbers[label], kind, box, shape, in_text=bool(at % 2))
            truth[folder / name] = scene.masks
        return truth

    def _annotate(
        self, image: int, category: int, kind: str, box: tuple[int, int, int], shape: tuple[int, int], in_text: bool
    ) -> None:
        y, x, size = box
        outlines: Any = [[v + (x, y)[k % 2] for k, v in enumerate(one)] for one in _polygons(kind, size)]
        if kind == "disc":
            inside = np.zeros(shape, np.bool_)
            inside[y : y + size, x : x + size] = _shape_mask(kind, size)
            counts = run_lengths(inside)
            outlines = {"size": list(shape), "counts": counts_text(counts) if in_text else counts}
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": image,
                "category_id": category,
                "segmentation": outlines,
                "area": int(_shape_mask(kind, size).sum()),
                "bbox": [x, y, size, size],
                "iscrowd": int(kind == "disc" and not in_text),
            }
        )

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        categories = [{"id": number, "name": name} for number, name in self.names.items()]
        content = {
            "info": {"year": 0},
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
        path.write_text(json.dumps(content), encoding="utf-8")


def _shape_mask(kind: str, size: int) -> Mask:
    """(size, size)."""
    inside = np.zeros((size, size), np.bool_)
    third = size // 3
    if kind == "disc":
        y, x = np.ogrid[:size, :size]
        middle = (size - 1) / 2
        inside = (y - middle) ** 2 + (x - middle) ** 2 <= (size / 2) ** 2
    elif kind == "plus":
        inside[third:-third] = inside[:, third:-third] = True
    elif kind == "step":
        inside[:, :third] = inside[third:] = True
    else:
        inside[:] = True
    return inside


def _polygons(kind: str, size: int) -> list[list[int]]:
    """Outlines of `_shape_mask`, x, y, x, y, ...; a plus is two that cross."""
    third = size // 3
    a, b = third, size - third
    return {
        "square": [[0, 0, size, 0, size, size, 0, size]],
        "plus": [[0, a, size, a, size, b, 0, b], [a, 0, b, 0, b, size, a, size]],
        "step": [[0, 0, a, 0, a, a, size, a, size, size, 0, size]],
    }.get(kind, [])


def _save(path: Path, rgb: Picture) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, quality=92)
