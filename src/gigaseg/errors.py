"""The error family: everything a user can mend, told in one line.

A `UserError` carries one line that names the file, the field, what was found and what is accepted. The CLI prints
it and exits with 2; inside a cohort the step turns it into a failure record (`gigaseg.files`). A fault of the machine
(memory, disk, a worker that was killed) is told in one line as well, but fails the job with 1, so that it is tried
again. Any other exception is a bug and fails the job with a traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from concurrent.futures import BrokenExecutor


class UserError(Exception):
    """Something the user can mend; the message is one line."""


class ConfigError(UserError):
    """config.yaml or a command-line option has an unknown key or a value that is not accepted."""


class SheetError(UserError):
    """The sample sheet (slides.tsv) as a whole, or one of its rows, is wrong."""


class SlideError(UserError):
    """A slide cannot be opened, read or interpreted."""


class FormatError(UserError):
    """A file of ours, or a side file, is partial, older, foreign or invalid."""


class SegmenterError(UserError):
    """A segmenter is unknown, or its options or checkpoint do not fit."""


class CheckpointError(UserError):
    """Model weights are missing, damaged, unsafe to read, or do not fit."""


class DeviceError(UserError):
    """What computes is not on this machine, or lacks something: a GPU that was asked for, a compiler."""


class UpstreamFailure(UserError):
    """An input of this step is the failure record of an earlier one.

    Attributes
    ----------
    step, reason : the earlier step's name and its one-line reason.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(step, reason)  # the arguments as they are, so that it survives pickling
        self.step = step
        self.reason = reason

    def __str__(self) -> str:
        return f"step '{self.step}' failed before: {self.reason}"


_FAULTS = frozenset(
    {errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ESTALE, errno.ETIMEDOUT}
)
"""Numbers of the system's errors that are the machine's fault."""

_OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "insufficient memory", "bad_alloc",
    "failed to map segment", "can't start new thread",
)  # fmt: skip
"""Words of libraries that raise no MemoryError."""


def is_machine_fault(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is the machine's fault (memory, disk, too many files), not the user's.

    Whoever turns errors of a library into a `UserError` lets such ones pass: they must fail the job, so that it is
    tried again, and never become the slide's failure record.
    """
    return machine_fault(error) is not None


def machine_fault(error: BaseException | None) -> str | None:
    """What failed on the machine, in one line, where an error or what caused it is the machine's fault; else None."""
    told = one_line(error)
    while error is not None:
        if isinstance(error, BrokenExecutor):
            return "a worker process was killed (by the system for want of memory, perhaps)"
        if isinstance(error, OSError) and error.errno in _FAULTS:
            if error.filename:
                return f"{error.filename}: {error.strerror}"
            return told if str(error.strerror) in told else one_line(error.strerror)
        if isinstance(error, MemoryError) or (
            not isinstance(error, UserError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)
        ):
            return f"out of memory ({one_line(error) or 'the system gave no more'})"
        error = error.__cause__ or error.__context__
    return None


def one_line(text: object) -> str:
    """`text` with every run of white space as one blank, so that a message stays on its line."""
    return " ".join(str(text).split())


def unknown(what: str, found: str, accepted: Iterable[str]) -> str:
    """Return "unknown WHAT 'found'; accepted: a, b, c (did you mean 'a'?)".

    >>> unknown("reader", "openslid", ["openslide", "rasterio"])
    "unknown reader 'openslid'; accepted: openslide, rasterio (did you mean 'openslide'?)"
    """
    names = list(accepted)
    close = difflib.get_close_matches(found, names, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"unknown {what} '{found}'; accepted: {', '.join(names)}{hint}"
