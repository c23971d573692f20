"""Records of a run: CSV tables that a resumed run continues without a trace, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gigaseg.files import atomic


class Table:
    """A CSV table with a step column; rows are appended and flushed.

    Parameters
    ----------
    path : the file; rows it has for steps after `step` (a killed run went further than its last saved state) go.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.columns: list[str] = []
        if not path.is_file():
            return
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if _is_number(row.get("step")) and int(row["step"]) <= step]
        if not rows:
            path.unlink()
            return
        self.columns = list(rows[0])
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with atomic(path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; the first row of a table names its columns, later ones must have no others."""
        first = not self.columns
        self.columns = self.columns or list(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, self.columns, restval="", lineterminator="\n")
            if first:
                writer.writeheader()
            writer.writerow({name: repr(value) if isinstance(value, float) else value for name, value in row.items()})


def _is_number(text: str | None) -> bool:
    return text is not None and text.isdigit()


class Board:
    """TensorBoard events, or nothing where the package is missing."""

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, part: str, row: Mapping[str, float], step: int) -> None:
        """Write each value of a row as a scalar ``part/name``."""
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(f"{part}/{name}", value, step)

    def close(self) -> None:
        """Write what is still held."""
        if self._writer is not None:
            self._writer.close()
