"""The ablation of SAC's points on tiny images: what it trains, what it keeps, what it writes."""

import importlib
import json
import sys

import numpy as np
import pytest
from PIL import Image

from cohorts import ROOT
from gigaseg.segmenters.sac.checkpoint import open_sac
from gigaseg.segmenters.sac.segmenter import Sac
from gigaseg.train.data import load
from gigaseg.train.layouts import read_layout
from gigaseg.train.sac.evaluate import seen_as
from gigaseg.train.whole import segmentation_figures
from samples import write_random_sam
from training import discs

QUICK = [
    *("--steps=2", "--batch=1", "--crop=64", "--letterbox", "--rank=2", "--width=4", "--warmup=0", "--ema=0"),
    *("--precision=fp32", "--device=cpu", "--threads=1", "--workers=0"),
]


@pytest.fixture(scope="module")
def ablation():
    """The module benchmarks/sac_ablation.py, which is a script beside its page."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("sac_ablation")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture
def run(ablation, tmp_path):
    """Runs it on three images, of which two are measured; gives the page and what the JSON file holds."""
    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for seed in range(3):
        image, labels = discs(seed, side=64, count=3)
        Image.fromarray(image).save(tmp_path / "data" / "images" / f"s{seed}.png")
        Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "data" / "labels" / f"s{seed}.png")
    (tmp_path / "data" / "index.tsv").write_text("image\tsplit\ns0\ttrain\ns1\tval\ns2\tval\n")
    write_random_sam(tmp_path / "sam.safetensors")

    def run(*words):
        shared = ["--data", str(tmp_path / "data"), "--sam", str(tmp_path / "sam.safetensors")]
        places = ["--out", str(tmp_path / "work"), "--page", str(tmp_path / "page.md")]
        ablation.main([*shared, *places, *QUICK, *words])
        return (tmp_path / "page.md").read_text(), json.loads((tmp_path / "page.json").read_text())

    return run


def test_both_modes_fill_one_page_and_nothing_is_trained_twice(run, tmp_path):
    words = ("--points", "0", "1", "--seeds", "0", "1")
    page, kept = run(*words)
    names = {f"{setting} seed {seed}" for setting in ("0", "1 centroid", "1 random") for seed in (0, 1)}
    assert set(kept["training"]["rows"]) == names
    assert "## Trained with n points" in page
    assert "## One checkpoint" not in page
    assert "| *81.35 / 68.68 / 81.46, 10* |" in page

    # the figures are those of validation
    (folder,) = (tmp_path / "work").iterdir()
    best = folder / "1-centroid-seed-0" / "best.safetensors"
    loaded = open_sac(best)
    assert (loaded.config.pairs, loaded.config.rule, loaded.card["seed"]) == (1, "centroid", 0)
    samples = load(read_layout("plain", tmp_path / "data"))[1:]
    options, side = seen_as(loaded.card["training"])
    expected = segmentation_figures(Sac.of(loaded, options), samples, side=side)
    module = importlib.import_module("sac_ablation_page")
    dice, iou, pooled = module.figures(kept["training"]["rows"]["1 centroid seed 0"]["counts"])
    assert dice.mean() == pytest.approx(expected["pixel_dice"])
    assert iou.mean() == pytest.approx(expected["pixel_iou"])
    assert pooled == pytest.approx(expected["pooled_f1"])

    # again: the page is written anew from what is in the work folder; a setting that was lost is the same as before
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("best.safetensors")}
    (tmp_path / "page.json").unlink()
    (folder / "0-seed-1" / "result.json").unlink()
    (folder / "0-seed-1" / "best.safetensors").unlink()
    again = run(*words)[1]["training"]["rows"]
    changed = {path.parent.name for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {"0-seed-1"}
    assert not list(folder.rglob("state.pt"))
    for name, row in kept["training"]["rows"].items():
        assert (again[name]["counts"], again[name]["sha256"]) == (row["counts"], row["sha256"])

    # the other mode adds its section, n = 0 among its rows unasked
    none = folder / "0-seed-0" / "best.safetensors"
    page, kept = run("--evaluate", str(none), "--points", "3", "--rules", "random")
    assert set(kept["training"]["rows"]) == names
    assert set(kept["evaluation"]["rows"]) == {"0", "3 random"}
    counts = kept["evaluation"]["rows"]["0"]["counts"]
    assert counts == kept["training"]["rows"]["0 seed 0"]["counts"]
    assert "## Trained with n points" in page
    assert "## One checkpoint with n points" in page
    page, kept = run("--evaluate", str(none), "--points", "1")
    assert set(kept["evaluation"]["rows"]) == {"0", "1 centroid", "1 random", "3 random"}, "of the same checkpoint"
    page, kept = run("--evaluate", str(best), "--points", "1", "--part", "all")
    assert "data (`--layout plain`): 3 are measured (part all)." in page
    assert set(kept["evaluation"]["rows"]) == {"0", "1 centroid", "1 random"}, "others are of another checkpoint"
    assert set(kept["training"]["rows"]) == names
    counts = kept["evaluation"]["rows"]["1 centroid"]["counts"]
    assert counts[1:] == kept["training"]["rows"]["1 centroid seed 0"]["counts"]


def test_the_gain_is_that_of_the_same_images(ablation):
    module = importlib.import_module("sac_ablation_page")
    none = {"counts": [[10, 10, 10], [10, 0, 0]]}  # Dice 0.5 and 1
    some = {"counts": [[30, 10, 10], [10, 10, 10]]}  # Dice 0.75 and 0.5
    about = {
        "data": "d", "layout": "plain", "split": "own", "fold": None, "part": "val", "images": 2,
        "checkpoint": {"name": "c", "sha256": "0" * 64}, "precision": "fp32",
    }  # fmt: skip
    rows = {"0": none | {"machine": "m"}, "16 random": some | {"machine": "m"}, "3 random": some | {"machine": "m"}}
    page = module.page({"evaluation": {"about": about, "command": "c", "rows": rows}})
    assert "| 0 | – | 75.00 (50.00 to 100.00) | 66.67 (33.33 to 100.00) | 66.67 |  |" in page
    gain = "-12.50 (-50.00 to +25.00)"
    assert f"| 3 | random | 62.50 (50.00 to 75.00) | 46.67 (33.33 to 60.00) | 66.67 | {gain} |" in page
    assert page.index("| 3 | random") < page.index("| 16 | random")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--split=all"], "leaves no image for val"),
        (["--steps=0"], "--steps is 0, accepted"),
        (["--evaluate=nothing.safetensors"], "nothing.safetensors"),
        (["--part=all"], "--part is all, accepted with --evaluate"),
        (["--trained=decoder"], "--trained is decoder, accepted with --start"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(run, tmp_path, capsys, words, told):
    with pytest.raises(SystemExit):
        run(*words)
    assert told in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()
