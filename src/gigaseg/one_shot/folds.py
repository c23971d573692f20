"""COCO-20i and LVIS-92i: classes in folds, of which pairs of images are drawn."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from gigaseg.errors import ConfigError, FormatError
from gigaseg.one_shot.annotations import Annotations, read_annotations
from gigaseg.one_shot.base import Episode, Shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folds:
    """A protocol.

    Attributes
    ----------
    annotations : where the annotation file may be, below the data's folder.
    images : where the images may be, below the data's folder, the first that is there.
    folds, episodes : number of folds, and of pairs of images that are drawn of each.
    classes : number of classes that the file must have; None: as many as there are.
    in_turn : each class as often as the others, one after the other; else each is drawn.
    """

    annotations: tuple[str, ...]
    images: tuple[str, ...]
    folds: int
    episodes: int
    classes: int | None
    in_turn: bool


COCO_20I = Folds(("annotations/instances_val2014.json",), ("val2014",), 4, 1000, 80, in_turn=False)
LVIS_92I = Folds(("lvis_v1_val.json", "annotations/lvis_v1_val.json"), (".", "coco"), 10, 2300, None, in_turn=True)


def fold_classes(classes: Sequence[int], fold: int, folds: int) -> list[int]:
    """Classes of a fold: every `folds`-th from the `fold`-th on, as many in each; a remainder is in none.

    >>> fold_classes([2, 4, 6, 8, 10], fold=1, folds=2)
    [4, 8]
    """
    return list(classes[fold : len(classes) // folds * folds : folds])


def draw(
    protocol: Folds, folder: Path, *, fold: int | None = None, episodes: int | None = None, seed: int = 0
) -> Iterator[Episode]:
    """Pairs of a support and another image as a query, both of which have the class, fold by fold.

    Parameters
    ----------
    folder : of the data set, as published.
    fold : only this one; None: all.
    episodes : pairs a fold; None: the protocol's.
    seed : the same seed and file give the same pairs of a fold, whatever other folds are drawn.

    Raises
    ------
    FormatError
        A file or folder is missing or wrong, or a fold has no class in two images.
    ConfigError
        There is no such fold.
    """
    if fold is not None and not 0 <= fold < protocol.folds:
        raise ConfigError(f"--fold is {fold}, accepted: 0 .. {protocol.folds - 1}")
    path = _first(folder, protocol.annotations)
    found = read_annotations(path)
    if protocol.classes is not None and len(found.categories) != protocol.classes:
        raise FormatError(f"{path}: has {len(found.categories)} categories, expected {protocol.classes}")
    # COCO's folds are of all its classes; LVIS' of those that can be shown in one image and sought in another
    shown = {one: None for one in found.categories if len(found.at.get(one, ())) >= 2}
    classes = list(found.categories if protocol.classes is not None else shown)
    wanted = range(protocol.folds) if fold is None else [fold]
    members = {number: fold_classes(classes, number, protocol.folds) for number in wanted}
    for number, of in members.items():
        usable = [one for one in of if one in shown]
        if not usable:
            raise FormatError(f"{path}: fold {number} has no class in two images, expected one or more")
        if len(usable) < len(of):
            logger.warning("fold %d: %d of %d classes are not in two images", number, len(of) - len(usable), len(of))
        members[number] = usable
    source = _Source(protocol, found, folder, {one: list(found.at[one]) for of in members.values() for one in of})
    pairs = protocol.episodes if episodes is None else episodes

    def drawn() -> Iterator[Episode]:
        return (episode for number, of in members.items() for episode in source.draw(number, of, pairs, seed))

    # a missing image must not be told after hours
    for image in dict.fromkeys(one.image for episode in drawn() for one in (episode.support, episode.query)):
        if not image.is_file():
            raise FormatError(f"{image}: no such file, expected the image that {path.name} names")
    return drawn()


@dataclass(frozen=True, eq=False)
class _Source:
    """Where pairs are drawn from.

    Attributes
    ----------
    images : ids of the images of each class.
    places : file of each image that was asked for.
    """

    protocol: Folds
    found: Annotations
    folder: Path
    images: dict[int, list[int]]
    places: dict[int, Path] = field(default_factory=dict)

    def draw(self, fold: int, classes: Sequence[int], episodes: int, seed: int) -> Iterator[Episode]:
        rng = np.random.default_rng([seed, fold])
        for number in range(episodes):
            drawn = number % len(classes) if self.protocol.in_turn else int(rng.integers(len(classes)))
            category = classes[drawn]
            images = self.images[category]
            query = int(rng.integers(len(images)))
            support = (query + 1 + int(rng.integers(len(images) - 1))) % len(images)  # any but the query
            shown, sought = (self._shown(category, images[k]) for k in (support, query))
            name = self.found.categories[category]
            label = f"fold {fold}, {number}: {name} of {shown.image.name} in {sought.image.name}"
            yield Episode(label, name, fold, shown, sought)

    def _shown(self, category: int, image: int) -> Shown:
        if image not in self.places:
            places = [self.folder / below / self.found.images[image] for below in self.protocol.images]
            self.places[image] = next((place for place in places if place.is_file()), places[0])
        return Shown(self.places[image], partial(self.found.mask, category, image))


def _first(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FormatError(f"{folder}: holds no {names[0]}; expected " + " or ".join(names))
