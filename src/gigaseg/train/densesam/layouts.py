"""Layouts of DenseSAM's published protocols: nuclei of CPM15, CPM17 and MoNuSeg, and buildings from above."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from gigaseg.errors import FormatError
from gigaseg.train.data import Entry, read_rgb, read_size
from gigaseg.train.published import monuseg
from gigaseg.train.tiles import tiled

WHOLE = 1024
"""Side that images of CPM17 and MoNuSeg are scaled to before they are cut, px."""

TILE = 512
"""Side of a tile of Inria, px; published images have 5000 px and are padded to 5120."""

HELD_OUT = 5
"""Images of each city of Inria that validate: those of the numbers 1 to 5, as its authors propose."""

_TIFF = (".tif", ".tiff", ".png")


def cpm15(folder: Path) -> list[Entry]:
    """CPM15 as HoVer-Net's authors distribute it: ``Images/NAME.png`` and ``Labels/NAME.mat`` with ``inst_map``.

    There are no parts.

    Raises
    ------
    FormatError
        A folder is missing, or an image or label file is without its counterpart.
    """
    found = _pairs(folder / "Images", folder / "Labels", (".png",), (".mat",))
    return [Entry(name, image, partial(_instances, labels)) for name, image, labels in found]


def cpm17(folder: Path) -> list[Entry]:
    """CPM17, likewise: what `cpm15` is, once in ``train`` and once in ``test``; images are named PART-NAME.

    Raises
    ------
    FormatError
        A folder is missing, or an image or label file is without its counterpart.
    """
    return [
        Entry(f"{part}-{entry.name}", entry.image, entry.labels, split=part)
        for part in ("train", "test")
        for entry in cpm15(folder / part)
    ]


def cpm17_tiles(folder: Path) -> list[Entry]:
    """`cpm17` as DenseSAM sees it: each image scaled to 1024 px, in 2 x 2 tiles (`gigaseg.train.tiles.tiled`)."""
    return [tile for entry in cpm17(folder) for tile in tiled(entry, 2, 2, _scaled)]


def monuseg_tiles(folder: Path) -> list[Entry]:
    """`gigaseg.train.published.monuseg` as DenseSAM sees it: each image scaled to 1024 px, in 4 x 4 tiles."""
    return [tile for entry in monuseg(folder) for tile in tiled(entry, 4, 4, _scaled)]


def whu(folder: Path) -> list[Entry]:
    """WHU's aerial buildings: ``PART/image/NAME.tif`` and ``PART/label/NAME.tif``; PART: train, val, test.

    Labels are 255 on buildings and 0 elsewhere; an instance is what touches by sides or corners. Images are named
    PART-NAME.

    Raises
    ------
    FormatError
        A folder is missing, or an image or label is without its counterpart.
    """
    return [
        Entry(f"{part}-{name}", image, partial(_buildings, label), split=part)
        for part in ("train", "val", "test")
        for name, image, label in _pairs(folder / part / "image", folder / part / "label", _TIFF, _TIFF)
    ]


def inria(folder: Path) -> list[Entry]:
    """Inria's aerial buildings: ``train/images/CITYn.tif`` and ``train/gt/CITYn.tif``, in tiles of 512 px.

    Images are padded evenly on all sides, mirrored, to a multiple of 512 px (5120 of 5000). Labels and instances are
    as `whu` has them; the group is the city; images 1 to 5 of each validate, there is no test part with labels.

    Raises
    ------
    FormatError
        A folder is missing, a name has no number, or an image or label is without its counterpart.
    """
    return [tile for entry in _inria(folder) for tile in _padded_tiles(entry)]


def inria_buildings(folder: Path) -> list[Entry]:
    """`inria` without the tiles that show no building, as in DenseSAM's protocol, to validate as well.

    All labels are read to find them.
    """
    found: list[Entry] = []
    for entry in _inria(folder):
        mask = _padded(entry.labels(read_size(entry.image)))
        rows, cols = (side // TILE for side in mask.shape)
        shown = mask.reshape(rows, TILE, cols, TILE).any(axis=(1, 3)).ravel()
        found += [tile for tile, has in zip(_padded_tiles(entry), shown, strict=True) if has]
    return found


def _inria(folder: Path) -> list[Entry]:
    """The images as a whole, their label images being 1 on buildings."""
    entries = []
    for name, image, label in _pairs(folder / "train" / "images", folder / "train" / "gt", _TIFF, _TIFF):
        city = re.fullmatch(r"(.*\D)(\d+)", name)
        if city is None:
            raise FormatError(f"{image}: name is '{name}', accepted: a city and a number, such as austin1.tif")
        part = "val" if int(city[2]) <= HELD_OUT else "train"
        entries.append(Entry(name, image, partial(_mask, label), city[1], part))
    return entries


def _padded_tiles(entry: Entry) -> list[Entry]:
    rows, cols = (-(-side // TILE) for side in read_size(entry.image))
    return tiled(entry, rows, cols, _padded, _parts)


def massachusetts(folder: Path) -> list[Entry]:
    """Massachusetts buildings: ``PART/NAME.tiff`` and ``PART_labels/NAME.tif``, each image in 3 x 3 tiles.

    `folder` holds these folders or is that of ``tiff``; PART: train, val, test. Labels are RGB, red being 255 on
    buildings and 0 elsewhere; instances and names of images are as `whu` has them.

    Raises
    ------
    FormatError
        A folder is missing, or an image or label is without its counterpart.
    """
    inner = folder / "tiff"
    folder = inner if inner.is_dir() else folder
    return [
        tile
        for part in ("train", "val", "test")
        for name, image, label in _pairs(folder / part, folder / f"{part}_labels", _TIFF, _TIFF)
        for tile in tiled(Entry(f"{part}-{name}", image, partial(_mask, label), split=part), 3, 3, finish=_parts)
    ]


def _pairs(
    images: Path, labels: Path, image_suffixes: tuple[str, ...], label_suffixes: tuple[str, ...]
) -> list[tuple[str, Path, Path]]:
    """Name, image and label file of all that two folders hold, by name."""
    of_image, of_label = _by_stem(images, image_suffixes), _by_stem(labels, label_suffixes)
    for name in sorted(of_image.keys() ^ of_label.keys()):
        found = of_image.get(name) or of_label[name]
        raise FormatError(
            f"{found}: has no counterpart; expected {images / name}{image_suffixes[0]} and "
            f"{labels / name}{label_suffixes[0]}"
        )
    return [(name, image, of_label[name]) for name, image in of_image.items()]


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise FormatError(f"{folder}: no such folder; expected files {' or '.join(suffixes)} in it")
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes}
    if not found:
        raise FormatError(f"{folder}: holds no file {' or '.join(suffixes)}")
    return found


def _instances(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """The label image of a MAT file."""
    from gigaseg.metrics.images import read_mat

    stored = np.asarray(read_mat(path)["inst_map"])
    numbers = stored.dtype.kind in "biuf" and bool(np.isfinite(stored).all())
    if stored.ndim != 2 or not numbers or (stored != np.floor(stored)).any() or stored.min(initial=0) < 0:
        raise FormatError(
            f"{path}: inst_map is {list(stored.shape)} of {stored.dtype}, expected (y, x) of whole ids, 0 is background"
        )
    return stored.astype(np.int32)


def _mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """(y, x) uint8, 1 on buildings."""
    red = read_rgb(path)[..., 0]
    others = np.setdiff1d(red, (0, 255))
    if len(others):
        raise FormatError(f"{path}: has the value {others[0]}, accepted: 255 on buildings and 0 elsewhere")
    return (red > 0).astype(np.uint8)


def _buildings(path: Path, shape: tuple[int, int]) -> np.ndarray:
    return _parts(_mask(path, shape))


def _parts(mask: np.ndarray) -> np.ndarray:
    """What touches by sides or corners, as 1..n."""
    from scipy import ndimage

    return np.asarray(ndimage.label(mask, np.ones((3, 3)))[0], np.int32)


def _scaled(array: np.ndarray) -> np.ndarray:
    """An image, bilinear, or a label image, nearest; both about the centres of pixels.

    The published code takes labels from up to half a px further to the upper left.
    """
    way = Image.Resampling.BILINEAR if array.ndim == 3 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(array).resize((WHOLE, WHOLE), way))


def _padded(array: np.ndarray) -> np.ndarray:
    missing = [-side % TILE for side in array.shape[:2]]
    return np.pad(array, [*((m // 2, m - m // 2) for m in missing), *[(0, 0)] * (array.ndim - 2)], mode="reflect")
