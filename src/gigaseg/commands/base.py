"""What a sub-command is, and the arguments that several of them share."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Command:
    """A sub-command.

    Attributes
    ----------
    help : one line.
    arguments : adds its arguments to a parser.
    run : does it.
    outputs : the files it writes; None for a command that is no step of the data's path.
    """

    help: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]
    outputs: Callable[[Namespace], list[Path]] | None


def add_path(parser: ArgumentParser, name: str, help: str) -> None:
    """A file that must be given, by place or by option."""
    if name.startswith("--"):
        parser.add_argument(name, type=Path, required=True, help=help)
    else:
        parser.add_argument(name, type=Path, help=help)


def written(args: Namespace) -> list[Path]:
    """The output of a step with one."""
    return [args.out]


def add_runner(parser: ArgumentParser, held: str) -> None:
    """Options of a step that works in blocks (`gigaseg.runner`); `held`: what a block holds."""
    parser.add_argument("--workers", type=int, default=1, help="threads or processes (default: 1)")
    parser.add_argument(
        "--scheduler",
        help="threads, processes, or tcp://HOST:PORT of Dask (default: $DASK_SCHEDULER_ADDRESS, else threads)",
    )
    parser.add_argument("--block", type=int, help=f"{held} that a worker holds at a time (default: the step's own)")


def runner_options(args: Namespace) -> dict[str, Any]:
    """What `add_runner` was told, for the step's function."""
    given = {name: getattr(args, name) for name in ("workers", "scheduler", "block")}
    return {name: value for name, value in given.items() if value is not None}
