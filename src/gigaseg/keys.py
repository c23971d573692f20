"""Keys of a configuration: dataclass fields that say what they are, what they accept, and how they are read.

The fields are the single source of every key's type, default and meaning: validation, the command line's options and
the JSON schema for Snakemake are made from them.
"""

from __future__ import annotations

import math
import sys
import types
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from gigaseg.errors import unknown

T = TypeVar("T")


def key(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> Any:
    """A config key: its default, its meaning with unit, and the accepted values (choices, or a closed range)."""
    metadata = {"help": help, "choices": choices, "low": low, "high": high}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def build(cls: type[T], content: Any, path: str, errors: list[str]) -> T:
    """Build dataclass `cls` from a mapping; wrong keys and values are told in `errors` and left at their default."""
    if content is None:
        content = {}
    if not isinstance(content, Mapping):
        errors.append(f"{path or 'the file'} is {_show(content)}, accepted: a mapping of {', '.join(_names(cls))}")
        content = {}
    hints = get_type_hints(cls)
    values = {}
    where = path + ": " if path else ""
    errors += [f"{where}{unknown('key', str(name), _names(cls))}" for name in content if name not in hints]
    for spec in fields(cls):  # type: ignore[arg-type]
        if spec.name in content:
            where = f"{path}.{spec.name}" if path else spec.name
            values[spec.name] = _value(hints[spec.name], content[spec.name], spec, where, errors)
    return cls(**values)


def default_of(spec: Field[Any]) -> Any:
    """The default of a key."""
    return spec.default if spec.default_factory is MISSING else spec.default_factory()


def _names(cls: Any) -> list[str]:
    return [spec.name for spec in fields(cls)]


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def accepted(hint: Any, spec: Field[Any]) -> str:
    """Words for what a key accepts."""
    if spec.metadata.get("choices"):
        return ", ".join(spec.metadata["choices"]) + (" or null" if type(None) in get_args(hint) else "")
    optional = type(None) in get_args(hint)
    kind = next((arg for arg in get_args(hint) if arg is not type(None)), hint) if optional else hint
    low, high = spec.metadata["low"], spec.metadata["high"]
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(kind, "a list")
    if get_origin(kind) is dict:
        words = "a mapping"
    if math.isfinite(low) and math.isfinite(high):
        words += f" from {low:g} to {high:g}"
    elif math.isfinite(low):
        words += f" >= {low:g}"
    return words + (" or null" if optional else "")


def _value(hint: Any, value: Any, spec: Field[Any], path: str, errors: list[str]) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        if value is None:
            return None
        inner = next(arg for arg in get_args(hint) if arg is not type(None))
    else:
        inner = hint
    if is_dataclass(inner):
        return build(inner, value, path, errors)  # type: ignore[arg-type]
    if get_origin(inner) is dict:
        if not isinstance(value, Mapping):
            errors.append(f"{path} is {_show(value)}, accepted: a mapping")
            return default_of(spec)
        item = get_args(inner)[1]
        if is_dataclass(item):
            errors += [f"{path} has the name {_show(k)}, accepted: a text" for k in value if not isinstance(k, str)]
            return {str(k): build(item, v, f"{path}.{k}", errors) for k, v in value.items()}  # type: ignore[arg-type]
        return dict(value)
    if get_origin(inner) is tuple:
        item = get_args(inner)[0]
        if not isinstance(value, list | tuple) or not all(_fits(item, v, spec) for v in value):
            errors.append(f"{path} is {_show(value)}, accepted: a list of {_plural(item, spec)}")
            return default_of(spec)
        return tuple(item(v) for v in value)
    if not _fits(inner, value, spec):
        errors.append(f"{path} is {_show(value)}, accepted: {accepted(hint, spec)}")
        return default_of(spec)
    return inner(value)


def _plural(item: Any, spec: Field[Any]) -> str:
    if item is str:
        return "texts"
    return f"numbers from {spec.metadata['low']:g} to {spec.metadata['high']:g}"


def _fits(kind: Callable[..., Any], value: Any, spec: Field[Any]) -> bool:
    metadata = spec.metadata
    if kind is bool:
        return isinstance(value, bool)
    if kind is str:
        if not isinstance(value, str) or not value or any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
            return False  # control characters break lines, and no file's name can hold a NUL or half a character
        return not metadata["choices"] or value in metadata["choices"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # a float may be no number, and a whole number may be too large for any float
    if not -sys.float_info.max <= value <= sys.float_info.max or (kind is int and value != int(value)):
        return False
    return bool(metadata["low"] <= value <= metadata["high"])
