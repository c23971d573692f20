"""`gigaseg view`: look at the results."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gigaseg.viewer.cohort import ResultsFolder, colors_in
from gigaseg.viewer.server import LOOPBACK, serve

_CONFIG = Path("config.yaml")


def view(
    path: Path,
    *,
    config: Mapping[str, Any] | None = None,
    host: str = LOOPBACK,
    port: int | None = None,
    out: Path | None = None,
    workers: int = 2,
) -> None:
    """Serve the viewer of a results folder until interrupted, or write it as a folder.

    Parameters
    ----------
    path : ``results``, or ``results/SLIDE`` for one slide alone.
    config : the configuration, which says how classes are coloured; by default config.yaml of the working directory,
        where its results are those of `path`.
    host, port : where to listen.
    out, workers : folder to write instead of serving, and threads that render its pictures.

    Raises
    ------
    FormatError
        `path` holds no results, or `out` something else.
    ConfigError, SheetError
        A configuration is wrong.
    """
    results = ResultsFolder(path, _colors(path, config))
    if out is not None:
        from gigaseg.viewer.folder import write_folder

        write_folder(results, out, workers=workers)
        sys.stdout.write(f"{out}: to be put on a web server, or python -m http.server --directory {out}\n")
        return

    def started(address: str) -> None:
        count = len(results.names())
        sys.stdout.write(f"{count} slide{'s' * (count != 1)} of {path}: {address} (Ctrl-C ends it)\n")
        sys.stdout.flush()

    serve(results, host=host, port=port, started=started)


def _colors(path: Path, config: Mapping[str, Any] | None) -> dict[str, dict[str, str]]:
    if config is not None:
        return colors_in(config, "configuration")
    if not _CONFIG.exists():
        return {}
    from gigaseg.configfiles import read_configs

    found = read_configs([_CONFIG])
    folder = Path(found.get("results", "results")).resolve()
    return colors_in(found, str(_CONFIG)) if folder in (path.resolve(), path.resolve().parent) else {}
