"""Configuration files laid over each other, as by snakemake --configfile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gigaseg.errors import ConfigError, one_line


def read_configs(paths: Sequence[Path]) -> dict[str, Any]:
    """Configuration files laid over each other; raises ConfigError for one that is no mapping in YAML."""
    content: dict[str, Any] = {}
    for path in paths:
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read as YAML ({one_line(error)})") from error
        if not isinstance(found, dict):
            raise ConfigError(f"{path}: holds no keys, accepted: those of config.yaml")
        _lay_over(content, found)
    return content


def parse_config(text: str) -> dict[str, Any]:
    """The configuration that `--config-json` holds; raises ConfigError when it is no JSON object."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--config-json is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--config-json is {text[:40]}, accepted: an object")
    return content


def _lay_over(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _lay_over(below[key], value)
        else:
            below[key] = value
