"""Packs of the slides of a results folder: found, made in the background where they are missing or stale, read."""

from __future__ import annotations

import errno
import json
import logging
import tempfile
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from gigaseg.errors import FormatError, UserError
from gigaseg.viewer.cohort import ResultsFolder
from gigaseg.viewer.pack import is_current, make_pack

log = logging.getLogger(__name__)

CHANGED = "the results have changed: load the page anew"

NAME = "view.zip"
"""Of a pack, beside the results it was made of."""


class Preparing(Exception):
    """The pack is being made; `share` of it is done, 0..1."""

    def __init__(self, share: float) -> None:
        super().__init__(share)
        self.share = share


@dataclass
class _Making:
    share: float = 0.0
    error: Exception | None = None
    thread: threading.Thread = field(default_factory=threading.Thread)


class Packs:
    """The packs of a results folder, by slide; may be asked by several threads.

    A pack lies beside the results, or in a temporary folder of this process where nothing can be written there.
    """

    def __init__(self, results: ResultsFolder) -> None:
        self._results = results
        self._lock = threading.Lock()
        self._open: dict[str, tuple[zipfile.ZipFile, str]] = {}
        self._making: dict[str, _Making] = {}
        self._elsewhere: tempfile.TemporaryDirectory[str] | None = None

    def read(self, slide: str, name: str, version: str = "") -> bytes:
        """A file of a slide's pack, of the `version` that its meta.json told.

        ``meta.json`` looks whether the pack still is that of the results, and starts to make it where it is not.

        Raises
        ------
        KeyError : there is no such slide, or no such file in its pack.
        Preparing : the pack is being made.
        UserError : it cannot be made, as `gigaseg.viewer.pack.make_pack`, or is another version by now.
        """
        with self._lock:
            if name == "meta.json" or slide not in self._open:
                self._open_or_make(slide)
            archive, found = self._open[slide]
        if version not in ("", found):
            raise FormatError(CHANGED)
        return archive.read(name)

    def _open_or_make(self, slide: str) -> None:
        folder = self._results.folder(slide)
        making = self._making.get(slide)
        if making is not None and making.thread.is_alive():
            raise Preparing(making.share)
        if making is not None and making.error is not None:
            del self._making[slide]
            raise making.error
        state = self._results.files(slide).state(self._results.class_colors(slide))
        for path in self._places(folder, slide):
            if is_current(path, state):
                archive = zipfile.ZipFile(path)
                self._open[slide] = archive, json.loads(archive.read("meta.json"))["version"]
                return
        self._open.pop(slide, None)
        making = self._making[slide] = _Making()
        making.thread = threading.Thread(target=self._make, args=(slide, folder, making), daemon=True)
        making.thread.start()
        raise Preparing(0.0)

    def _make(self, slide: str, folder: Path, making: _Making) -> None:
        def told(share: float) -> None:
            making.share = share

        files, colors = self._results.files(slide), self._results.class_colors(slide)
        try:
            try:
                make_pack(files, folder / NAME, class_colors=colors, progress=told)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                with self._lock:
                    if self._elsewhere is None:
                        self._elsewhere = tempfile.TemporaryDirectory(prefix="gigaseg-view-")
                make_pack(files, self._places(folder, slide)[1], class_colors=colors, progress=told)
        except Exception as error:
            if not isinstance(error, UserError | OSError):
                log.exception("slide '%s': cannot be packed", slide)
            making.error = error if isinstance(error, UserError) else UserError(f"slide '{slide}': {error}")

    def _places(self, folder: Path, slide: str) -> list[Path]:
        elsewhere = [] if self._elsewhere is None else [Path(self._elsewhere.name, f"{slide}.zip")]
        return [folder / NAME, *elsewhere]
