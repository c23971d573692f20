"""Every command of the published protocols, as the documentation has it, on small copies of the data sets."""

import json
import math
import re
import shlex

import pytest

from cohorts import ROOT
from gigaseg.cli import main
from gigaseg.metrics.pannuke import CLASSES
from gigaseg.metrics.report import MEAN, Figure, Report
from gigaseg.train.layouts import read_layout
from gigaseg.train.splits import split
from published import write_monuseg
from published_cfrsam import write_pannuke
from published_densesam import write_cpm17
from samples import write_random_sam

PAGE = ROOT / "docs" / "cfrsam_protocols.md"
SMALL = [
    *("--steps=2", "--warmup=0", "--validate-every=2", "--batch=2", "--validated=2"),
    *("--device=cpu", "--threads=1", "--workers=0", "--log-every=1"),
]
"""At the end of a command that trains: the last of an option counts."""

LIGHT = {
    "cfrsam-points": ["--backbone=light", "--widths", "8", "8", "8", "8", "--channels=8", "--crop=64"],
    "cfrsam": ["--crop=64", "--objects=2"],
}
"""In place of the paper's models."""

IMAGES = {
    "pannuke-123": (2656, 200),
    "pannuke-213": (2523, 200),
    "pannuke-321": (2722, 200),
    "own-val-15": (27, 200),
    "random-85-15": (25, 600),
}
"""By split: images that train as published, and epochs of stage 1."""


def commands():
    """The words of each command, with those that the shell puts in."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    for name, words in re.findall(r'^(\w+)="([^"]*)"', blocks, re.MULTILINE):
        blocks = blocks.replace(f"${name}", " ".join(words.split()))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("gigaseg")]


WORDS = commands()
TRAINING = [words for words in WORDS if words[0] == "train" and "--evaluate" not in words]
MEASURING = [words for words in WORDS if "--evaluate" in words]
RUNS = list(dict.fromkeys(words[words.index("--out") + 1] for words in MEASURING))


def value(words, option):
    """The last one counts."""
    return words[len(words) - words[::-1].index(option)]


def of(lines, option, wanted):
    return [words for words in lines if option in words and value(words, option) == wanted]


def test_the_page_has_all_protocols_in_both_stages():
    assert {value(words, "--split") for words in TRAINING} == set(IMAGES)
    for name in IMAGES:
        first, second = of(TRAINING, "--split", name)
        assert (first[1], second[1]) == ("cfrsam-points", "cfrsam")
        assert value(second, "--points") == value(first, "--out") + "/best.safetensors"
        assert of(MEASURING, "--out", value(second, "--out"))
    (average,) = [words for words in WORDS if words[0] == "average"]
    folds = [value(words, "--out") for words in MEASURING if value(words, "--layout") == "pannuke"]
    assert average[1:4] == [f"{run}/test.json" for run in folds]


@pytest.mark.parametrize("words", TRAINING, ids=lambda words: value(words, "--out"))
def test_the_steps_are_those_of_the_epochs_and_the_rest_is_the_papers(words):
    images, epochs = IMAGES[value(words, "--split")]
    epochs = 200 if words[1] == "cfrsam" else epochs
    batch = int(value(words, "--batch"))
    epoch = math.ceil(images / batch)
    assert int(value(words, "--validate-every")) == epoch
    assert int(value(words, "--steps")) == epochs * epoch
    assert (float(value(words, "--last-rate")), int(value(words, "--warmup"))) == (1, 0)
    masked = "--use-mask" in words
    assert masked == (not value(words, "--split").startswith("pannuke"))
    if words[1] == "cfrsam-points":
        assert float(value(words, "--rate")) == pytest.approx(1e-4 * batch / 8)
        assert (value(words, "--clip"), value(words, "--ema"), value(words, "--decay")) == ("0.1", "0.99", "1e-4")
    else:
        assert (batch, value(words, "--objects"), value(words, "--crop")) == (2, "25", "256")


def test_what_trains_is_as_many_as_the_page_says(tmp_path):
    parts = split(read_layout("cpm17", write_cpm17(tmp_path / "c", train=32, test=32)), "own-val-15")
    assert {part: len(found) for part, found in parts.items()} == {"train": 27, "val": 5, "test": 32}
    names = [f"TCGA-XX-{i:04d}-01Z" for i in range(30)]
    parts = split(read_layout("monuseg", write_monuseg(tmp_path / "m", names, side=60)), "random-85-15")
    assert {part: len(found) for part, found in parts.items()} == {"train": 25, "val": 5, "test": 0}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Stand-ins for what the commands name."""
    folder = tmp_path_factory.mktemp("published")
    write_random_sam(folder / "sam.safetensors")
    write_pannuke(folder / "PanNuke", (4, 4, 4), side=64)
    write_cpm17(folder / "CPM17", train=3, test=1)
    write_monuseg(folder / "MoNuSeg", [f"TCGA-XX-{i:04d}-01Z" for i in range(8)], side=64)
    write_monuseg(folder / "MoNuSegTest", ["TCGA-IZ-8196-01A"], side=64)
    return folder


def placed(words, places):
    """The command on the stand-ins, in their folder, at a small size."""
    words = list(words)
    if "--pretrained" in words:
        at = words.index("--pretrained")
        del words[at : at + 2]
    if "--sam" in words:
        words += ["--sam", str(places / "sam.safetensors")]
    quick = ["--device=cpu", "--threads=1"] if "--evaluate" in words else [*SMALL, *LIGHT[words[1]]]
    return [*words, "--data", str(places / value(words, "--data")), *quick]


@pytest.mark.parametrize("run", RUNS)
def test_a_protocol_trains_and_is_measured_by_the_lines_that_the_page_has(places, monkeypatch, run):
    monkeypatch.chdir(places)
    (second,) = of(TRAINING, "--out", run)
    (first,) = of(TRAINING, "--out", value(second, "--points").split("/")[0])
    (measuring,) = of(MEASURING, "--out", run)
    for words in (first, second, measuring):
        assert main(placed(words, places)) == 0
    report = json.loads((places / run / f"{value(measuring, '--evaluate')}.json").read_text())
    assert report["per_image"]
    assert report["figures"].keys() >= {"aji", "pq"}
    if value(measuring, "--layout") == "pannuke":
        expected = {"pannuke_bpq", "pannuke_mpq", "detection_f1_hungarian", "pannuke_bpq/Breast"}
        expected |= {f"classification_f1_hungarian_{name}" for name in CLASSES}
        assert report["figures"].keys() >= expected


def test_the_folds_are_combined_by_the_line_that_the_page_has(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (average,) = [words for words in WORDS if words[0] == "average"]
    for path, value_ in zip(average[1:4], (0.4, 0.5, 0.6), strict=True):
        (tmp_path / path).parent.mkdir()
        figures = {"pannuke_bpq": Figure(value_, MEAN, 1)}
        settings = {"method": "cfrsam", "layout": "pannuke"}
        Report("p", "t", ("a",), figures, [{"pannuke_bpq": value_}], settings).write(tmp_path / path)
    assert main(average) == 0
    assert "pannuke_bpq" in capsys.readouterr().out
    report = json.loads((tmp_path / value(average, "--out")).read_text())
    assert report["figures"]["pannuke_bpq"]["value"] == pytest.approx(0.5)
