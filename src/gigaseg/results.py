"""The folder of results, before a run: that it is a folder, and that its files are not from the future."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from gigaseg.errors import ConfigError

log = logging.getLogger(__name__)


def check_place(results: str | Path) -> None:
    """Raise ConfigError when the folder of results is, or would lie below, a file."""
    folder = Path(results)
    # a path below a file is told from one that is missing only by looking at each part
    nearest = next(path for path in (folder, *folder.parents, Path()) if path.exists())
    if not nearest.is_dir():
        raise ConfigError(f"results is '{results}', but {nearest} is a file; expected a folder")


def mend_times(results: str | Path) -> None:
    """Give files of the folder whose time lies in the future the present one.

    The clock was set back, or another machine's is ahead: Snakemake takes what is made of such a file now for older
    than its input and gives up.
    """
    folder = Path(results)
    now = time.time_ns()
    late = [path for path in folder.rglob("*") if _time(path) > now]
    for path in late:
        with suppress(OSError):  # another user's, or gone
            os.utime(path, ns=(now, now))
    if late:
        log.warning("%s: %d files had times in the future", folder, len(late))


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
