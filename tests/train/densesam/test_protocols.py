"""Every command of the published protocols, as the documentation has it, on small copies of the data sets."""

import csv
import json
import math
import re
import shlex

import pytest

from cohorts import ROOT
from gigaseg.cli import main
from gigaseg.sam.checkpoints import read_state
from published import write_monuseg
from published_densesam import write_conic, write_cpm17, write_inria, write_massachusetts, write_whu
from samples import write_random_sam

PAGE = ROOT / "docs" / "densesam_protocols.md"
SMALL = [
    *("--crop=64", "--steps=2", "--epoch=1", "--warmup=0", "--validate-every=2", "--batch=2", "--points=100"),
    *("--validated=4", "--device=cpu", "--threads=1", "--workers=0", "--log-every=1"),
]
IMAGES = {
    "conic": (3486, {"train": 8, "val": 3, "test": 1}),
    "cpm17-tiles": (100, {"train": 8, "val": 4, "test": 4}),
    "monuseg-tiles": (384, {"train": 384, "val": 96, "test": 0}),
    "whu": (4736, {"train": 3, "val": 2, "test": 2}),
    "inria-buildings": (9737, {}),
    "massachusetts": (1233, {"train": 18, "val": 9, "test": 9}),
}
"""By layout: images that train as published, and what of the small copies is what."""

PARTS = ("--no-local-branch", "--no-global-branch")


def commands():
    """The words of each command, without those of the shell."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    paper = re.search(r'PAPER="([^"]*)"', blocks)[1]
    lines = blocks.replace("\\\n", " ").replace("$PAPER", " ".join(paper.split())).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("gigaseg train")]


TRAINING = [words for words in commands() if "--evaluate" not in words]
MEASURING = [words for words in commands() if "--evaluate" in words]


def value(words, option):
    """The last one counts."""
    return words[len(words) - words[::-1].index(option)]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Stand-ins for what the commands name."""
    folder = tmp_path_factory.mktemp("published")
    write_random_sam(folder / "sam.safetensors")
    with (ROOT / "splits" / "monuseg_24_6.tsv").open() as stream:
        names = [row["image"] for row in csv.DictReader(stream, delimiter="\t")]
    write_monuseg(folder / "MoNuSeg", names, side=60)
    write_monuseg(folder / "MoNuSegTest", ["TCGA-IZ-8196-01A-01-BS1"], side=60)
    write_conic(folder / "CoNIC")
    write_cpm17(folder / "CPM17", train=3, test=1)
    write_whu(folder / "WHU")
    write_inria(folder / "AerialImageDataset", cities=("austin",), numbers=(5, 6))
    write_massachusetts(folder / "Massachusetts")
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
    assert card["images"] == (IMAGES[layout][1] or card["images"])
    assert all(card["images"][part] for part in ("train", "val"))
    heads = int(value(words, "--heads"))
    assert card["densesam"]["heads"] == heads
    assert [card["densesam"][name[5:].replace("-", "_")] for name in PARTS] == [name not in words for name in PARTS]
    assert card["loop"]["rate"] == 1e-3
    assert (card["loop"]["schedule"], card["loop"]["decay"], card["loop"]["precision"]) == ("exponential", 0, "fp32")
    if value(words, "--out") == "RUN-DECODER":
        assert card["densesam"]["image_token_update"]
        assert card["training"]["trained"] == "decoder"
    measuring = [line for line in MEASURING if value(line, "--data").startswith(value(words, "--data"))]
    assert measuring
    assert all(value(line, "--precision") == "fp32" for line in measuring)
    for line in measuring if value(words, "--out") == "RUN" else ():
        assert main(placed(line, places, out)) == 0
        report = json.loads((out / f"{value(line, '--evaluate')}.json").read_text())
        assert report["per_image"]
        assert report["figures"].keys() >= (
            {"object_dice", "paper_object_dice"} if heads == 2 else {"pixel_iou_two_class"}
        )


@pytest.mark.parametrize("layout", IMAGES)
def test_the_steps_are_those_of_the_epochs(layout):
    """30 epochs, 5 of them of warm-up, validation after each, 8 tiles a step."""
    lines = [words for words in TRAINING if value(words, "--layout") == layout]
    assert lines
    for words in lines:
        epoch = math.ceil(IMAGES[layout][0] / int(value(words, "--batch")))
        found = {option: int(value(words, option)) for option in ("--epoch", "--steps", "--warmup", "--validate-every")}
        assert found == {"--epoch": epoch, "--steps": 30 * epoch, "--warmup": 5 * epoch, "--validate-every": epoch}


def test_the_page_has_all_protocols():
    assert {value(words, "--sam") for words in TRAINING} == {"vit_h"}
    assert {value(words, "--layout") for words in TRAINING} == set(IMAGES)
    assert {value(words, "--heads") for words in TRAINING if "building" in words} == {"1"}
