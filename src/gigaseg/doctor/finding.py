"""What a check found."""

from __future__ import annotations

from typing import NamedTuple

OK, NOTE, WRONG = "ok", "note", "WRONG"
"""How a check ended: well; something to know; something that stops a run or slides of it."""


class Finding(NamedTuple):
    """The result of a check: how it ended, what it looked at, and what it found, in one line."""

    level: str
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:5}  {self.what:12}  {self.text}"
