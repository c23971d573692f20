"""The JSON schema of config.yaml, made from its dataclasses.

``python -m gigaseg.schema > workflow/schemas/config.schema.yaml`` writes it.
"""

from __future__ import annotations

import math
import sys
import types
from dataclasses import Field, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from gigaseg.config import Config
from gigaseg.keys import default_of

_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}


def config_schema() -> dict[str, Any]:
    """Schema (draft 2020-12) of the whole configuration."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_object(Config)}


def _object(cls: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    properties = {spec.name: _property(hints[spec.name], spec) for spec in fields(cls)}
    summary = (cls.__doc__ or "").splitlines()[0]
    # a section that is left empty is null in YAML
    types = ["object", "null"]
    return {"type": types, "description": summary, "additionalProperties": False, "properties": properties}


def _property(hint: Any, spec: Field[Any]) -> dict[str, Any]:
    optional = get_origin(hint) in (Union, types.UnionType)
    kind = next(arg for arg in get_args(hint) if arg is not types.NoneType) if optional else hint
    if is_dataclass(kind):
        return _object(kind)  # type: ignore[arg-type]
    if get_origin(kind) is dict:
        item = get_args(kind)[1]
        inner = _object(item) if is_dataclass(item) else True  # type: ignore[arg-type]
        return {"type": "object", "description": spec.metadata["help"], "additionalProperties": inner}
    if get_origin(kind) is tuple:
        return {
            "type": "array",
            "description": spec.metadata["help"],
            "items": _scalar(get_args(kind)[0], spec),
            "default": list(default_of(spec)),
        }
    found = _scalar(kind, spec)
    if optional:
        found["type"] = [found["type"], "null"]
        if "enum" in found:
            found["enum"].append(None)
    return {"description": spec.metadata["help"], **found, "default": default_of(spec)}


def _scalar(kind: type[Any], spec: Field[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": _TYPES[kind]}
    if spec.metadata["choices"]:
        found["enum"] = list(spec.metadata["choices"])
    if math.isfinite(spec.metadata["low"]):
        found["minimum"] = spec.metadata["low"]
    if math.isfinite(spec.metadata["high"]):
        found["maximum"] = spec.metadata["high"]
    return found


def main() -> None:
    """Print the schema as YAML."""
    import yaml

    yaml.safe_dump(config_schema(), sys.stdout, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    main()
