"""The ablation of CFR-SAM's parts on tiny images: what it trains, what it keeps, what it writes."""

import importlib
import json
from dataclasses import replace

import pytest
import torch

from cohorts import ROOT
from gigaseg.metrics.score import score_overlap
from gigaseg.sam.checkpoints import write_state
from gigaseg.segmenters.cfrsam.checkpoint import open_cfrsam
from gigaseg.segmenters.cfrsam.config import PointsConfig
from gigaseg.segmenters.cfrsam.points import build_points
from gigaseg.segmenters.cfrsam.segmenter import CfrSam
from gigaseg.train import loop
from gigaseg.train.data import load
from gigaseg.train.layouts import read_layout
from gigaseg.train.whole import overlap
from samples import write_random_sam
from training import write_discs

QUICK = [
    *("--batch=1", "--crop=64", "--rank=2", "--smallest=18", "--largest=18", "--warmup=0", "--ema=0"),
    *("--precision=fp32", "--device=cpu", "--threads=1", "--workers=0", "--seeds", "0"),
]


@pytest.fixture
def points(tmp_path):
    """A point learner that has learnt nothing, and sees objects in many places."""
    torch.manual_seed(0)
    config = PointsConfig(widths=(8, 8, 8, 8), channels=8, levels=2, spacing=16)
    net = build_points(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    path = tmp_path / "points.safetensors"
    write_state(path, net.state_dict(), {"method": "cfrsam-points", "points": config.as_dict(), "threshold": 0.05})
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs it on three images, of which two are measured; gives the page and what the JSON file holds."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    ablation = importlib.import_module("cfrsam_ablation")
    write_discs(tmp_path / "data")
    write_random_sam(tmp_path / "sam.safetensors")

    def run(*words):
        shared = ["--data", str(tmp_path / "data"), "--sam", str(tmp_path / "sam.safetensors")]
        places = ["--out", str(tmp_path / "work"), "--page", str(tmp_path / "page" / "page.md")]
        ablation.main([*shared, *places, *QUICK, *words])
        page = tmp_path / "page" / "page.md"
        return page.read_text(), json.loads(page.with_suffix(".json").read_text())

    return run


def _lines(page):
    return {line.split(" | ")[0].strip("| "): line for line in page.splitlines() if line.startswith("| ")}


def test_one_command_gives_every_row_of_table_7(run):
    page, kept = run("--steps=1")
    module = importlib.import_module("cfrsam_ablation")
    names = list(module.ROWS)
    assert [name.rpartition(" seed ")[0] for name in kept["rows"]] == names
    lines = _lines(page)
    assert set(names) <= set(lines)
    assert "| 50.46 / 69.12 / 8.3 M |" in lines["CFR-SAM"]
    trained = {name.rpartition(" seed ")[0]: row["trained"] for name, row in kept["rows"].items()}
    whole = trained["CFR-SAM"]
    assert min(trained, key=trained.get) == "head only"
    for name in ("w/o MALA", "w/o HMFM", "w/o BGMR", "w/o MCBE"):
        assert trained["head only"] < trained[name] < whole
    assert trained["w/o HMFM"] == trained["add"] == trained["average"] < trained["concat"] < whole
    assert trained["w/o boundary loss"] == whole
    # without points only masks from the middles are measured
    assert all(len(row["images"]) == 2 and row["images"][0][1:] == [None] * 3 for row in kept["rows"].values())
    assert all(0 <= row["images"][0][0] <= 1 for row in kept["rows"].values())
    assert "| trained | seeds | IoU from middles | Δ IoU from middles | paper" in page
    assert "whole images are not measured" in page
    assert "1 steps of 1 crops" in page


def test_more_rows_are_other_ranks_numbers_of_objects_and_our_own(run, tmp_path):
    module = importlib.import_module("cfrsam_ablation")
    assert set(module.PAPER) == {*module.ROWS, *(name for name in module.MORE if "ours" not in name)}
    sizes = []
    for changes in ({"rank": 2}, *module.MORE.values()):
        training = replace(module.CfrSamTraining(crop=64, rank=2), **changes)
        model = module.build(training, str(tmp_path / "sam.safetensors")).build()
        sizes.append(sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad))
    whole, *ranks = sizes[:4]
    assert [whole, *ranks] == sorted({whole, *ranks})
    assert sizes[4:7] == [whole] * 3
    assert sizes[7] - whole == 4 * 32, "a weight for each level and channel"
    assert sizes[8] == whole


def test_with_points_an_interrupted_run_goes_on_and_nothing_is_trained_twice(
    run, points, tmp_path, monkeypatch, caplog
):
    words = ("--steps=2", "--points", str(points), "--rows", "head only", "CFR-SAM", "w/o BGMR")
    whole, trained = loop.run, []

    def interrupted(method, *rest):
        trained.append(method)
        if len(trained) == 2:
            whole(method, *rest, stop_after=1)
            (folder,) = (path.parent for path in (tmp_path / "work").rglob("state.pt"))
            assert not (folder / "best.safetensors").exists()
            raise KeyboardInterrupt
        return whole(method, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(*words, "--save-every=1")
    (first,) = (tmp_path / "work").rglob("best.safetensors")
    written = first.stat().st_mtime_ns
    with caplog.at_level("INFO"):
        page, kept = run(*words)
    assert "going on after step 1 of 2" in caplog.text
    assert first.stat().st_mtime_ns == written
    assert list(kept["rows"]) == ["head only seed 0", "CFR-SAM seed 0", "w/o BGMR seed 0"]
    assert not list((tmp_path / "work").rglob("state.pt"))
    assert "| object Dice | AJI | Δ AJI | PQ |" in page
    assert f"by the points of {points.name}" in page

    # the figures are those of validation
    samples = load(read_layout("plain", tmp_path / "data"))[1:]
    segmenter = CfrSam.of(open_cfrsam(first, precision="fp32"))
    scores = [score_overlap(overlap(segmenter, sample, None), (0.5,)) for sample in samples]
    images = kept["rows"]["head only seed 0"]["images"]
    assert [image[1:] for image in images] == [
        [score[name] for name in ("object_dice", "aji", "pq")] for score in scores
    ]
    assert any(image[2] > 0 for image in images), "the points lie on some object"

    # another point learner is another table
    net, card = points.read_bytes(), kept["about"]["points"]
    points.write_bytes(net[:-1] + bytes([net[-1] ^ 1]))
    other = run(*words[:3], "--rows", "head only")[1]
    assert other["about"]["points"]["sha256"] != card["sha256"]
    assert list(other["rows"]) == ["head only seed 0"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rows", "w/o MALLA"], "unknown row 'w/o MALLA'; accepted: head only, CFR-SAM, w/o MALA,"),
        (["--points=nothing.safetensors"], "nothing.safetensors"),
        (["--split=all"], "leaves no image"),
        (["--groups", "purple"], "--groups is purple, but"),
        (["--steps=0"], "--steps is 0, accepted"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_nothing_is_written(run, tmp_path, capsys, words, told):
    with pytest.raises(SystemExit):
        run(*words)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert told in line
    assert not (tmp_path / "page").exists()
    assert not (tmp_path / "work").exists()


def test_what_trained_nothing_to_prompt_with_is_refused(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("--points", str(tmp_path / "sam.safetensors"))
    assert "expected those that `gigaseg train cfrsam-points` writes" in capsys.readouterr().err
