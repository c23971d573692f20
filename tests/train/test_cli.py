"""`gigaseg train`: one command trains, resumes and tells mistakes; the package needs little beside torch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gigaseg.cli import main

SHORT = [
    *("--steps=2", "--batch=1", "--crop=64", "--objects=2", "--smallest=10", "--largest=16", "--window=4"),
    *("--device=cpu", "--threads=1", "--workers=0", "--log-every=1", "--save-every=1", "--precision=fp32"),
]


def test_a_model_is_trained_from_a_folder_and_its_card_states_the_data(folder, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "sam", "--data", str(folder), "--out", str(out), "--licence", "CC0-1.0", *SHORT]
    assert main(words) == 0
    assert {path.name for path in out.iterdir()} >= {"state.pt", "train.csv", "validation.csv", "best.safetensors"}
    with safe_open(out / "best.safetensors", "pt") as file:
        card = json.loads(file.metadata()["gigaseg"])
    assert card["licence"] == "CC0-1.0"
    assert card["images"] == {"train": 3, "val": 2, "test": 0}
    assert card["config"]["name"] == "small"
    assert card["nominal"] == {"object_diameter_px": 20.0, "pixel_size_um": 0.4}
    assert 0 <= card["figures"]["box"] <= 1
    assert main([*words, "--evaluate=val"]) == 0
    report = json.loads((out / "val.json").read_text())
    assert [row["image"] for row in report["per_image"]] == ["s3", "s4"]
    assert set(report["figures"]) == {"centre", "point", "jittered", "box"}
    assert 0 < report["figures"]["box"]["value"] < 1
    assert len((out / "val.tsv").read_text().splitlines()) == 3
    assert main([*words, "--evaluate=val", "--seed=1"]) == 2
    assert "--seed is 1, accepted: 0, with which" in capsys.readouterr().err
    assert main(["train", "centersam", *words[2:6], "--evaluate=val"]) == 2
    assert "best.safetensors: weights of method 'sam', expected 'centersam'" in capsys.readouterr().err
    assert main(words) == 0  # done already: nothing changes
    assert main([*words, "--rate=0.1"]) == 2
    assert "made with another configuration" in capsys.readouterr().err


def test_small_killed_in_the_middle_goes_on_to_the_same_curve_and_the_same_weights(folder, tmp_path):
    words = [sys.executable, "-m", "gigaseg", "train", "sam", "--config=small", "--data", str(folder), *SHORT]
    words += ["--steps=5", "--save-every=2", "--validate-every=5", "--optimiser=muon", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*words, str(killed)], env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(lines(killed / "train.csv")) < 4:  # three steps: one after the last saved state
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "best.safetensors").exists()
    for out in (killed, whole):
        subprocess.run([*words, str(out)], env=environment, check=True, capture_output=True, timeout=300)
    for name in ("train.csv", "validation.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    with safe_open(killed / "best.safetensors", "pt") as one, safe_open(whole / "best.safetensors", "pt") as two:
        assert all(torch.equal(one.get_tensor(name), two.get_tensor(name)) for name in one.keys())  # noqa: SIM118


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--config", "smal"], "unknown config 'smal'; accepted: vit_b, vit_l, vit_h, small (did you mean 'small'?)"),
        (["--crop", "100"], "--crop is 100, accepted with small: multiples of 8"),
        (["--smallest", "30", "--largest", "20"], "--smallest is 30, accepted: at most --largest (20)"),
        (["--batch", "0"], "--batch is 0, accepted: a whole number >= 1"),
        (["--layout", "coco"], "unknown layout 'coco'"),
        (
            ["--split", "best"],
            "--split is 'best', accepted: own, own-val-20, own-val-15, random-80-10-10",
        ),
    ],
)
def test_a_mistake_is_one_line(folder, tmp_path, capsys, words, told):
    assert main(["train", "sam", "--data", str(folder), "--out", str(tmp_path / "run"), *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("gigaseg train: ")
    assert told in line
    assert not (tmp_path / "run").exists()


def test_images_without_instances_cannot_train(folder, tmp_path, capsys):
    from PIL import Image

    for path in (folder / "labels").iterdir():
        Image.new("I;16", (96, 96)).save(path)
    assert main(["train", "sam", "--data", str(folder), "--out", str(tmp_path / "run")]) == 2
    assert "no training image has an instance" in capsys.readouterr().err


BARE = """
import sys
forbidden = {"pyarrow", "pandas", "geopandas", "shapely", "zarr", "rasterio", "tiffslide", "openslide", "tifffile",
             "dask", "snakemake", "yaml", "cv2", "pyproj", "pyogrio", "psutil", "imagecodecs", "numcodecs"}
import gigaseg.train.loop, gigaseg.train.sam, gigaseg.train.train, gigaseg.train.evaluate, gigaseg.train.card
import gigaseg.train.parts, gigaseg.train.centersam.method, gigaseg.train.centersam.evaluate
import gigaseg.train.cfrsam.protocol
import gigaseg.segmenters.centersam.segmenter
import kornia.enhance, kornia.filters, skimage.draw, gigaseg.train.splits
print(sorted(forbidden & set(sys.modules)))
"""


def test_training_needs_nothing_of_the_slide_and_table_packages():
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_the_module_runs_from_the_source_tree_without_an_installation():
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-m", "gigaseg.train", "sam", "--help"],
        env={"PYTHONPATH": str(source), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "--exact-box" in done.stdout
    assert "--blur-sigma" in done.stdout
