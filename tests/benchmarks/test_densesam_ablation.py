"""The ablation of DenseSAM's parts on tiny images: what it trains, what it keeps, what it writes."""

import importlib
import json

import pytest

from cohorts import ROOT
from samples import write_random_sam
from training import write_discs

QUICK = [
    *("--steps=2", "--batch=1", "--crop=64", "--views=fixed", "--smallest=18", "--largest=18", "--points=100"),
    *("--warmup=0", "--ema=0", "--precision=fp32", "--device=cpu", "--threads=1", "--workers=0", "--seeds", "0"),
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs it on three images, of which two are measured; gives the page and what the JSON file holds."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    ablation = importlib.import_module("densesam_ablation")
    write_discs(tmp_path / "data")
    write_random_sam(tmp_path / "sam.safetensors")

    def run(*words):
        shared = ["--data", str(tmp_path / "data"), "--sam", str(tmp_path / "sam.safetensors")]
        places = ["--out", str(tmp_path / "work"), "--page", str(tmp_path / "page.md")]
        ablation.main([*shared, *places, *QUICK, "--cache", str(tmp_path / "cache"), *words])
        return (tmp_path / "page.md").read_text(), json.loads((tmp_path / "page.json").read_text())

    return run


def test_one_command_gives_table_3_and_nothing_is_trained_twice(run, tmp_path):
    page, kept = run()
    rows = kept["rows"]
    order = ["SAM decoder retrained", "DenseSAM", "− local", "− global", "− dual head"]
    assert [name.rpartition(" seed ")[0] for name in rows] == order
    trained = [row["trained"] for row in rows.values()]
    assert trained[1] > trained[2] > trained[3] > trained[4]
    assert all(len(row["images"]) == 2 and row["steps"] == 2 for row in rows.values())
    table = {line.split(" | ")[0].strip("| "): line for line in page.splitlines() if line.startswith("| ")}
    assert "84.01 / 71.62 / 66.12" in table["DenseSAM"]
    assert f"{trained[0]:,}" in table["SAM decoder retrained"]

    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("best.safetensors")}
    assert len(weights) == 5
    again, _ = run("--more")
    assert all(path.stat().st_mtime_ns == time for path, time in weights.items())
    assert "DenseSAM, injected at the end" in again
    assert len(list((tmp_path / "work").rglob("best.safetensors"))) == 8


def test_another_budget_is_another_table(run):
    run()
    _, kept = run("--steps=1")
    assert {row["steps"] for row in kept["rows"].values()} == {1}
