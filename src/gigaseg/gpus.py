"""Which of several GPUs a process takes, so that processes beside each other take different ones."""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Sequence

log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds between two looks for a free GPU."""

_taken: dict[str, socket.socket] = {}
"""The GPU of this process and what shows the others that it is taken."""


def take_gpu(gpus: Sequence[str]) -> int:
    """Take a GPU that no other process of gigaseg on this machine has; wait for one when all are taken.

    It is this process's until it ends, however it ends, and a second call returns the same one.

    Parameters
    ----------
    gpus : what tells each GPU that the process sees from all others of the machine, such as its UUID, in their order.

    Returns
    -------
    The place in `gpus` of the one that was taken; 0 without any look where there is only one.
    """
    if len(gpus) == 1:
        return 0
    waits = False
    while True:
        for number, gpu in enumerate(gpus):
            if gpu in _taken or _take(gpu):
                return number
        if not waits:
            waits = True
            log.warning("waiting: all %d GPUs are taken by other processes of gigaseg (cuda:N shares one)", len(gpus))
        time.sleep(_PAUSE)


def _take(gpu: str) -> bool:
    """Take a GPU unless it is taken."""
    # an address in Linux's abstract namespace is one process's alone, whoever's it is, and its end frees it; lock
    # files would need a folder that all users may write and none may spoil
    sign = socket.socket(socket.AF_UNIX)
    try:
        sign.bind(f"\0gigaseg-gpu-{gpu}")
    except OSError as error:
        sign.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    _taken[gpu] = sign
    return True
