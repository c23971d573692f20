"""PerSense-D: a folder a class, in which image 00 shows the class and all others are queries."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from gigaseg.errors import FormatError
from gigaseg.one_shot.base import Episode, Shown, read_mask_file

SUPPORT = "00"
"""Name of the support image of each class."""

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_MASK_FOLDERS = ("Annotations", "Masks")


def persense_d(folder: Path, *, as_published: bool = False) -> Iterator[Episode]:
    """Queries of PerSense-D, class by class.

    As published an image and its mask lie side by side, ``Images/CLASS/NN.jpg`` and ``Images/CLASS/NN.png``. Masks may
    also be in a tree of their own, ``Annotations/CLASS/NN.png`` or ``Masks/CLASS/NN.png``. They are paired by name.

    Parameters
    ----------
    folder : holds Images.
    as_published : leave out what the release leaves out: queries with "00" anywhere in CLASS/NN, such as 100, and the
        last query of each class.

    Raises
    ------
    FormatError
        A folder, a support image or the counterpart of an image or mask is missing.
    """
    images = folder / "Images"
    if not images.is_dir():
        raise FormatError(f"{images}: no such folder; expected Images/CLASS/NN.jpg with masks Images/CLASS/NN.png")
    classes = sorted(path for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise FormatError(f"{images}: holds no folder of a class; expected CLASS/{SUPPORT}.jpg, CLASS/01.jpg and so on")
    apart = [folder / name for name in _MASK_FOLDERS if (folder / name).is_dir()]
    # all are paired before the first is scored: what is missing must not be told after hours
    found = [(path.name, _class(path, apart[0] / path.name if apart else None)) for path in classes]
    return (episode for name, pairs in found for episode in _episodes(name, pairs, as_published))


def _episodes(name: str, pairs: dict[str, Shown], as_published: bool) -> Iterator[Episode]:
    support = pairs[SUPPORT]
    queries = [stem for stem in pairs if stem != SUPPORT]
    if as_published:
        queries = [stem for stem in queries[:-1] if SUPPORT not in f"{name}/{stem}"]
    for stem in queries:
        yield Episode(f"{name}/{stem}", name, None, support, pairs[stem])


def _class(images: Path, masks: Path | None) -> dict[str, Shown]:
    """Images of a class with their masks, by name, 100 after 99."""
    there = [path for path in _files(images) if masks is not None or path.suffix.lower() != ".png"]
    pictures = _by_stem(there)
    answers = _by_stem([path for path in _files(masks or images) if path.suffix.lower() == ".png"])
    for stem in sorted(pictures.keys() ^ answers.keys()):
        if stem in pictures:
            raise FormatError(f"{pictures[stem]}: has no mask, expected {(masks or images) / stem}.png")
        raise FormatError(f"{answers[stem]}: is a mask without an image, expected {images / stem}.jpg")
    if SUPPORT not in pictures:
        shown = ", ".join(path.name for path in list(pictures.values())[:3]) or "no image"
        raise FormatError(f"{images}: no support image; found {shown}, expected {SUPPORT}.jpg among them")
    if len(pictures) == 1:
        raise FormatError(f"{images}: holds {SUPPORT} alone, expected images to seek in too")
    return {
        stem: Shown(path, partial(read_mask_file, answers[stem]), upright=True)
        for stem, path in sorted(pictures.items(), key=lambda item: (len(item[0]), item[0]))
    }


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FormatError(f"{folder}: no such folder; expected masks NN.png, as Images has images")
    return [p for p in sorted(folder.iterdir()) if p.suffix.lower() in _PICTURES and not p.name.startswith(".")]


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise FormatError(f"{path}: has the name of {found[path.stem].name}, expected one image a name")
        found[path.stem] = path
    return found
