"""The sub-commands by name: for each its arguments, its outputs, and the one call it makes."""

from __future__ import annotations

from gigaseg.commands.base import Command
from gigaseg.commands.cohort import COHORT
from gigaseg.commands.slide import SLIDE
from gigaseg.commands.tools import TOOLS

COMMANDS: dict[str, Command] = {**SLIDE, **COHORT, **TOOLS}
