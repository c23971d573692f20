"""Columns of all instances on disk until they are written: rows come from blocks, and leave in order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Store:
    """Columns of `count` rows in files of a folder; nothing of them stays in memory between calls.

    Attributes
    ----------
    folder : where the files lie, one a column; workers on other machines read them there.
    count : number of rows.
    dtypes : of each column, in order.
    """

    folder: Path
    count: int
    dtypes: Mapping[str, str]

    @classmethod
    def create(cls, folder: Path, count: int, dtypes: Mapping[str, str]) -> Store:
        """Columns filled with NaN, or 0 where they hold whole numbers."""
        store = cls(folder, count, dict(dtypes))
        for name, dtype in store.dtypes.items():
            empty = np.nan if np.dtype(dtype).kind == "f" else 0
            with (folder / name).open("wb") as stream:
                for first in range(0, count, 2**20):
                    # not tofile, whose error for a full disk has no number
                    stream.write(np.full(min(2**20, count - first), empty, dtype).data)
        return store

    def write(self, name: str, rows: npt.NDArray[np.int64] | slice, values: Values) -> None:
        """Set `rows` of a column."""
        if self.count and len(values):
            # mapped for this call only: its pages do not count as this process's memory afterwards
            self._mapped(name, "r+")[rows] = values

    def read(self, name: str, rows: npt.NDArray[np.int64] | slice = slice(None)) -> Values:
        """`rows` of a column, all of them by default."""
        if not self.count:
            return np.empty(0, self.dtypes[name])
        return np.array(self._mapped(name, "r")[rows])

    def publish(self, name: str) -> None:
        """Let other machines see what was written to a column."""
        with (self.folder / name).open("rb+") as stream:
            os.fsync(stream.fileno())

    def _mapped(self, name: str, mode: Any) -> Values:
        return np.memmap(self.folder / name, self.dtypes[name], mode, shape=(self.count,))
