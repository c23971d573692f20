"""Training images with label images, held in memory as they are stored.

A data set is a list of `Sample`; how one is found on disk is the business of `gigaseg.train.layouts`, which part of it
trains the business of `gigaseg.train.splits`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from gigaseg.errors import FormatError, is_machine_fault, one_line

T = TypeVar("T")

ClassMaps = Callable[[], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Classes:
    """Where the classes of an image's instances are, not read yet.

    Attributes
    ----------
    file : that states them, for messages.
    read : the name of the class of each instance, by its id in the label image.
    """

    file: Path
    read: Callable[[], Mapping[int, str]] = field(repr=False)


@dataclass(frozen=True)
class Entry:
    """Where one image and its instances are, not read yet.

    Attributes
    ----------
    name : of the image, unique in its data set.
    image : file of the image.
    labels : reads the label image: (y, x) int32, 0 is background, one id an instance; `shape` is the image's (y, x).
    group : stratum of splits and of the figures, such as the modality; empty when unknown.
    split : as the data set itself states it, such as train or val; empty when it states none.
    pixels : reads the image, (y, x, 3) uint8, where it is only a part of its file; None: the file is the image.
    whole : name of the image or fold that it is a part of, by which a split file may name it; empty when it is none.
    classes : of the instances; None: the data set states none.
    patient : whose images must not be divided where images are held out; empty when unknown.
    class_maps : reads a label image (y, x) of each class by its name, where the data set states those, which may
        overlap each other; `labels` has the same objects in one.
    """

    name: str
    image: Path
    labels: Callable[[tuple[int, int]], np.ndarray] = field(repr=False)
    group: str = ""
    split: str = ""
    pixels: Callable[[], np.ndarray] | None = field(default=None, repr=False)
    whole: str = ""
    classes: Classes | None = None
    patient: str = ""
    class_maps: ClassMaps | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Sample:
    """An image with its instances.

    Attributes
    ----------
    image : (y, x, 3) uint8, RGB.
    labels : (y, x) int32, 0 is background, 1..n the instances.
    diameter : median over the instances of the diameter of the circle of equal area, px; NaN without instances.
    background : (3,) uint8, median colour outside the instances: what augmentation fills in beyond the image.
    classes : name of the class of instance 1, 2, ... n; None: all are of one class.
    class_maps : of its `Entry`, read anew by each call.
    """

    name: str
    group: str
    image: np.ndarray
    labels: np.ndarray
    diameter: float
    background: np.ndarray
    classes: tuple[str, ...] | None = None
    class_maps: ClassMaps | None = field(default=None, repr=False)


def load(entries: Sequence[Entry], workers: int = 1, classes: Sequence[str] = ()) -> list[Sample]:
    """Read images and labels, in the order of `entries`.

    Parameters
    ----------
    classes : names of which every instance must have one. Fewer than two tell nothing apart: none is read.

    Raises
    ------
    FormatError
        A file is missing, damaged, its label image has another size than the image, or an instance has no class.
    """
    with ThreadPoolExecutor(max(1, workers)) as pool:
        return list(pool.map(partial(_load, classes=classes), entries))


def read(entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    """Image (y, x, 3) uint8 of an entry, and its label image (y, x) as it is stored.

    Raises FormatError when one cannot be read, or their sizes differ.
    """
    image = read_rgb(entry.image) if entry.pixels is None else entry.pixels()
    labels = entry.labels(image.shape[:2])
    if labels.shape != image.shape[:2]:
        raise FormatError(
            f"{entry.image}: {_size(image)} px, but its label image has {_size(labels)} px; expected equal sizes"
        )
    return image, labels


def _load(entry: Entry, classes: Sequence[str]) -> Sample:
    image, stored = read(entry)
    labels = consecutive(stored)
    area = np.bincount(labels.ravel())[1:]
    outside = image[labels == 0] if (labels == 0).any() else image.reshape(-1, 3)
    return Sample(
        entry.name,
        entry.group,
        image,
        labels,
        float(np.median(2 * np.sqrt(area / np.pi))) if len(area) else float("nan"),
        np.median(outside, axis=0).astype(np.uint8),
        _classes(entry, np.unique(stored[stored > 0]).tolist(), classes) if len(classes) > 1 else None,
        entry.class_maps,
    )


def _classes(entry: Entry, ids: Sequence[int], accepted: Sequence[str]) -> tuple[str, ...]:
    """The class of each instance, by its id in the label image as it is stored."""
    if entry.classes is None:
        raise FormatError(f"{entry.image}: its data set states no classes, accepted: {', '.join(accepted)}")
    stated = entry.classes.read()
    for number in ids:
        if stated.get(number) not in accepted:
            found = f"class '{one_line(stated[number])}'" if number in stated else "no class"
            raise FormatError(
                f"{entry.classes.file}: instance {number} of image '{entry.name}' has {found}, "
                f"accepted: {', '.join(accepted)}"
            )
    return tuple(stated[number] for number in ids)


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} × {array.shape[0]}"


def consecutive(labels: np.ndarray) -> np.ndarray:
    """`labels` with its ids as 1..n in their order, as int32."""
    ids, inverse = np.unique(labels, return_inverse=True)
    numbers = np.arange(len(ids)) + (0 if len(ids) and ids[0] == 0 else 1)
    return numbers.astype(np.int32)[inverse].reshape(labels.shape)


def read_rgb(path: Path) -> np.ndarray:
    """Read an image file as (y, x, 3) uint8 RGB; grey becomes RGB, alpha is dropped, more bits are scaled to 8.

    Raises FormatError when it cannot be read.
    """
    array = _read(path)
    if array.dtype != np.uint8:
        top = 65535 if array.dtype in (np.uint16, np.int32) else float(array.max() or 1)
        array = (array.astype(np.float64) * (255 / top)).clip(0, 255).astype(np.uint8)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    return np.ascontiguousarray(array[..., :3])


def read_labels(path: Path) -> np.ndarray:
    """Read a label image (one channel, 8, 16 or 32 bits) as (y, x) int32.

    Raises FormatError when it cannot be read or has several channels.
    """
    array = _read(path)
    if array.ndim != 2 or array.dtype.kind not in "biu":
        raise FormatError(f"{path}: a picture of {array.shape[2:] or array.dtype}, expected one channel of whole ids")
    return array.astype(np.int32)


def read_size(path: Path) -> tuple[int, int]:
    """The (y, x) of an image file, from its header; raises FormatError when it cannot be read."""
    width, height = _opened(path, lambda picture: picture.size)
    return height, width


def _read(path: Path) -> np.ndarray:
    return _opened(path, _array)


def _array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB") if picture.mode in ("P", "CMYK", "LA", "YCbCr") else picture)


def _opened(path: Path, take: Callable[[Image.Image], T]) -> T:
    """What `take` makes of an image file."""
    try:
        with Image.open(path) as picture:
            return take(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read as an image ({one_line(error)})") from error
