"""A segmenter that is installed for a test alone, as another package would bring it."""

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from gigaseg.segmenters.card import _entry_points, read_card


@contextmanager
def plugin(folder, module, segmenter):
    """Class `segmenter` of a module of the tests, with its CARD, is known meanwhile, here and to started processes."""
    card = vars(sys.modules[segmenter.__module__])["CARD"]
    name, package = card["name"], folder / f"{module}_segmenters"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / f"{name}.py").write_text(f"from {module} import {segmenter.__name__}\n")
    (package / f"{name}.json").write_text(json.dumps(card))
    with known(folder, package.name, {name: f"{package.name}.{name}:{segmenter.__name__}"}):
        yield


@contextmanager
def known(folder, package, points):
    """A package in a folder is installed meanwhile, with entry points as `name: module:class`."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.0\n")
    lines = [f"{name} = {point}\n" for name, point in points.items()]
    (info / "entry_points.txt").write_text("".join(["[gigaseg.segmenters]\n", *lines]))
    packages = {point.partition(":")[0].partition(".")[0] for point in points.values()}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", f"{folder}:{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}")
        _forget(packages)
        yield
    _forget(packages)


def _forget(packages):
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]
    for cached in (_entry_points, read_card):
        cached.cache_clear()
