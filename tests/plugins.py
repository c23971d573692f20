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
    info = folder / f"{package.name}-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / f"{name}.py").write_text(f"from {module} import {segmenter.__name__}\n")
    (package / f"{name}.json").write_text(json.dumps(card))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.name.replace('_', '-')}\nVersion: 1.0\n")
    point = f"{name} = {package.name}.{name}:{segmenter.__name__}"
    (info / "entry_points.txt").write_text(f"[gigaseg.segmenters]\n{point}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", f"{folder}:{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}")
        _forget(package.name)
        yield
    _forget(package.name)


def _forget(package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    for cached in (_entry_points, read_card):
        cached.cache_clear()
