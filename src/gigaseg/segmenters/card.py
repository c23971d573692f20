"""A segmenter's card: what the workflow must know of it before anything heavy is imported.

The card of segmenter NAME is ``NAME.json`` beside the module of its entry point (group ``gigaseg.segmenters``); it
is read without importing that module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gigaseg.errors import SegmenterError, one_line, unknown

GROUP = "gigaseg.segmenters"


@dataclass(frozen=True)
class Option:
    """One option of a segmenter.

    Attributes
    ----------
    default : its type is the option's type.
    help : its meaning, with the unit.
    low, high : least and largest number accepted; None: any.
    choices : the texts accepted; None: any.
    file : whether the text may name a file, whose content the results depend on.
    """

    default: bool | int | float | str
    help: str
    low: float | None = None
    high: float | None = None
    choices: Sequence[str] | None = None
    file: bool = False

    @property
    def accepted(self) -> str:
        """Words for the values that `accepts` takes."""
        if self.choices is not None:
            return ", ".join(self.choices)
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[type(self.default)]
        if self.low is not None and self.high is not None:
            return f"{words} from {self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"{words} >= {self.low:g}"
        return words if self.high is None else f"{words} <= {self.high:g}"

    def accepts(self, value: Any) -> bool:
        """Whether a value is of the option's type, finite and within its limits."""
        if type(value) is not type(self.default):
            return False
        if self.choices is not None and value not in self.choices:
            return False
        if isinstance(value, float) and not math.isfinite(value):
            return False
        if isinstance(value, str):
            return True
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True)
class Card:
    """Nominal values of a segmenter, defaults of a preset that uses it.

    Attributes
    ----------
    name : registry name.
    summary : one line for people.
    tile, overlap : default tile side and overlap, working px.
    pixel_size, unit : size of a pixel the segmenter was made for, in "um", "m", or "px" for any.
    object_diameter : nominal object diameter, working px; None for any size.
    classes : names of the classes.
    needs_gpu : whether a GPU speeds it up (a segmenter that runs on the CPU alone claims none).
    needs_prompts : whether the `prompt` step comes before it.
    needs_annotations : whether the sheet's `annotations` file is needed.
    outlines : "pixels" when it yields masks, "vector" when it yields polygons.
    checkpoint : default checkpoint, a name or a file, or None for a weight-free segmenter.
    revision : raised when the segmenter's results change.
    options : its own options by name.
    needs_prompts_file : whether those prompts come from the sheet's `prompts` file.
    overlaps : what becomes of pixels that masks of a tile share, "exclusive" or "keep", where a preset does not say.
    needs_exemplar : whether the sheet's `exemplar` is needed.
    paper : what it follows; empty for none.
    takes_points : whether points of the sheet's `prompts` file, where a slide has one, are hints for each tile; none
        are needed. Not together with `needs_prompts`.
    """

    name: str
    summary: str
    tile: int
    overlap: int
    pixel_size: float | None
    unit: str
    object_diameter: float | None
    classes: tuple[str, ...]
    needs_gpu: bool
    needs_prompts: bool
    needs_annotations: bool
    outlines: str
    checkpoint: str | None
    revision: int
    options: Mapping[str, Option]
    needs_prompts_file: bool = False
    overlaps: str = "exclusive"
    takes_points: bool = False
    needs_exemplar: bool = False
    paper: str = ""

    @property
    def proposes(self) -> bool:
        """Whether it needs prompts and finds them itself (`gigaseg.segmenters.base.Proposer`)."""
        return self.needs_prompts and not self.needs_prompts_file

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options with defaults filled in, strings (from a command line) converted to each option's type.

        Raises
        ------
        SegmenterError
            An unknown option, or a value of the wrong type or out of its limits.
        """
        values: dict[str, Any] = {name: option.default for name, option in self.options.items()}
        for name, value in given.items():
            if name not in self.options:
                raise SegmenterError(f"segmenter '{self.name}': {unknown('option', str(name), self.options)}")
            values[name] = self._convert(name, value)
        return values

    def files(self, options: Mapping[str, Any]) -> list[Path]:
        """The files that options name, of those that may name one and are there."""
        named = [Path(str(options[name])) for name, option in self.options.items() if option.file and name in options]
        return [path for path in named if path.is_file()]

    def _convert(self, name: str, value: Any) -> Any:
        option = self.options[name]
        kind = type(option.default)
        if isinstance(value, str) and kind is not str:
            lowered = value.strip().lower()
            with suppress(KeyError, ValueError):
                value = {"true": True, "false": False}[lowered] if kind is bool else kind(lowered)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            with suppress(OverflowError):
                value = float(value)
        if not option.accepts(value):
            raise SegmenterError(
                f"segmenter '{self.name}': option '{name}' is {value!r}, accepted: {option.accepted} "
                f"(default {option.default!r}; {option.help})"
            )
        return value


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def segmenter_names() -> list[str]:
    """Names of all installed segmenters, sorted."""
    return sorted(_entry_points())


def entry_point(name: str) -> EntryPoint:
    """Entry point of segmenter `name`; raises SegmenterError listing what exists."""
    try:
        return _entry_points()[name]
    except KeyError:
        raise SegmenterError(unknown("segmenter", name, segmenter_names())) from None


@cache
def read_card(name: str) -> Card:
    """Read the card of segmenter `name` without importing its module.

    Raises
    ------
    SegmenterError
        No such segmenter, or its card is missing or malformed.
    """
    module = entry_point(name).module
    try:
        spec = find_spec(module)
    except ImportError as error:
        raise SegmenterError(f"segmenter '{name}': module {module} cannot be found ({one_line(error)})") from error
    if spec is None or spec.origin is None:
        raise SegmenterError(f"segmenter '{name}': module {module} cannot be found")
    return card_from(Path(spec.origin).with_name(f"{name}.json"))


@cache
def card_from(path: Path) -> Card:
    """Read a card from its file: what a segmenter's own module does, which may run without being installed.

    Raises
    ------
    SegmenterError
        It is missing or malformed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        options = {key: Option(**value) for key, value in content.pop("options").items()}
        classes = tuple(content.pop("classes"))
        card = Card(**content, classes=classes, options=options)
        if card.takes_points and card.needs_prompts:
            raise ValueError("takes_points beside needs_prompts")
        return card
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SegmenterError(
            f"segmenter '{path.stem}': its card {path} is missing or malformed ({one_line(error)})"
        ) from error
