"""A page of a report: one HTML file that asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def page(template: str, **content: Any) -> str:
    """The page that a template of this package makes of `content`; tables in it are sorted by a click on a head.

    Everything that comes from a user (names, reasons, config) is escaped.
    """
    script = files("gigaseg.report").joinpath("sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template(template).render(script=script, script_hash=digest, **content)


@cache
def _environment() -> Environment:
    loader = PackageLoader("gigaseg.report", "")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
