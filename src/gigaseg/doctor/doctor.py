"""The doctor: all checks of a machine and a cohort, a line each as they end."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gigaseg.doctor.cohort import check_cohort
from gigaseg.doctor.finding import WRONG, Finding
from gigaseg.doctor.machine import check_machine
from gigaseg.errors import ConfigError, UserError, one_line


def doctor(configs: Sequence[Path], slides_dir: Path | None = None) -> list[Finding]:
    """Look at this machine and at the cohort of a configuration; print one line a check.

    Parameters
    ----------
    configs : YAML files; later ones are laid over earlier ones, key by key, as by snakemake --configfile.
    slides_dir : stands for the key of that name, where it is given.

    Returns
    -------
    What was found, all in order.

    Raises
    ------
    UserError
        Something is wrong: the number of checks that ended so.
    """
    content = read_configs(configs)
    if slides_dir is not None:
        content["slides_dir"] = str(slides_dir)
    found = []
    for finding in itertools.chain(check_machine(), check_cohort(content, str(configs[-1]))):
        sys.stdout.write(f"{finding}\n")
        sys.stdout.flush()
        found.append(finding)
    wrong = [finding for finding in found if finding.level == WRONG]
    if wrong:
        raise UserError(f"{len(wrong)} of {len(found)} checks found something wrong")
    return found


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


def _lay_over(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _lay_over(below[key], value)
        else:
            below[key] = value
