"""The published protocols as commands, each on a small copy of its data set, with narrow nets."""

import csv
import json

import numpy as np
import pytest

from gigaseg.cli import main
from gigaseg.sam.checkpoints import read_state
from gigaseg.segmenters.centersam.checkpoint import open_centersam
from published import write_dsb2018, write_monuseg
from training import discs

PAPER = [
    *("--letterbox", "--crop=64", "--margin=1", "--box-losses=paper", "--rate=1.25e-4", "--warmup=0", "--decay=0"),
    *("--beta2=0.999", "--clip=0", "--ema=0", "--balance=0", "--drops", "0.643", "0.857"),
    *("--colours=centernet", "--sam-size=128"),
]
FIGURES = {
    *("pixel_dice", "pixel_iou", "f1_50", "aji", "pq", "seg"),
    *("dsc_reference", "seg_reference", "aji_centersam_reference"),
}
NARROW = ["--detector=hourglass", "--dims", "8", "8", "--counts", "1", "1"]
SHORT = [
    *("--steps=3", "--batch=2", "--device=cpu", "--threads=1", "--workers=0", "--log-every=1", "--validate-every=3"),
    "--precision=fp32",
]


def dsb2018(folder):
    write_dsb2018(folder)
    return ["--layout=dsb2018", "--split=random-80-10-10"], {"train": 8, "val": 1, "test": 1}


def monuseg(folder):
    names = ("TCGA-A7-A13E-01Z-00-DX1", "TCGA-B0-5711-01Z-00-DX1")
    write_monuseg(folder, names)
    (folder / "split.tsv").write_text(f"image\tsplit\n{names[0]}\ttrain\n{names[1]}\tval\n")
    words = ["--layout=monuseg-crops", "--split", str(folder / "split.tsv"), "--clahe"]
    return words, {"train": 9, "val": 9, "test": 0}


def tissuenet(folder):
    folder.mkdir()
    for part, count in (("train", 4), ("val", 2), ("test", 1)):
        made = [discs(seed, side=64, count=3) for seed in range(count)]
        images = np.stack([image[..., 1] for image, _ in made]).astype(np.float32)
        labels = np.stack([label for _, label in made])
        np.savez(
            folder / f"tissuenet_{part}.npz",
            X=np.stack([images, 0 * images], -1),
            y=np.stack([labels, labels], -1),
        )
    return ["--layout=tissuenet"], {"train": 4, "val": 2, "test": 1}


@pytest.mark.parametrize("data", [dsb2018, monuseg, tissuenet], ids=lambda f: f.__name__)
def test_a_published_protocol_is_one_command(sam, tmp_path, data):
    words, images = data(tmp_path / "data")
    out = tmp_path / "run"
    words = ["train", "centersam", "--data", str(tmp_path / "data"), "--sam", str(sam), "--out", str(out), *words]
    assert main([*words, *PAPER, *NARROW, *SHORT]) == 0
    rates = np.genfromtxt(out / "train.csv", delimiter=",", names=True)["rate"]
    assert rates == pytest.approx([1.25e-4, 1.25e-4, 1.25e-5])
    _, card = read_state(out / "best.safetensors")
    assert card["images"] == images
    assert card["method"] == "centersam"
    assert 0.1 <= card["threshold"] <= 0.6
    loaded = open_centersam(out / "best.safetensors")
    assert loaded.detector.config.dims == (8, 8)
    assert loaded.threshold == card["threshold"]

    # the same line measures a part, and leaves the weights as they are
    before, part = (out / "best.safetensors").read_bytes(), "test" if images["test"] else "val"
    assert main([*words, *PAPER, *NARROW, *SHORT, "--evaluate", part]) == 0
    assert (out / "best.safetensors").read_bytes() == before
    report = json.loads((out / f"{part}.json").read_text())
    assert len(report["per_image"]) == images[part]
    assert report["settings"]["threshold"] == card["threshold"]
    assert report["figures"].keys() >= FIGURES
    for name, figure in report["figures"].items():
        assert 0 <= figure["value"] <= 1, name
        if images[part] > 1:
            assert figure["low"] <= figure["value"] <= figure["high"], name
    with (out / f"{part}.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert list(rows[0]) == ["image", "group", *report["figures"]]
    assert [row["image"] for row in rows] == [row["image"] for row in report["per_image"]]
    for name in ("pq", "aji"):
        defined = [float(row[name]) for row in rows if row[name]]
        assert report["figures"][name]["images"] == len(defined)
        assert report["figures"][name]["value"] == pytest.approx(np.mean(defined))


def test_a_folder_of_test_images_is_measured_as_a_whole(sam, folder, tmp_path, capsys):
    """MoNuSeg's official parts are two folders."""
    words, _ = monuseg(tmp_path / "test")
    out = tmp_path / "run"
    shared = ["train", "centersam", "--sam", str(sam), "--out", str(out), "--crop=64", "--width=8", *SHORT]
    assert main([*shared, "--data", str(folder), "--validate-every=9"]) == 0
    assert main([*shared, "--data", str(tmp_path / "test"), words[0], "--evaluate", "all"]) == 0
    assert len(json.loads((out / "all.json").read_text())["per_image"]) == 18
    assert main([*shared, "--data", str(tmp_path / "test"), *words, "--evaluate", "test"]) == 2
    assert "leaves no image for test; found: 9 train, 9 val, 0 test" in capsys.readouterr().err


def test_a_light_detector_is_trained_by_a_line_and_resumed_by_the_same(sam, folder, tmp_path):
    out = tmp_path / "run"
    words = ["train", "centersam", "--data", str(folder), "--sam", str(sam), "--out", str(out), "--licence", "CC0-1.0"]
    words += ["--crop=64", "--width=8", "--classes", "cell", *SHORT]
    assert main(words) == 0
    before = (out / "best.safetensors").read_bytes()
    assert main(words) == 0
    assert (out / "best.safetensors").read_bytes() == before
    card = open_centersam(out / "best.safetensors").card
    assert card["licence"] == "CC0-1.0"
    assert card["detector"]["classes"] == card["classes"] == ["cell"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--detector=vgg"], "--detector is 'vgg', accepted: light, resnet18, hourglass"),
        (["--crop=100"], "--crop is 100, accepted with light and this SAM: multiples of 8"),
        (["--smallest=30", "--largest=20"], "--smallest is 30, accepted: at most --largest (20)"),
        (["--sam=nowhere.safetensors"], "nowhere.safetensors"),
        (["--drops", "1.5"], "--drops is [1.5], accepted: a list of"),
        (["--drops", "0.5", "--schedule=exponential"], "--schedule is exponential, accepted with --drops: cosine"),
        (["--counts", "1", "1"], "counts is [1, 1], accepted: 6 integers, as many as dims"),
        (["--classes", "cell", "cell"], "classes is ['cell', 'cell'], accepted: different texts, at least one"),
        (["--classes", "cell", "dead"], "s0.webp: its data set states no classes, accepted: cell, dead"),
        (["--evaluate=test"], "best.safetensors: no such file; train first, by the same line without --evaluate"),
        (["--evaluate=tst"], "unknown part 'tst'; accepted: train, val, test, all (did you mean 'test'?)"),
        (["--width=9"], "width is 9, accepted: a multiple of 2"),
    ],
)
def test_a_mistake_is_one_line(sam, folder, tmp_path, capsys, words, told):
    given = ["train", "centersam", "--data", str(folder), "--sam", str(sam), "--out", str(tmp_path / "run"), *words]
    assert main(given) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("gigaseg train: ")
    assert told in line
    assert not (tmp_path / "run").exists()
