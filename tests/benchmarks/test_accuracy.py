"""The accuracy harness on generated images: what it writes, what it keeps, what it says when something is missing."""

import importlib
import json
import shutil
import sys

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from cohorts import ROOT, Cohort, write_slide
from gigaseg.sam.checkpoints import write_delta, write_state
from gigaseg.testing import synthetic_image

SPLIT = ROOT / "splits" / "monuseg_24_6.tsv"


@pytest.fixture(scope="module")
def accuracy():
    """The module benchmarks/accuracy.py, which is a script beside its parts."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("accuracy")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def write(folder, name, *, kind="brightfield", seed=0, side=320, suffix="png"):
    image, labels = (
        a[60 : 60 + side, 60 : 60 + side] for a in synthetic_image((side + 120,) * 2, seed=seed, kind=kind)
    )
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rgb = (
        image if image.ndim == 3 else np.repeat((image // 256 if image.dtype == np.uint16 else image)[..., None], 3, 2)
    )
    Image.fromarray(rgb.astype(np.uint8)).save(folder / "images" / f"{name}.{suffix}")
    Image.fromarray(labels.astype(np.uint16)).save(folder / "labels" / f"{name}.png")
    return len(np.unique(labels)) - 1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two images of each set, dsb2018 with one that trains."""
    folder = tmp_path_factory.mktemp("data")
    rows = [("a", "purple", "val"), ("b", "purple", "val"), ("c", "purple", "train")]
    for seed, (name, *_) in enumerate(rows):
        write(folder / "dsb2018", name, seed=seed)
    lines = ["image\tmodality\tsplit", *("\t".join(row) for row in rows)]
    (folder / "dsb2018" / "index.tsv").write_text("\n".join(lines) + "\n")
    held_out, trains = (
        next(line.split("\t")[0] for line in SPLIT.read_text().splitlines() if line.endswith(part))
        for part in ("val", "train")
    )
    for seed, name in enumerate((held_out, trains), 5):
        write(folder / "monuseg", name, seed=seed, suffix="tif")
        write(folder / "consep", f"train_{seed}", seed=seed + 10, suffix="jpg")
    return folder


@pytest.fixture
def run(accuracy, data, tmp_path):
    def run(*words):
        accuracy.main(["--data", str(data), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "a.md"), *words])
        kept = json.loads((tmp_path / "a.json").read_text())["rows"] if (tmp_path / "a.json").exists() else {}
        return (tmp_path / "a.md").read_text(), kept

    return run


def test_a_row_has_a_table_for_each_part_with_figures_and_intervals(run, accuracy):
    page, kept = run("--rows", "watershed")
    parts = kept["watershed"]["parts"]
    assert {name: cell["images"] for name, cell in parts.items()} == {
        "dsb2018 val": 2, "dsb2018 val, purple": 2, "monuseg": 2, "monuseg held out": 1, "consep": 2,
    }  # fmt: skip
    for name, cell in parts.items():
        assert f"## {name}\n" in page
        pooled = {"pixel_dice_pooled"} if cell["images"] == 1 else set()  # of one image nothing is pooled
        assert set(cell["figures"]) == set(accuracy.FIGURES) - pooled
        value, low, high = cell["figures"]["pixel_dice"]
        assert 0.5 < value < 1
        assert low is None if cell["images"] == 1 else low <= value <= high
        assert cell["seconds"] > 0
    dice = parts["dsb2018 val"]["figures"]["pixel_dice"]
    assert f"{dice[0]:.3f} ({dice[1]:.3f}–{dice[2]:.3f})" in page
    assert "Machines" in page


def test_figures_are_those_of_evaluate_on_the_predictions_written(run, data, tmp_path):
    from gigaseg.metrics.evaluate import evaluate

    _, kept = run("--rows", "watershed", "--sets", "consep")
    report = evaluate(tmp_path / "work" / "watershed" / "consep", data / "consep" / "labels")
    for name, (value, low, high) in kept["watershed"]["parts"]["consep"]["figures"].items():
        figure = report.figures[name]
        assert (value, low, high) == (figure.value, figure.low, figure.high)


