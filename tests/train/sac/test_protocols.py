"""Every command of the published protocols, as the documentation has it, on small copies of the data sets."""

import csv
import json
import re
import shlex

import pytest

from cohorts import ROOT
from gigaseg.cli import main
from gigaseg.sam.checkpoints import read_state
from published import write_dsb2018, write_glas, write_monuseg
from samples import write_random_sam

PAGE = ROOT / "docs" / "sac_protocols.md"
SMALL = [
    *("--crop=64", "--width=4", "--steps=2", "--accumulate=1", "--warmup=0", "--device=cpu", "--threads=1"),
    *("--workers=0", "--log-every=1", "--precision=fp32"),
]
PARTS = {
    "monuseg": {"train": 24, "val": 6, "test": 0},
    "dsb2018": {"train": 8, "val": 1, "test": 1},
    "glas": {"train": 3, "val": 2, "test": 3},
}


def commands():
    """The words of each command, without those of the shell."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    paper = re.search(r'PAPER="([^"]*)"', blocks)[1]
    lines = blocks.replace("\\\n", " ").replace("$PAPER", " ".join(paper.split())).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("gigaseg train")]


TRAINING = [words for words in commands() if "--evaluate" not in words]
MEASURING = [words for words in commands() if "--evaluate" in words]


def value(words, option):
    return words[words.index(option) + 1]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Stand-ins for what the commands name."""
    folder = tmp_path_factory.mktemp("published")
    sam = folder / "sam.safetensors"
    write_random_sam(sam)
    with (ROOT / "splits" / "monuseg_24_6.tsv").open() as stream:
        names = [row["image"] for row in csv.DictReader(stream, delimiter="\t")]
    write_monuseg(folder / "MoNuSeg", names, side=60)
    write_monuseg(folder / "MoNuSegTest", ["TCGA-IZ-8196-01A-01-BS1"], side=60)
    write_dsb2018(folder / "stage1_train")
    write_glas(folder / "GlaS")
    return folder


def placed(words, places, out):
    """The command on the stand-ins, at a small size; the last of an option counts."""
    data = places / value(words, "--data")
    return [*words, "--data", str(data), "--sam", str(places / "sam.safetensors"), "--out", str(out), *SMALL]


@pytest.mark.parametrize("words", TRAINING, ids=lambda words: f"{value(words, '--layout')} {value(words, '--out')}")
def test_a_protocol_trains_and_is_measured_by_the_lines_that_the_page_has(places, tmp_path, monkeypatch, words):
    monkeypatch.chdir(ROOT)
    layout, out = value(words, "--layout"), tmp_path / "run"
    assert main(placed(words, places, out)) == 0
    _, card = read_state(out / "best.safetensors")
    assert card["images"] == PARTS[layout]
    assert card["sac"]["rank"] == (0 if "--rank" in words else 16)
    assert card["sac"]["norm"] == "group"
    assert card["sac"]["pairs"] == int(value(words, "--pairs") if "--pairs" in words else 1)
    assert card["training"]["neck"] == ("--neck" in words)
    assert card["loop"]["rate"] == 1e-4
    (measuring,) = [line for line in MEASURING if value(line, "--layout") == layout]
    if value(words, "--out") == value(measuring, "--out"):
        assert main(placed(measuring, places, out)) == 0
        part = value(measuring, "--evaluate")
        report = json.loads((out / f"{part}.json").read_text())
        assert len(report["per_image"]) == (PARTS[layout]["test"] or 1)
        assert report["figures"].keys() >= {"pixel_dice", "no_prompt_pixel_dice", "unet_pixel_dice"}


@pytest.mark.parametrize(("layout", "images"), [("monuseg", 24), ("dsb2018", 536), ("glas", 68)])
def test_the_steps_are_those_of_the_epochs(layout, images):
    """100 epochs at most, an early stop from 30 on, validation after each, 5 % of warm-up, 8 images a step."""
    for words in (words for words in TRAINING if value(words, "--layout") == layout):
        assert int(value(words, "--batch")) * int(value(words, "--accumulate")) == 8
        assert int(value(words, "--steps")) == 100 * images // 8
        assert int(value(words, "--patience-after")) == 30 * images // 8
        assert int(value(words, "--validate-every")) == -(-images // 8)
        assert int(value(words, "--warmup")) == pytest.approx(0.05 * int(value(words, "--steps")), abs=0.5)


def test_the_page_has_all_protocols():
    assert sorted(value(words, "--sam") for words in TRAINING) == ["vit_b", *["vit_h"] * 7, "vit_l"]
    assert {value(words, "--layout") for words in TRAINING} == set(PARTS)
