"""Command-line options made from the config dataclasses, and back: one source for a key's type, default and meaning."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from gigaseg.config import ForegroundConfig, Preset, ReportConfig, SegmenterConfig, TilesConfig
from gigaseg.errors import ConfigError
from gigaseg.keys import build, default_of

if TYPE_CHECKING:  # not needed to show --help
    from gigaseg.segmenters.card import Card

T = TypeVar("T")

_FLAG: dict[tuple[type, str], str] = {(SegmenterConfig, "name"): "--segmenter", (SegmenterConfig, "options"): "--set"}


def _flag(cls: type, name: str) -> str:
    return _FLAG.get((cls, name), "--" + name.replace("_", "-"))


def _kind(hint: Any) -> Any:
    inner = [arg for arg in get_args(hint) if arg is not type(None)]
    return inner[0] if get_origin(hint) is not dict and inner else hint


def add_options(parser: argparse._ActionsContainer, cls: type, names: Sequence[str] | None = None) -> None:
    """Add an option for each key of `cls` (or those in `names`); their values are read by `from_options`."""
    hints = get_type_hints(cls)
    for spec in fields(cls):
        if names is not None and spec.name not in names:
            continue
        kind, default = _kind(hints[spec.name]), default_of(spec)
        text = spec.metadata["help"].replace("%", "%%")
        settings: dict[str, Any] = {"dest": f"{cls.__name__}.{spec.name}", "default": argparse.SUPPRESS}
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif get_origin(hints[spec.name]) is dict:
            settings |= {"action": "append", "metavar": "KEY=VALUE"}
        elif get_origin(hints[spec.name]) is tuple:
            settings |= {"nargs": "*", "metavar": spec.name.upper()}
        else:
            settings["metavar"] = spec.name.upper()
        told = " ".join(map(str, default)) if isinstance(default, tuple) else "none" if default is None else default
        shown = "" if default in ({}, ()) or kind is bool else f" (default: {told})"
        parser.add_argument(_flag(cls, spec.name), help=text + shown, **settings)


def from_options(cls: type[T], args: argparse.Namespace) -> T:
    """Build `cls` from parsed options.

    Raises ConfigError, one line for each value that is not accepted.
    """
    hints = get_type_hints(cls)
    content: dict[str, Any] = {}
    errors: list[str] = []
    for spec in fields(cls):  # type: ignore[arg-type]
        dest = f"{cls.__name__}.{spec.name}"
        if dest not in vars(args):
            continue
        value, kind = getattr(args, dest), _kind(hints[spec.name])
        if get_origin(hints[spec.name]) is dict:
            errors += [f"--set is '{item}', accepted: KEY=VALUE" for item in value if "=" not in item]
            value = dict(item.split("=", 1) for item in value if "=" in item)
        elif isinstance(value, list):
            value = [_number(kind, item) for item in value]
        elif isinstance(value, str):
            value = _number(kind, value)
        content[spec.name] = value
    found = build(cls, content, "", errors)
    if errors:
        by_flag = {spec.name: _flag(cls, spec.name) for spec in fields(cls)}  # type: ignore[arg-type]
        raise ConfigError("\n".join(_with_flag(line, by_flag) for line in errors))
    return found


def _with_flag(line: str, by_flag: dict[str, str]) -> str:
    name, _, rest = line.partition(" ")
    return f"{by_flag.get(name, name)} {rest}"


def _number(kind: Callable[[str], Any], text: str) -> Any:
    """`text` as a number where a number is wanted; as it is where it is none, so that the check tells."""
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text


def to_options(config: Any, names: Sequence[str] | None = None) -> list[str]:
    """The options that give `config` when parsed; keys at their default are left out."""
    words: list[str] = []
    for spec in fields(config):
        value = getattr(config, spec.name)
        if (names is not None and spec.name not in names) or value == default_of(spec):
            continue
        flag = _flag(type(config), spec.name)
        # FLAG=VALUE, so that a value may begin with a dash
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, dict):
            items = (
                (key, str(item).lower() if isinstance(item, bool) else item) for key, item in sorted(value.items())
            )
            words += [f"{flag}={key}={item}" for key, item in items]
        elif isinstance(value, tuple):
            words += [flag, *(str(item) for item in value)]
        elif value is not None:
            words.append(f"{flag}={value}")
    return words


CLASS_NAMES = ("--class-name", "CLASS=NAME", "another name for a class of the segmenter; may come several times")
CLASS_COLORS = ("--class-color", "NAME=#rrggbb", "colour of a class; may come several times")
"""Options that take a pair: flag, what it is, help."""


def add_pairs(parser: argparse.ArgumentParser, flag: str, pair: str, help: str) -> None:
    """Add an option of `CLASS_NAMES` and `CLASS_COLORS`; `pairs` reads it."""
    parser.add_argument(flag, action="append", default=[], metavar=pair, help=help)


def pairs(args: argparse.Namespace, flag: str, pair: str, _: str = "") -> dict[str, str]:
    """What such an option was told; raises ConfigError for a text that is no pair."""
    found = {}
    for text in getattr(args, flag.removeprefix("--").replace("-", "_")):
        one, _, other = text.rpartition("=")
        if not (one and other):
            raise ConfigError(f"{flag} is '{text}', accepted: {pair}")
        found[one] = other
    return found


GRID_PRESET = ("unit", "working_resolution", "object_diameter")
"""Keys of a preset itself that the grid step needs."""

MERGING = ("name", "checkpoint", "options")
"""Keys of a segmenter that decide how the points it proposed are merged."""

PROPOSING = (*MERGING, "device", "batch_size", "skip_blank")
"""Keys of a segmenter that decide which points it proposes."""

GRID_TILES = ("tile", "overlap", "tiles_per_shard")


def add_grid_options(parser: argparse.ArgumentParser) -> None:
    """Options of the grid step: what of a preset decides the grid."""
    add_options(parser, SegmenterConfig, ("name",))
    add_options(parser, Preset, GRID_PRESET[1:])
    add_options(parser, TilesConfig, GRID_TILES)
    add_options(parser, ForegroundConfig)


def grid_preset(args: argparse.Namespace) -> Preset:
    """A preset with the keys that the grid step needs."""
    return replace(
        from_options(Preset, args),
        segmenter=from_options(SegmenterConfig, args),
        tiles=from_options(TilesConfig, args),
        foreground=from_options(ForegroundConfig, args),
    )


def prompt_options(card: Card, preset: Preset) -> list[str]:
    """Options of the prompt step: what of the segmenter decides how points are merged, or how a file is read."""
    if card.proposes:
        return [*to_options(preset.segmenter, MERGING), *to_options(preset, ("object_diameter",))]
    if card.takes_points:
        return ["--every-tile"]
    value = card.complete(preset.segmenter.options).get("polygons_as", "box")
    return [] if value == "box" else [f"--polygons-as={value}"]


def step_options(preset: Preset, report: ReportConfig) -> dict[str, list[str]]:
    """Command-line options of every step for a preset."""
    segmenter = [*to_options(preset.segmenter), *to_options(preset, ("object_diameter",))]
    named, colored = sorted(preset.class_names.items()), sorted(preset.class_colors.items())
    colors = [f"{CLASS_COLORS[0]}={name}={color}" for name, color in colored]
    return {
        "inspect": [f"--unit={preset.unit}"],
        "grid": [
            *to_options(preset.segmenter, ("name",)),
            *to_options(preset, GRID_PRESET[1:]),
            *to_options(preset.tiles, GRID_TILES),
            *to_options(preset.foreground),
        ],
        "tile": [],
        "propose": [*to_options(preset.segmenter, PROPOSING), *to_options(preset, ("object_diameter",))],
        "segment": [*segmenter, *(f"{CLASS_NAMES[0]}={label}={name}" for label, name in named)],
        "stitch": to_options(preset.stitch),
        "measure": to_options(preset.measure),
        "export": colors,
        "overview": [
            *to_options(report, ("overview_px", "instance_color", "foreground_color", "grid_color")),
            *colors,
        ],
        "report": to_options(report, ("title",)),
    }
