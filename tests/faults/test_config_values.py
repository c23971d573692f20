"""Every key of config.yaml with values that it does not take: one line each, whatever YAML can say."""

import datetime
import math

import pytest

from gigaseg.config import load_config
from gigaseg.errors import ConfigError
from gigaseg.schema import config_schema

NAME = "nucleus"
"""Of a preset, and of a class: one that segmenters have."""

LOOP: list = []
LOOP.append(LOOP)

ODD = {
    "null": [None],
    "boolean": [True],
    "string": ["", "nan", "no such word", "x\ny"],
    "integer": [-(10**30), 10**30, 10**400],
    "number": [0.5, -1e300, 1e300, math.nan, math.inf],
    "array": [[], [None], [[1]], ["x", 3], LOOP],
    "object": [{}, {"x": 1}, {None: 1}],
    "nothing in JSON": [datetime.date(2026, 1, 1), b"\0\xff", {1, 2}, (1,)],
}
"""Values by the type of JSON they are."""


def keys(schema, path=()):
    """(path, schema) of every key; a mapping of sections has one named NAME."""
    for name, found in schema.get("properties", {}).items():
        yield (*path, name), found
        yield from keys(found, (*path, name))
        more = found.get("additionalProperties")
        if isinstance(more, dict):
            yield (*path, name, NAME), more
            yield from keys(more, (*path, name, NAME))


def types_of(schema):
    found = schema["type"]
    return {found} if isinstance(found, str) else set(found)


def wrong_values(schema):
    """Values that `schema` refuses by their type or, being numbers or choices, by their size."""
    types = types_of(schema)
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    for kind, values in ODD.items():
        for value in values:
            if kind in ("integer", "number"):
                whole = kind == "integer"
                fits = "number" in types or (whole and "integer" in types)
                if not fits or not abs(value) < 1e308 or not low <= value <= high:
                    yield value
            elif kind == "array" and "array" in types:
                if value and value != ["x", 3]:
                    yield value
            elif kind == "string" and "string" in types:
                if value == "" or "enum" in schema:
                    yield value
            elif kind not in types and not (isinstance(value, tuple) and "array" in types):
                yield value


CASES = [(".".join(path), value) for path, schema in keys(config_schema()) for value in wrong_values(schema)]


def configured(path, value):
    content = value
    for name in reversed(path.split(".")):
        content = {name: content}
    return content


def test_every_key_is_tried():
    assert len({path for path, _ in CASES}) > 50
    assert len(CASES) > 1000


@pytest.mark.parametrize("path", sorted({path for path, _ in CASES}))
def test_a_wrong_value_is_one_line_with_key_value_and_what_is_accepted(path):
    for value in [value for key, value in CASES if key == path]:
        with pytest.raises(ConfigError) as caught:
            load_config(configured(path, value))
        lines = str(caught.value).split("\n")
        assert len(lines) == 1, (value, lines)
        assert lines[0].startswith(f"config.yaml: {path} is "), lines
        assert ", accepted: " in lines[0]
        assert len(lines[0]) < 600
