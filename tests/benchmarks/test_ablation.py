"""What the ablations of methods share, on the rows that are kept in the repository."""

import importlib
import json
import shlex

import pytest

from cohorts import ROOT
from gigaseg.options import from_options
from gigaseg.train.config import LoopConfig

RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def shared(monkeypatch):
    """The module benchmarks/ablation.py."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("ablation")


@pytest.fixture
def table(shared):
    """DenseSAM's."""
    return importlib.import_module("densesam_ablation").ABLATION


@pytest.fixture
def kept():
    return json.loads((RESULTS / "densesam_ablation.json").read_text(encoding="utf-8"))


def test_the_kept_rows_give_the_kept_page(shared, table, kept):
    rows = shared.read_kept(table, RESULTS / "densesam_ablation.json", kept["about"])
    assert rows == kept["rows"]
    page = shared.page(table, kept["about"], kept["command"], rows)
    assert page == (RESULTS / "densesam_ablation.md").read_text(encoding="utf-8")


def test_the_kept_command_means_the_kept_table(shared, table, kept):
    args = shared.parser(table).parse_args(shlex.split(kept["command"])[2:])
    found = shared.settings(table, from_options(LoopConfig, args), from_options(table.training, args))
    assert found == {name: kept["about"][name] for name in ("loop", "training")}
    assert not shared.read_kept(table, RESULTS / "densesam_ablation.json", {**kept["about"], "data": "another"})


def test_seeds_are_told_and_empty_figures_are_left_out(shared, table, kept):
    rows = {name: {**row, "images": [[None, 0.5, None], [None, 0.7, None]]} for name, row in kept["rows"].items()}
    rows["DenseSAM seed 1"] = {**rows["DenseSAM seed 0"], "images": [[None, 0.9, None], [None, None, None]]}
    page = shared.page(table, kept["about"], "", rows)
    assert "| | trained | seeds | AJI | Δ AJI | paper: Dice / AJI / PQ |" in page
    assert "| DenseSAM | 237,472 | 2 | 70.0 (" in page
    assert "AJI by seed: SAM decoder retrained 60.0; DenseSAM 60.0, 90.0; − local 60.0; " in page


def test_rows_are_chosen_by_name_in_the_order_of_the_table(shared, table):
    assert list(shared.chosen(table, None, False)) == list(table.rows)
    assert list(shared.chosen(table, None, True)) == [*table.rows, *table.more]
    names = ["DenseSAM, injected at the end", "DenseSAM"]
    assert list(shared.chosen(table, names, False)) == names[::-1]
