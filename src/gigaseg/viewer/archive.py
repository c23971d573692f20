"""The file of a pack: a ZIP of gzip files with fixed times, the same bytes for the same content."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)
_AHEAD = 8
"""Files that wait to be compressed."""


class Writer:
    """A ZIP whose files are compressed by other threads and stored in the order in which they came."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self._pool = ThreadPoolExecutor(2, "gzip")
        self._waiting: list[tuple[str, Future[bytes]]] = []

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._store(0)
        self._pool.shutdown(cancel_futures=True)
        self._zip.close()

    def write(self, name: str, data: bytes) -> None:
        """Store a file as it is."""
        self._zip.writestr(zipfile.ZipInfo(name, _EPOCH), data)

    def compress(self, name: str, data: bytes) -> None:
        """Store a file as gzip."""
        self.later(name, lambda: gzip.compress(data, 1, mtime=0))

    def later(self, name: str, make: Callable[[], bytes]) -> None:
        """Store what `make` returns in another thread."""
        self._waiting.append((name, self._pool.submit(make)))
        self._store(_AHEAD)

    def _store(self, left: int) -> None:
        while len(self._waiting) > left:
            name, made = self._waiting.pop(0)
            self.write(name, made.result())
