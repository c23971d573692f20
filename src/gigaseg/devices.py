"""Which device computes: what a user may ask for, and what this machine has."""

from __future__ import annotations

import re

from gigaseg.errors import DeviceError
from gigaseg.gpus import take_gpu

_WORD = re.compile(r"auto|cpu|cuda(?::(\d{1,9}))?")


def choose_device(wanted: str) -> str:
    """The device for `wanted`, as torch names it.

    Parameters
    ----------
    wanted : "cpu"; "cuda:N", a GPU by its number; "cuda", one that no other process of gigaseg on this machine has
        taken (`gigaseg.gpus.take_gpu`); "auto", the same when there is a GPU, else the CPU.

    Raises
    ------
    DeviceError
        Another word, or a GPU that is not there; the message says what is.
    """
    number = check_device(wanted)
    if wanted in ("auto", "cuda"):
        return f"cuda:{take_gpu([_uuid(index) for index in range(number)])}" if number else "cpu"
    return wanted if wanted == "cpu" else f"cuda:{int(wanted.removeprefix('cuda:'))}"


def check_device(wanted: str) -> int:
    """The number of GPUs of this machine (0 for "cpu"), one of which may be `wanted`; takes none.

    Raises
    ------
    DeviceError
        As `choose_device`.
    """
    word = _WORD.fullmatch(wanted)
    if wanted == "cpu":
        return 0
    import torch

    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted != "auto" and (word is None or int(word[1] or 0) >= number):
        there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(number))])
        why = "" if number else "; no GPU is seen" if torch.version.cuda or torch.version.hip else "; torch is for CPUs"
        raise DeviceError(f"device is '{wanted}', accepted on this machine: auto, {there}{why}")
    return number


def _uuid(number: int) -> str:
    """What tells a GPU from all others of the machine; its number is another where a scheduler shows a job its own."""
    import torch

    return str(torch.cuda.get_device_properties(number).uuid)


def gpu_name(device: str) -> str:
    """The GPU that `device` (as `choose_device` gives it) is; empty for the CPU."""
    if device == "cpu":
        return ""
    import torch

    return str(torch.cuda.get_device_name(device))
