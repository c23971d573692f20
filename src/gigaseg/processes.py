"""What every worker process does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from multiprocessing import parent_process

_KEPT = 128 * 2**20
"""Freed bytes that a worker may hold."""


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, up to a limit, for its next tile."""
    # glibc hands large blocks back to the system when they are freed and takes them anew for the next tile, page by
    # page; kept, a tile from openslide takes 2 ms less (M_TRIM_THRESHOLD -1, M_MMAP_THRESHOLD -3)
    with contextlib.suppress(AttributeError, OSError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(-1, _KEPT)
        allocator.mallopt(-3, _KEPT // 4)


def end_with_parent() -> None:
    """Let this worker end when its parent is killed: a killed parent cannot tell it, and it would wait for ever."""
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
