"""The command line: one sub-command a step, each one call of the step's function.

Exit codes: 0 done; 2 a mistake the user can mend, told in one line (a line a mistake); 1 a fault of the machine
(memory, disk, a killed worker), told in one line, or a bug, with a traceback. With ``--record-failure`` (the
workflow's way) a user's mistake becomes a failure record in place of the outputs and the exit code is 0, so that the
other slides of a cohort go on; only missing or unfit model weights and a device that is not there, which are no
slide's own, stop the job with 2.
"""

from __future__ import annotations

import argparse
import errno
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from gigaseg import __version__
from gigaseg.commands import COMMANDS
from gigaseg.commands.base import Command
from gigaseg.errors import (
    CheckpointError,
    ConfigError,
    DeviceError,
    UpstreamFailure,
    UserError,
    is_machine_fault,
    machine_fault,
    one_line,
)

log = logging.getLogger("gigaseg")

_PATH_ERRORS = FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError
_PATH_NUMBERS = {errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP}


def make_parser() -> argparse.ArgumentParser:
    """The parser with all sub-commands."""
    parser = argparse.ArgumentParser(
        prog="gigaseg",
        description="Instance segmentation of gigapixel slides and rasters. The steps, in the order of the data:",
        epilog="For a cohort use the workflow: snakemake --cores 8 --resources gpu=1",
    )
    parser.add_argument("--version", action="version", version=f"gigaseg {__version__}")
    sub = parser.add_subparsers(dest="command", required=True, metavar="STEP")
    for name, command in COMMANDS.items():
        child = sub.add_parser(name, help=command.help, description=command.help)
        command.arguments(child)
        if command.outputs is not None:
            group = child.add_argument_group("workflow")
            if name != "inspect":
                group.add_argument("--slide", default="", help="name of the slide, for the run record")
            group.add_argument("--digest", default="", help="digest of the step, kept in the output's metadata")
            group.add_argument(
                "--run-record", type=Path, metavar="JSON", help="where to write seconds, memory, machine"
            )
            group.add_argument(
                "--record-failure",
                action="store_true",
                help="write a user's mistake into the outputs as a failure record and exit with 0",
            )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; returns the exit code."""
    args = make_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    command = COMMANDS[args.command]
    try:
        if command.outputs is None:
            command.run(args)
        else:
            _run_step(command, args)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        code, lines = _told(error)
        for line in lines:
            print(f"gigaseg {args.command}: {line}", file=sys.stderr)
        if not lines:
            raise
        return code
    return 0


def _told(error: Exception) -> tuple[int, list[str]]:
    """Exit code and lines for what a user can mend or the machine did; no lines for a bug."""
    fault = machine_fault(error)
    if fault is not None:
        return 1, [fault]
    if isinstance(error, UserError):
        # several mistakes of a configuration, or slides that failed, are a line each; else a break is part of a name
        several = isinstance(error, ConfigError) or type(error) is UserError
        return 2, str(error).splitlines() if several else [one_line(error)]
    if isinstance(error, OSError) and (isinstance(error, _PATH_ERRORS) or error.errno in _PATH_NUMBERS):
        return 2, [one_line(f"{error.filename or error}: {error.strerror or error}")]
    return 1, []


def _run_step(command: Command, args: argparse.Namespace) -> None:
    from gigaseg.files import write_failure
    from gigaseg.runrecord import run_record

    slide = getattr(args, "slide", None) or ""
    with run_record(args.run_record, args.command, slide, getattr(args, "shard", None), args.digest):
        try:
            command.run(args)
        except UserError as error:
            # weights, a GPU, memory or disk are missing for every slide alike; once they are there the job runs again
            if not args.record_failure or isinstance(error, CheckpointError | DeviceError) or is_machine_fault(error):
                raise
            step, reason = args.command, one_line(error)
            if isinstance(error, UpstreamFailure):
                step, reason = error.step, error.reason
            log.error("%s: %s", step, reason)
            for path in command.outputs(args) if command.outputs else []:
                write_failure(path, step, reason)


if __name__ == "__main__":
    sys.exit(main())
