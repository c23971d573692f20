"""Segmenters are found by name, also those of other packages, and their cards are read without torch."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.card import Card, Option, read_card, segmenter_names


def test_the_segmenters_of_this_package_have_cards():
    assert {"annotations", "watershed"} <= set(segmenter_names())
    for name in segmenter_names():
        card = read_card(name)
        assert card.name == name
        assert 0 <= card.overlap <= card.tile // 2
        assert card.outlines in ("pixels", "vector")


def test_an_unknown_name_lists_what_exists():
    with pytest.raises(SegmenterError, match=r"unknown segmenter 'watrshed'; accepted: annotations, .*watershed.*mean"):
        read_card("watrshed")


def card(**options):
    return Card(
        name="x", summary="", tile=64, overlap=0, pixel_size=None, unit="px", object_diameter=None, classes=("a",),
        needs_gpu=False, needs_prompts=False, needs_annotations=False, outlines="pixels", checkpoint=None, revision=1,
        options={key: Option(value, "help") for key, value in options.items()},
    )  # fmt: skip


def test_options_are_completed_and_take_the_type_of_their_default():
    found = card(a=1.5, b=3, c=True, d="x").complete({"a": "2", "b": "7", "c": "false"})
    assert found == {"a": 2.0, "b": 7, "c": False, "d": "x"}
    assert card(a=1.5).complete({"a": 2}) == {"a": 2.0}


@pytest.mark.parametrize("value", ["many", True, float("nan"), "nan", None, [1]])
def test_an_option_of_the_wrong_type_is_told_with_its_default(value):
    with pytest.raises(SegmenterError, match=r"segmenter 'x': option 'a' is .*a number \(default 1\.5; help\)"):
        card(a=1.5).complete({"a": value})


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        (Option(3, "px", low=0, high=9), -1, "option 'a' is -1, accepted: a whole number from 0 to 9 (default 3; px)"),
        (Option(3, "px", low=1), "0", "option 'a' is 0, accepted: a whole number >= 1 (default 3; px)"),
        (Option(0.5, "share", low=0, high=1), 2, "option 'a' is 2.0, accepted: a number from 0 to 1"),
        (Option(0.5, "share"), float("inf"), "option 'a' is inf, accepted: a number (default 0.5; share)"),
        (Option("x", "which", choices=["x", "y"]), "z", "option 'a' is 'z', accepted: x, y (default 'x'; which)"),
    ],
)
def test_an_option_out_of_its_limits_is_told(option, value, words):
    with pytest.raises(SegmenterError) as caught:
        replace(card(), options={"a": option}).complete({"a": value})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_default_is_within_its_limits_and_overlaps_are_stated():
    for name in segmenter_names():
        found = read_card(name)
        assert found.complete(found.complete({})) == {key: option.default for key, option in found.options.items()}
        assert found.overlaps == ("keep" if name == "prompted" else "exclusive")


def test_a_segmenter_of_another_package_runs_and_its_card_is_read_without_importing_it(tmp_path):
    package = tmp_path / "other"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model.py").write_text(
        "import torch\n"
        "from gigaseg.segmenters.base import TileInstances\n"
        "class Square:\n"
        "    def __init__(self, card, context):\n"
        "        self.card, self.side = card, context.options['side']\n"
        "    def segment(self, batch):\n"
        "        box = torch.tensor([[2, 3, 2 + self.side, 3 + self.side]], dtype=torch.int32)\n"
        "        mask = torch.ones(self.side, self.side, dtype=torch.bool)\n"
        "        return [TileInstances(box, [mask], torch.ones(1), torch.ones(1, 1)) for _ in batch.tiles]\n"
    )
    content = {
        "name": "square", "summary": "", "tile": 64, "overlap": 8, "pixel_size": None, "unit": "px",
        "object_diameter": None, "classes": ["square"], "needs_gpu": False, "needs_prompts": False,
        "needs_annotations": False, "outlines": "pixels", "checkpoint": None, "revision": 1,
        "options": {"side": {"default": 4, "help": "px"}},
    }  # fmt: skip
    (package / "square.json").write_text(json.dumps(content))
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gigaseg.segmenters]\nsquare = other.model:Square\n")
    code = """
import sys, numpy as np
from gigaseg.segmenters.card import read_card
card = read_card("square")
assert "torch" not in sys.modules and "other.model" not in sys.modules
import torch
from gigaseg.instances.tile import tile_rows
from gigaseg.instances.transfer import to_host
from gigaseg.segmenters.base import Context, TileBatch
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.testing import ArraySlide
from gigaseg.tiles.tiling import Tiling
slide = ArraySlide(np.zeros((100, 100, 3), np.uint8))
tiling = Tiling(64, 8, 100, 100, (1, 1), (1, 1), "px")
square = load_segmenter("square", Context(slide.info, tiling, options=card.complete({"side": "5"})))
tile = tiling.get(0, 1)
found = square.segment(TileBatch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [tile]))
host = to_host(found[:1], [tile], tiling, exclusive=True)[0]
print(tile_rows(host, tile, tiling, card.classes).geometry[0].bounds)
"""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.strip() == "(58.0, 3.0, 63.0, 8.0)", done.stderr
