"""Whole images cut into tiles that do not overlap, each of them an entry of the data set."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gigaseg.train.data import Entry, read

Change = Callable[[np.ndarray], np.ndarray]


def same(array: np.ndarray) -> np.ndarray:
    """No change."""
    return array


def tiled(entry: Entry, rows: int, cols: int, prepare: Change = same, finish: Change = same) -> list[Entry]:
    """An image in `rows` x `cols` tiles of equal size, row by row; what does not divide is lost at the far sides.

    Tile NAME-RC is that of row R and column C, each with leading zeros where there are more than ten of them. A split
    file may name the images instead of the tiles, and where images are held out the tiles of one stay together. An
    image is decoded once for all of its tiles, if a few threads read these one after another.

    Parameters
    ----------
    prepare : makes of a whole image (y, x, 3), and of its label image (y, x), what is cut.
    finish : makes of the label image of a tile what the entry has.
    """
    digits = len(str(max(rows, cols) - 1))
    tiles = [_Tile(entry, (rows, cols), (row, col), prepare, finish) for row in range(rows) for col in range(cols)]
    return [
        Entry(
            entry.name + "-" + "".join(f"{number:0{digits}}" for number in tile.place),
            entry.image,
            tile.labels,
            entry.group,
            entry.split,
            pixels=tile.pixels,
            whole=entry.name,
            classes=entry.classes,
            patient=entry.patient or entry.name,
        )
        for tile in tiles
    ]


@dataclass(frozen=True)
class _Tile:
    whole: Entry
    grid: tuple[int, int]
    place: tuple[int, int]
    prepare: Change
    finish: Change

    def pixels(self) -> np.ndarray:
        return self._cut(0)

    def labels(self, shape: tuple[int, int]) -> np.ndarray:
        return self.finish(self._cut(1))

    def _cut(self, which: int) -> np.ndarray:
        with _lock:  # all that wait find it in the cache
            array = _prepared(self.whole, self.prepare)[which]
        height, width = (side // count for side, count in zip(array.shape, self.grid))
        y, x = self.place[0] * height, self.place[1] * width
        return np.ascontiguousarray(array[y : y + height, x : x + width])


_lock = threading.Lock()


# the next image begins while other threads read the last tiles of this one
@lru_cache(maxsize=2)
def _prepared(entry: Entry, prepare: Change) -> tuple[np.ndarray, np.ndarray]:
    image, labels = read(entry)
    return prepare(image), prepare(labels)
