"""Two classes by size from a data set that states none."""

import importlib

import numpy as np
import pytest
from PIL import Image

from cohorts import ROOT
from gigaseg.train.data import load
from gigaseg.train.layouts import read_layout
from gigaseg.train.splits import split


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Runs it on four images, of which the last three are left out."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    two_classes = importlib.import_module("two_classes")
    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    sides = {"spread": [10] * 9 + [16] * 3, "alike": [10] * 12, "few": [10] * 3 + [16], "doubt": [20] * 7 + [23] * 5}
    lines = ["image\tmodality\theight\twidth\tsplit"]
    for name, squares in sides.items():
        labels = np.zeros((160, 160), np.uint16)
        for i, side in enumerate(squares):
            y, x = 40 * (i // 4), 40 * (i % 4)
            labels[y : y + side, x : x + side] = 2 * i + 1
        Image.fromarray(labels).save(tmp_path / "data" / "labels" / f"{name}.png")
        Image.new("RGB", (160, 160)).save(tmp_path / "data" / "images" / f"{name}.webp")
        lines.append(f"{name}\tfluorescence\t160\t160\tval")
    (tmp_path / "data" / "index.tsv").write_text("\n".join(lines) + "\n")
    return lambda *more: two_classes.main(["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), *more])


def test_nuclei_are_large_beside_the_median_of_their_image(build, tmp_path, capsys):
    for _ in range(2):  # a second run writes the same
        build()
        assert capsys.readouterr().out.splitlines() == [
            "1 of 4 images: 1 val",
            "val: 9 small, 3 large nuclei",
            "left out: 1 sizes too alike, 1 fewer than 10 nuclei, 1 too many in doubt",
        ]
    entries = read_layout("plain", tmp_path / "out")
    assert len(split(entries, needed="val")["val"]) == 1
    (sample,) = load(entries, classes=("small", "large"))
    assert sample.classes == ("small",) * 9 + ("large",) * 3


def test_what_cannot_be_built_is_told(build, tmp_path, capsys):
    for words, told in (
        (["--modality=purple"], "--modality is purple, accepted: all, fluorescence"),
        (["--out", str(tmp_path / "data")], "--out is the folder of --data"),
        (["--crop=4000"], "no image is left: "),
    ):
        with pytest.raises(SystemExit):
            build(*words)
        assert told in capsys.readouterr().err
