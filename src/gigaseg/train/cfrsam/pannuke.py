"""The layout of PanNuke: three folds of patches of 19 tissues with five classes of nuclei, in arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.metrics.pannuke import CLASSES, merge_channels
from gigaseg.train.data import Classes, Entry

FOLDS = (1, 2, 3)
"""Numbers of the folds."""

_TOP = 255.0
"""Largest value of a picture, which the published arrays hold as float64."""


def pannuke(folder: Path) -> list[Entry]:
    """PanNuke: ``Fold K/images/foldK/images.npy``, ``types.npy`` beside it and ``Fold K/masks/foldK/masks.npy``.

    Images are (n, y, x, 3), whole numbers of 0 to 255 in any type; masks (n, y, x, 6), a label image each of the
    classes neoplastic, inflammatory, connective, dead and epithelial, and the background; types n names of tissues.
    Folders may be spelt otherwise (fold1, fold_1, fold-1, within each other as the archives unpack), or lack the inner
    ones. Arrays are mapped into memory, an image is read when it is wanted.

    An image is named fold1_0000 and so on, `Entry.whole` is the fold (fold1), the group the tissue. The label image
    has the channels in their order, a later one on top (`gigaseg.metrics.pannuke.merge_channels`); what the channels
    hold where they overlap is kept as `Entry.class_maps`. The splits are pannuke-123, pannuke-213 and pannuke-321.

    Raises
    ------
    FormatError
        There is no fold, one lacks an array, or an array is damaged or of another shape or type.
    """
    entries = [entry for fold in FOLDS for entry in _fold(folder, fold)]
    if not entries:
        raise FormatError(
            f"{folder}: no fold of PanNuke; expected 'Fold 1/images/fold1/images.npy' with types.npy and "
            "'Fold 1/masks/fold1/masks.npy'"
        )
    return entries


def _fold(folder: Path, fold: int) -> list[Entry]:
    """Nothing where the fold is not there."""
    images = _file(folder, fold, "images.npy", "images")
    if images is None:
        return []
    masks = _beside(images, folder, fold, "masks.npy", "masks")
    types = _beside(images, folder, fold, "types.npy", "images", "masks")
    shape, shape_of_masks = _mapped(images, 3).shape, _mapped(masks, 6).shape
    if shape_of_masks[:3] != shape[:3]:
        raise FormatError(f"{masks}: is {list(shape_of_masks)}, expected {[*shape[:3], 6]}, as many as {images} has")
    return [
        Entry(
            f"fold{fold}_{i:04d}",
            images,
            partial(_labels, masks, i),
            tissue,
            pixels=partial(_pixels, images, i),
            whole=f"fold{fold}",
            classes=Classes(masks, partial(_classes, masks, i)),
            class_maps=partial(_class_maps, masks, i),
        )
        for i, tissue in enumerate(_tissues(types, shape[0]))
    ]


def _named(folder: Path, fold: int) -> list[Path]:
    """Folders in this one that are named by the fold."""
    if not folder.is_dir():
        return []
    return [p for p in sorted(folder.iterdir()) if p.is_dir() and re.fullmatch(rf"fold[ _-]?{fold}", p.name.lower())]


def _file(folder: Path, fold: int, name: str, *kinds: str) -> Path | None:
    """The file of a fold, in a folder of one of these kinds or in the fold's own."""
    outer = _named(folder, fold)
    roots = [path for one in outer for path in (*_named(one, fold), one)]
    inner = [path for root in (*roots, folder) for kind in kinds for path in _named(root / kind, fold)]
    places = [*inner, *(root / kind for root in roots for kind in kinds), *roots]
    return next((place / name for place in places if (place / name).is_file()), None)


def _beside(images: Path, folder: Path, fold: int, name: str, *kinds: str) -> Path:
    found = _file(folder, fold, name, *kinds)
    if found is None:
        raise FormatError(f"{images}: its fold has no {name}; expected 'Fold {fold}/{kinds[0]}/fold{fold}/{name}'")
    return found


def _pixels(path: Path, i: int) -> np.ndarray:
    stored = np.array(_mapped(path, 3)[i])
    if stored.dtype == np.uint8:
        return stored
    low, high = float(stored.min(initial=0)), float(stored.max(initial=0))
    if not (low >= 0 and high <= _TOP) or (0 < high <= 1 and stored.dtype.kind == "f" and (stored % 1).any()):
        raise FormatError(f"{path}: image {i} has values of {low:g} to {high:g}, expected 0 to 255")
    return np.round(stored).astype(np.uint8)


def _labels(path: Path, i: int, shape: tuple[int, int]) -> np.ndarray:
    return merge_channels(_masks(path, i))[0]


def _classes(path: Path, i: int) -> dict[int, str]:
    instances, types = merge_channels(_masks(path, i))
    ids, first = np.unique(instances, return_index=True)
    kinds = types.ravel()[first]
    return {int(number): CLASSES[kind - 1] for number, kind in zip(ids, kinds) if number}


def _class_maps(path: Path, i: int) -> Mapping[str, np.ndarray]:
    masks = _masks(path, i)
    return {name: masks[..., c] for c, name in enumerate(CLASSES)}


def _masks(path: Path, i: int) -> np.ndarray:
    """Label images of the classes, (y, x, 5) int32."""
    stored = np.array(_mapped(path, 6)[i, ..., : len(CLASSES)])
    masks = stored.astype(np.int32)
    if not np.array_equal(masks, stored) or masks.min(initial=0) < 0:
        raise FormatError(f"{path}: image {i} has values that are no ids, expected whole numbers, 0 is background")
    return masks


def _mapped(path: Path, channels: int) -> np.ndarray:
    array = _array(path)
    if array.ndim != 4 or array.shape[3] != channels or array.dtype.kind not in "uif":
        raise FormatError(f"{path}: is {list(array.shape)} of {array.dtype}, expected (n, y, x, {channels}) of numbers")
    return array


def _tissues(path: Path, count: int) -> list[str]:
    array = _array(path)
    if array.shape != (count,) or array.dtype.kind not in "US":
        raise FormatError(f"{path}: is {list(array.shape)} of {array.dtype}, expected {count} names of tissues")
    return [str(name) for name in array.astype(str)]


def _array(path: Path) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read as an array ({one_line(error)}); expected PanNuke's") from error
