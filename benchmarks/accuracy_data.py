"""The columns of `accuracy.py`: images with their truth, and the parts that are scored."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gigaseg.slides.inspect import inspect

SPLIT = Path(__file__).parents[1] / "splits" / "monuseg_24_6.tsv"

DSB2018, MONUSEG, MONUSEG_HELD_OUT, CONSEP = "dsb2018 val", "monuseg", "monuseg held out", "consep"

X40 = 0.25
"""µm, a pixel of a scan at 40x."""


@dataclass(frozen=True)
class Picture:
    """One image.

    Attributes
    ----------
    name : unique in its set.
    image, labels : files.
    pixel_size : µm; None: not known.
    parts : tables in which it counts.
    """

    name: str
    image: Path
    labels: Path
    pixel_size: float | None
    parts: tuple[str, ...]

    @cached_property
    def kind(self) -> str:
        """Brightfield or fluorescence, as `gigaseg inspect` finds out."""
        return inspect(self.image, slide="image", pixel_size="px").kind

    def pixels(self) -> np.ndarray:
        """(y, x, 3) uint8 RGB."""
        from PIL import Image

        with Image.open(self.image) as image:
            return np.asarray(image.convert("RGB"))

    def truth(self) -> np.ndarray:
        """(y, x) int32 labels."""
        from PIL import Image

        with Image.open(self.labels) as image:
            return np.asarray(image).astype(np.int32)


OWN_SPLITS = ("own", "index.tsv: train")
"""What the card of weights says of their split that have not seen our validation images."""


@dataclass(frozen=True)
class Seen:
    """What weights were trained on, as their cards say.

    Attributes
    ----------
    data : (name, split) of their data set and of their base's.
    """

    data: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return "; ".join(f"{name} ({split})" for name, split in dict.fromkeys(self.data)) or "nothing that a card tells"

    def names(self, word: str, but: tuple[str, ...] = ()) -> bool:
        """Whether a data set with `word` in its name is among it, with another split than one of `but`."""
        return any(word in name.lower() and split not in but for name, split in self.data)


def dsb2018(data: Path, seen: Seen) -> list[Picture]:
    """Validation images, together and by modality; nobody knows their pixel size. None where other splits trained."""
    if seen.names("dsb2018", OWN_SPLITS):
        return []
    folder = data / "dsb2018"
    with (folder / "index.tsv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["split"] == "val"]
    of = _files(folder)
    return [Picture(row["image"], *of(row["image"]), None, (DSB2018, f"{DSB2018}, {row['modality']}")) for row in rows]


def monuseg(data: Path, seen: Seen) -> list[Picture]:
    """All images, and once more the 6 of our split; only these for weights that have seen the other 24."""
    with SPLIT.open(encoding="utf-8") as stream:
        held_out = {row["image"] for row in csv.DictReader(stream, delimiter="\t") if row["split"] == "val"}
    found = []
    of = _files(data / "monuseg")
    for path in sorted((data / "monuseg" / "labels").glob("*.png")):
        parts = (() if seen.names("monuseg") else (MONUSEG,)) + ((MONUSEG_HELD_OUT,) if path.stem in held_out else ())
        if parts:
            found.append(Picture(path.stem, *of(path.stem), X40, parts))
    return found


def consep(data: Path, seen: Seen) -> list[Picture]:
    """All images; none for weights that have seen some."""
    if seen.names("consep"):
        return []
    of = _files(data / "consep")
    names = sorted(path.stem for path in (data / "consep" / "labels").glob("*.png"))
    return [Picture(name, *of(name), X40, (CONSEP,)) for name in names]


SETS: dict[str, Callable[[Path, Seen], list[Picture]]] = {"dsb2018": dsb2018, "monuseg": monuseg, "consep": consep}
"""Data sets by their folder: given the data folder and what the weights were trained on."""

PARTS = (
    DSB2018,
    *(f"{DSB2018}, {modality}" for modality in ("fluorescence", "purple", "brightfield")),
    MONUSEG,
    MONUSEG_HELD_OUT,
    CONSEP,
)
"""Tables of the page, in order."""


def some(pictures: list[Picture], limit: int | None) -> list[Picture]:
    """Up to `limit` of them, evenly spread."""
    if limit is None or limit >= len(pictures):
        return pictures
    return [pictures[i] for i in np.linspace(0, len(pictures) - 1, limit).round().astype(int)]


def truth_folder(pictures: list[Picture], part: str, work: Path) -> Path:
    """A folder with links to the label images of a part."""
    folder = work / "truth" / part.replace(", ", "-").replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for picture in pictures:
        if part in picture.parts:
            (folder / f"{picture.name}{picture.labels.suffix}").symlink_to(picture.labels.resolve())
    return folder


def _files(folder: Path) -> Callable[[str], tuple[Path, Path]]:
    images = {path.stem: path for path in sorted((folder / "images").iterdir())}
    return lambda name: (images[name], folder / "labels" / f"{name}.png")
