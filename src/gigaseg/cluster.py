"""Jobs that a run of the workflow left on a SLURM cluster when it was killed."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from gigaseg.errors import one_line

_RUN = re.compile(r"(?:[\w-]{1,50}_)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Names of the executor's jobs: the run's UUID, behind the prefix that a user may give."""

_PAUSE = 5.0
"""Seconds between two looks at the queue."""

_REMINDER = 60.0
"""Seconds between two lines that say what is waited for."""


def wait_for_earlier_jobs(directory: Path, *, must_know: bool) -> None:
    """Wait until the jobs that an earlier run left in a working directory have ended.

    A run that was killed leaves its jobs on the cluster. What they finish counts as done, but those still there when
    Snakemake looks at the files would be submitted a second time, and two jobs would write the same files.

    Parameters
    ----------
    directory : the working directory of the run.
    must_know : whether it is an error (WorkflowError) that the queue cannot be asked.
    """
    from snakemake.exceptions import WorkflowError
    from snakemake.logging import logger

    if not shutil.which("squeue"):
        return
    try:
        jobs = _jobs(directory)
    except (OSError, subprocess.SubprocessError) as error:
        if not must_know:
            return
        why = one_line(getattr(error, "stderr", None) or error)
        raise WorkflowError(f"squeue does not say whether jobs of an earlier run are left: {why}") from None
    told = -math.inf
    while jobs:
        if time.monotonic() - told > _REMINDER:
            told = time.monotonic()
            end = f"scancel --name={','.join(sorted(set(jobs.values())))}"
            logger.warning(f"waiting for jobs of an earlier run: {_short(sorted(jobs))}; to end them: {end}")
        time.sleep(_PAUSE)
        with suppress(OSError, subprocess.SubprocessError):  # a busy controller answers the next time
            jobs = _jobs(directory)


def _jobs(directory: Path) -> dict[str, str]:
    """Number -> name of this user's jobs of the workflow that were submitted from a directory and have not ended."""
    command = ["squeue", "--me", "--noheader", "--format=%i|%j|%Z"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = (line.split("|", 2) for line in told.splitlines())
    return {number: name for number, name, folder in found if _RUN.fullmatch(name) and folder == str(directory)}


def _short(words: list[str]) -> str:
    """The first words, and how many there are."""
    return ", ".join(words) if len(words) <= 6 else f"{', '.join(words[:5])}, … ({len(words)} in all)"
