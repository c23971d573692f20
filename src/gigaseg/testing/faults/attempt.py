"""One call of the command line in a process of its own, with limits: what a user would have seen of it."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from gigaseg.slides.registry import READERS

_LOG = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ (INFO|WARNING|ERROR) ")
"""How a line of the log begins."""

_PATIENCE = 8
"""How many times longer than on an idle machine a command may wait for the processor, or sleep."""

_LOADED = [
    __name__,
    *(f"gigaseg.slides.{name}_reader" for name in READERS),
    *(f"gigaseg.{name}" for name in ("cli", "sidefiles", "slides.inspect", "tiles.grid", "tiles.store")),
    *(f"gigaseg.{name}" for name in ("tiles.foreground", "instances.segment")),
    *(f"gigaseg.segmenters.{name}" for name in ("annotations", "watershed")),
    *("torch", "geopandas", "zarrs", "skimage.filters", "skimage.measure", "skimage.segmentation"),
]
"""Modules that one process loads, of which all attempts are forks; it runs nothing, so that it has no threads."""


@dataclass(frozen=True)
class Attempt:
    """How a command ended.

    Attributes
    ----------
    code : its exit code; minus the signal that ended it.
    hung : whether it was ended for its time.
    errors : the lines it wrote to stderr, those of the log left out.
    seconds : by the clock.
    """

    code: int
    hung: bool
    errors: list[str]
    seconds: float

    def verdict(self, path: str | Path) -> str:
        """Return "succeeded", "refused" (exit code 2 and one line that names `path`), or what is wrong with it."""
        if self.hung:
            return "hung"
        if self.code < 0:
            return "crashed"
        if any(line.startswith("Traceback") for line in self.errors):
            return "memory" if any(line.startswith("MemoryError") for line in self.errors) else "traceback"
        if self.code == 0:
            return "succeeded" if not self.errors else "noise"
        one = len(self.errors) == 1 and str(path) in self.errors[0]
        return "refused" if self.code == 2 and one else "unclear"


def attempt(argv: Sequence[str], *, folder: str | Path = ".", seconds: int = 30, memory: int = 2 * 2**30) -> Attempt:
    """Run ``gigaseg ARGV`` in a process of its own, whose libraries are loaded already.

    Parameters
    ----------
    argv : the command line after ``gigaseg``.
    folder : the working directory.
    seconds : of the processor, or `_PATIENCE` times as many by the clock, after which it counts as hung and is killed.
    memory : address space, in bytes, that it may take beyond what its libraries have.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(_LOADED)
    with tempfile.NamedTemporaryFile() as output:
        process = context.Process(target=_run, args=(list(argv), str(folder), output.name, seconds, memory))
        process.start()
        start = time.monotonic()
        process.join(seconds * _PATIENCE)
        hung = process.is_alive()
        if hung:
            process.kill()
            process.join()
        took = time.monotonic() - start
        lines = Path(output.name).read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.strip() and not _LOG.match(line)]
    code = process.exitcode if process.exitcode is not None else -signal.SIGKILL
    hung |= code == -signal.SIGXCPU
    process.close()
    return Attempt(code, hung, errors, took)


def _run(argv: list[str], folder: str, output: str, seconds: int, memory: int) -> None:
    code = 1
    descriptor = os.open(output, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, 2 * seconds))
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        from gigaseg.cli import main

        code = main(argv)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