def test_other_sets_and_rows_stay_when_one_is_run_again(run, tmp_path):
    page, before = run("--rows", "watershed", "--sets", "consep", "dsb2018")
    kept = {"rows": {**before, "centersam + small": before["watershed"]}, "format": "gigaseg/accuracy/2"}
    (tmp_path / "a.json").write_text(json.dumps(kept))
    page, after = run("--rows", "watershed", "--sets", "monuseg")
    assert after["centersam + small"] == before["watershed"]
    assert after["watershed"]["parts"]["consep"] == before["watershed"]["parts"]["consep"]
    assert set(after["watershed"]["parts"]) > set(before["watershed"]["parts"])
    assert "| centersam + small |" in page
    assert "| *0.9220* | *0.8660* | – |" in page, "the paper's figures beside ours"
    (tmp_path / "a.json").write_text(json.dumps(kept).replace("revision 1", "revision 0"))
    _, after = run("--rows", "watershed", "--sets", "monuseg")
    assert set(after["watershed"]["parts"]) == {"monuseg", "monuseg held out"}, "older figures are of another method"


def test_a_row_whose_weights_are_missing_is_left_out_and_says_so(run, capsys):
    page, kept = run("--rows", "watershed", "everything + small", "--sam", "none.safetensors", "--sets", "consep")
    assert set(kept) == {"watershed"}
    assert "`everything + small` is left out: checkpoint is 'none.safetensors', no such file" in page
    assert "is left out" in capsys.readouterr().err


def test_images_that_weights_were_trained_on_do_not_count(accuracy, data):
    sets = importlib.import_module("accuracy_data")
    assert len(sets.monuseg(data, sets.Seen((("dsb2018 train", "own"),)))) == 2
    seen = sets.Seen((("MoNuSeg", "monuseg_24_6.tsv"), ("dsb2018", "random-80-10-10")))
    (picture,) = sets.monuseg(data, seen)
    assert picture.parts == ("monuseg held out",)
    assert sets.dsb2018(data, seen) == []
    assert str(seen) == "MoNuSeg (monuseg_24_6.tsv); dsb2018 (random-80-10-10)"


def test_what_weights_have_seen_their_cards_and_their_bases_tell(accuracy, tmp_path):
    seen_by = importlib.import_module("accuracy_methods").seen_by
    base, tuned = tmp_path / "base.safetensors", tmp_path / "tuned.safetensors"
    write_state(base, {"a": torch.zeros(2)}, {"data": "dsb2018 train", "split": "own"})
    write_delta(tuned, {"a": torch.ones(2)}, base, {"data": "monuseg", "split": "all"})
    assert seen_by(tuned).data == (("monuseg", "all"), ("dsb2018 train", "own"))
    assert seen_by(None).data == ()


def test_limit_takes_images_evenly_and_leaves_the_page_alone(accuracy, data, tmp_path):
    page = ROOT / "benchmarks" / "results" / "accuracy.md"
    before = page.read_bytes() if page.exists() else None
    work = tmp_path / "work"
    accuracy.main(["--data", str(data), "--work", str(work), "--rows", "watershed", "--sets", "consep", "--limit", "1"])
    assert "a quick trial" in (work / "limit-1" / "accuracy.md").read_text()
    assert (page.read_bytes() if page.exists() else None) == before


def test_a_folder_without_data_is_one_line(accuracy, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        accuracy.main(["--data", str(tmp_path)])
    assert stop.value.code == 2
    assert "holds none of the folders dsb2018, monuseg, consep" in capsys.readouterr().err


@pytest.mark.slow
def test_the_workflow_gives_what_memory_gives(run, tmp_path):
    page, kept = run("--rows", "watershed", "--sets", "monuseg", "--workflow", "--cores", "1")
    through = kept["watershed"]["workflow"]
    assert through["agreement"]["pixel_dice"] > 0.95
    assert through["agreement"]["pq"] > 0.85
    assert through["figures"]["pixel_dice"][0] == pytest.approx(
        kept["watershed"]["parts"]["monuseg"]["figures"]["pixel_dice"][0], abs=0.03
    )
    assert "| watershed | workflow |" in page
    slides = sorted((tmp_path / "work" / "watershed" / "workflow").glob("*.tif"))
    assert len(slides) == 2
    with tifffile.TiffFile(slides[0]) as slide:
        assert slide.pages[0].tags["XResolution"].value == (40000, 1)


def test_the_target_benchmark_writes_the_page_and_is_not_part_of_a_run(data, tmp_path):
    shutil.copy(ROOT / "config.yaml", tmp_path)
    cohort = Cohort(tmp_path)
    write_slide(tmp_path / "a.tif", 1)
    cohort.sheet(("a", "a.tif"), header="slide\tpath")
    options = ["--rows", "watershed", "--sets", "consep"]
    cohort.configure(benchmark={"data": str(data), "out": "figures", "options": options})
    assert "benchmark" not in cohort.planned()
    done = cohort.snakemake("benchmark")
    assert done.returncode == 0, done.stderr
    assert "## consep" in (tmp_path / "figures" / "accuracy.md").read_text()
    assert (tmp_path / "figures" / "accuracy.json").exists()
