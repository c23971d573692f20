"""Layouts of CenterSAM's published protocols: MoNuSeg in nine crops, and the archives of TissueNet."""

from __future__ import annotations

import threading
import zipfile
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.train.data import Entry
from gigaseg.train.published import monuseg
from gigaseg.train.tiles import tiled

CROPS = 3
"""Crops along each side of a MoNuSeg image: 333 px of 1000, the last row and column of pixels being lost."""

_PARTS = ("train", "val", "test")

_STRETCH = (0.1, 99.9)
"""Percentiles of an image's nuclear channel that become black and white; the archives hold raw intensities."""


def monuseg_crops(folder: Path) -> list[Entry]:
    """MoNuSeg as `gigaseg.train.published.monuseg` reads it, each image in 3 x 3 crops that do not overlap.

    Crop NAME-RC is that of row R and column C. A split file may name the images instead of the crops.
    """
    return [tile for entry in monuseg(folder) for tile in tiled(entry, CROPS, CROPS)]


def tissuenet(folder: Path) -> list[Entry]:
    """TissueNet (Greenwald et al. 2022): ``*train*.npz``, ``*val*.npz``, ``*test*.npz``, which are its official parts.

    ``X`` (n, y, x, 2) holds intensities, channel 0 nuclear; ``y`` (n, y, x, 2) label images, channel 1 nuclear;
    ``tissue_list`` (n,), if there, the groups. The nuclear channel becomes grey RGB, stretched image by image. An
    archive is read as a whole: several GB of memory for the training part.

    Raises
    ------
    FormatError
        There is no archive, two are of one part, or one is damaged or of other content.
    """
    found: list[Entry] = []
    for part in _PARTS:
        paths = sorted(path for path in folder.glob("*.npz") if part in path.stem)
        if len(paths) > 1:
            raise FormatError(f"{folder}: {len(paths)} archives are of the part '{part}', expected one")
        for path in paths:
            shape = _shape(path, "X")
            if len(shape) != 4 or shape[3] < 2 or _shape(path, "y")[:3] != shape[:3] or _shape(path, "y")[3:] != (2,):
                raise FormatError(
                    f"{path}: X is {list(shape)} and y {list(_shape(path, 'y'))}, expected (n, y, x, 2) for both"
                )
            tissues = _tissues(path, shape[0])
            found += [
                Entry(
                    f"{path.stem}-{i:05d}",
                    path,
                    partial(_archive_labels, path, i),
                    tissue,
                    part,
                    pixels=partial(_archive_pixels, path, i),
                )
                for i, tissue in enumerate(tissues)
            ]
    if not found:
        raise FormatError(f"{folder}: no *train*.npz, *val*.npz or *test*.npz; expected the TissueNet layout")
    return found


def _shape(path: Path, name: str) -> tuple[int, ...]:
    """Shape of an array of an archive, from its header alone."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return tuple(read(stream)[0])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(path, name, error) from error


def _tissues(path: Path, count: int) -> list[str]:
    try:
        with np.load(path) as archive:
            names = archive["tissue_list"].tolist() if "tissue_list" in archive.files else [""] * count
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise _damaged(path, "tissue_list", error) from error
    if len(names) != count:
        raise FormatError(f"{path}: tissue_list has {len(names)} names, expected one for each of {count} images")
    return [str(name) for name in names]


def _archive_pixels(path: Path, i: int) -> np.ndarray:
    return np.repeat(_read_once(path)[0][i][..., None], 3, axis=2)


def _archive_labels(path: Path, i: int, shape: tuple[int, int]) -> np.ndarray:
    return np.asarray(_read_once(path)[1][i], np.int32)


def _read_once(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`_archive`, by one thread at a time: all that wait find it in the cache."""
    with _lock:
        return _archive(path)


_lock = threading.Lock()


@lru_cache(maxsize=1)
def _archive(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The nuclear channel (n, y, x) uint8 and its label images (n, y, x)."""
    try:
        with np.load(path) as archive:
            labels = np.ascontiguousarray(archive["y"][..., 1])
            raw = archive["X"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise _damaged(path, "X and y", error) from error
    grey = np.empty(raw.shape[:3], np.uint8)
    for i, image in enumerate(raw[..., 0]):
        low, high = np.percentile(image, _STRETCH)
        grey[i] = ((image - low) * (255 / max(high - low, 1e-9))).clip(0, 255)
    return grey, labels


def _damaged(path: Path, name: str, error: Exception) -> Exception:
    if is_machine_fault(error):
        return error
    return FormatError(f"{path}: {name} cannot be read ({one_line(error)}); expected an archive of TissueNet")
