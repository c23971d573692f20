"""`python -m gigaseg.train METHOD …`: training from the source tree, where little more than torch is installed."""

from __future__ import annotations

import argparse
import logging
import sys

from gigaseg.errors import UserError
from gigaseg.train.train import add_arguments, train


def main() -> int:
    """Train as the command line says; returns the exit code (2: a mistake of the user, told in a line)."""
    parser = argparse.ArgumentParser(prog="python -m gigaseg.train")
    add_arguments(parser)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        train(args)
    except UserError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"gigaseg train: {line}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


raise SystemExit(main())
