"""What a step cost: seconds, memory and machine, kept apart from the results so that those stay reproducible."""

from __future__ import annotations

import json
import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gigaseg import __version__

RUN_FORMAT = "gigaseg/run/1"

_notes: dict[str, int | str] = {}


def note(**facts: int | str) -> None:
    """Put something into the run record of the step that this process runs, such as how many tiles it did."""
    _notes.update(facts)


@contextmanager
def run_record(path: str | Path | None, step: str, slide: str, shard: int | None, digest: str) -> Iterator[None]:
    """Measure the block and write a run record to `path` (none when it is None), also when the block fails.

    Peak memory is that of this process plus the largest of its children.
    """
    if path is None:
        yield
        return
    from gigaseg.files import write_json

    _notes.clear()
    started, begin = datetime.now(UTC), time.perf_counter()
    try:
        yield
    finally:
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        write_json(
            path,
            {
                "format": RUN_FORMAT,
                "slide": slide,
                "step": step,
                "shard": shard,
                "seconds": round(time.perf_counter() - begin, 3),
                "cpu_seconds": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 3),
                "peak_memory_mb": round((own.ru_maxrss + children.ru_maxrss) / 1024, 1),
                "machine": f"{platform.node()} {processor()}".strip(),
                "cores": os.cpu_count(),
                "started": started.isoformat(timespec="seconds"),
                "version": __version__,
                "digest": digest,
                **_notes,
            },
        )


def peek(path: Path) -> dict[str, Any]:
    """What a run record holds, read without pyarrow or numpy; empty where there is none, or none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def processor() -> str:
    """The processor as the system names it; empty where it names none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
