"""Every command of PerSense's protocols, as the documentation has it, on small copies of the data sets."""

import json
import re
import shlex

import pytest

from cohorts import ROOT
from gigaseg.cli import main, make_parser
from gigaseg.one_shot.layouts import DRAWN, LAYOUTS
from gigaseg.one_shot.report import PAPER
from samples import write_random_sam

PAGE = (ROOT / "docs" / "persense_protocols.md").read_text()


def commands():
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("gigaseg")]


WORDS = commands()


def value(words, option):
    return words[words.index(option) + 1]


def test_the_page_has_each_protocol_once():
    assert [value(words, "--layout") for words in WORDS] == list(LAYOUTS)
    assert {words[0] for words in WORDS} == {"one-shot"}
    for words in WORDS:
        make_parser().parse_args(words)


def test_the_page_and_the_printed_table_have_the_same_figures():
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| PerSense")]
    assert rows == [
        ["PerSense, DSALVANet", "70.96", "2.7 (our copy of the paper prints 27)"],
        ["PerSense, CounTR", "71.61", "2.7"],
        ["PerSense", "47.8", "49.3", "48.9", "50.1", "49.0"],
        ["PerSense", "25.7"],
    ]
    assert PAPER["persense-d"] == {"mIoU": "71.61 CounTR, 70.96 DSALVANet", "seconds": "2.7"}
    assert list(PAPER["coco-20i"].values()) == ["49.0", "47.8", "49.3", "48.9", "50.1"]
    assert PAPER["lvis-92i"] == {"mIoU": "25.7"}
    assert list(PAPER) == list(LAYOUTS)


def test_the_page_has_the_numbers_of_pairs_and_folds():
    for name in (
        "Of each fold 1000 pairs",
        "the classes f, f + 4, f + 8, ... of the 80",
        "Ten folds of 92",
        "2300 pairs, 25",
    ):
        assert name in PAGE.replace("\n", " ")
    assert {name: (of.folds, of.episodes) for name, of in DRAWN.items()} == {
        "coco-20i": (4, 1000), "lvis-92i": (10, 2300),
    }  # fmt: skip


@pytest.fixture(scope="module")
def persense():
    """Skips where PerSense itself is not there."""
    return pytest.importorskip("gigaseg.segmenters.persense.one_shot")


@pytest.mark.parametrize("words", WORDS, ids=lambda words: value(words, "--layout"))
def test_a_protocol_is_measured_by_the_line_that_the_page_has(persense, copies, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    layout = value(words, "--layout")
    (tmp_path / value(words, "--data")).symlink_to(copies[layout][0])
    write_random_sam(tmp_path / "sam.safetensors")
    quick = ["--limit=1", "--device=cpu", "--checkpoint", str(tmp_path / "sam.safetensors")]
    quick += [] if layout == "persense-d" else ["--episodes=1"]
    assert main([*words, *quick]) == 0
    report = json.loads((tmp_path / value(words, "--out")).read_text())
    images = {"persense-d": 3, "coco-20i": 4, "lvis-92i": 10}[layout]
    assert (report["layout"], report["images"]) == (layout, images)
    assert 0 <= report["miou"] <= 1
    assert report["back_ends"]
    assert report["settings"]["checkpoint"] == str(tmp_path / "sam.safetensors")
    assert (report["machine"]["device"], report["machine"]["gpu"]) == ("cpu", "")
    text = capsys.readouterr().out
    assert PAPER[layout]["mIoU"] in text
    assert "paper: other weights and another machine" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--layout=coco", "--data=."], "unknown layout 'coco'; accepted: persense-d, coco-20i, lvis-92i"),
        (["--layout=persense-d", "--data=nowhere"], "nowhere/Images: no such folder"),
        (["--layout=persense-d", "--data=.", "--set=x"], "--set is 'x', accepted: KEY=VALUE"),
    ],
    ids=["layout", "folder", "set"],
)
def test_a_mistake_is_told_in_one_line(persense, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    assert main(["one-shot", *words, "--out=scores.json"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"gigaseg one-shot: {told}")
