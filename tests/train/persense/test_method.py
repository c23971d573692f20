"""The density regressor is trained: it learns, goes on exactly, and its checkpoint counts."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from gigaseg.cli import main
from gigaseg.errors import CheckpointError, ConfigError
from gigaseg.sam.checkpoints import read_checkpoint, read_state
from gigaseg.segmenters.persense.base import Exemplar, Scene
from gigaseg.segmenters.persense.checkpoint import open_persense
from gigaseg.segmenters.persense.regressed import RegressedDensity
from gigaseg.train.loop import run
from gigaseg.train.persense.config import PersenseTraining
from gigaseg.train.persense.evaluate import checkpoint_figures
from gigaseg.train.persense.method import PersenseMethod
from samples import write_random_sam


@pytest.fixture
def raw(tmp_path):
    write_random_sam(tmp_path / "raw.safetensors")
    return str(tmp_path / "raw.safetensors")


@pytest.fixture
def training(still):
    return PersenseTraining(width=8, levels=2, norm="batch", crop=64, smallest=16, largest=24, thinned=0, colour=still)


def test_it_learns_to_count_discs_and_its_checkpoint_counts_them_at_any_scale(
    raw, discs_apart, training, loop, tmp_path
):
    train, val = discs_apart
    method = PersenseMethod(training, raw)
    progress = run(method, replace(loop, steps=120, batch=4), train, val, tmp_path / "run")
    assert progress.figures["f1"] == progress.best > 0.95
    assert progress.figures["count_error"] < 0.25
    with (tmp_path / "run" / "train.csv").open() as file:
        loss = [float(row["loss"]) for row in csv.DictReader(file)]
    assert np.mean(loss[-5:]) < 0.3 * np.mean(loss[:5])

    path = tmp_path / "run" / "best.safetensors"
    state, card = read_state(path)
    assert {name.split(".")[0] for name in state} == {"density"}  # nothing of SAM's
    assert card["base"]["name"].endswith("raw.safetensors")
    assert card["classes"] == ["nucleus"]
    merged = read_checkpoint(path)[1]
    assert all(torch.equal(merged[name], tensor) for name, tensor in read_state(raw)[0].items())

    measured = checkpoint_figures(path, val, "cpu", "fp32")  # what --evaluate measures is what validation saw
    assert np.mean([row["f1"] for row in measured.rows]) == pytest.approx(progress.figures["f1"], abs=0.02)
    median = measured.figures["median_count_error"]
    assert (median.value, median.images) == (pytest.approx(progress.figures["count_error"], abs=0.02), len(val))

    density = RegressedDensity.of(open_persense(path))
    for scale in (1, 3):
        rgb = val[0].image.repeat(scale, 0).repeat(scale, 1)
        y, x = np.nonzero((val[0].labels == 1).repeat(scale, 0).repeat(scale, 1))
        scene = Scene(rgb)
        box = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float64)
        found = density.density(scene, [Exemplar(scene, box, area=float(len(x)))])
        assert found.count == pytest.approx(len(np.unique(val[0].labels)) - 1, abs=0.8)


def test_a_stopped_run_goes_on_with_the_very_same_numbers(raw, discs_apart, training, loop, tmp_path):
    train, val = discs_apart
    method = PersenseMethod(replace(training, thinned=0.5), raw)
    loop = replace(loop, steps=6, save_every=2, validate_every=3)
    run(method, loop, train, val[:1], tmp_path / "whole")
    run(method, loop, train, val[:1], tmp_path / "killed", stop_after=5)
    run(method, loop, train, val[:1], tmp_path / "killed")
    for name in ("train.csv", "validation.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_it_goes_on_from_a_checkpoint_of_the_same_sizes(raw, discs_apart, training, loop, tmp_path):
    run(PersenseMethod(training, raw), replace(loop, steps=2), discs_apart[0], [], tmp_path / "first")
    start = str(tmp_path / "first" / "best.safetensors")
    method = PersenseMethod(replace(training, start=start), raw)
    known = read_state(start)[0]
    for name, value in method.build().state_dict().items():
        assert torch.equal(value, known[f"density.{name}"].float()), name
    assert [told["step"] for told in method.card()["before"]] == [2]
    with pytest.raises(CheckpointError, match="has width 8, which is 4 here; accepted: the same sizes"):
        PersenseMethod(replace(training, width=4, start=start), raw)
    with pytest.raises(CheckpointError, match="holds no changes of this method over"):
        PersenseMethod(replace(training, start=raw), raw)


def test_a_perfect_map_costs_nothing_and_a_wrong_count_does(raw, discs_apart, training):
    method = PersenseMethod(training, raw)
    items = [method.prepare(sample, np.random.default_rng(0)) for sample in discs_apart[0][:3]]
    batch = method.collate(items, np.random.default_rng(0))

    class Fixed(torch.nn.Module):
        unit = method.build().unit

        def __init__(self, gain):
            super().__init__()
            self.gain = gain

        def forward(self, images):
            from gigaseg.train.persense.targets import density_targets

            truth = density_targets(batch.centres / 2, batch.image, (3, 32, 32), training.sigma / 2)
            return self.gain * truth / self.unit

    perfect, double = (method.losses(Fixed(gain), batch, np.random.default_rng(0)) for gain in (1.0, 2.0))
    assert float(perfect["loss"]) == pytest.approx(0, abs=1e-6)
    number = np.bincount(batch.image.numpy(), minlength=3)
    assert float(double["count_error"]) == pytest.approx(np.mean(number / (number + 1)), rel=1e-4)
    assert float(double["loss"]) > 0.001


def test_images_without_objects_give_a_step(raw, discs_apart, training):
    sample = discs_apart[0][0]
    empty = replace(sample, labels=np.zeros_like(sample.labels), diameter=float("nan"))
    method = PersenseMethod(replace(training, thinned=0.5), raw)
    items = [method.prepare(empty, np.random.default_rng(0))] * 2
    model = method.build().train()
    losses = method.losses(model, method.collate(items, np.random.default_rng(0)), np.random.default_rng(0))
    losses["loss"].backward()
    assert 0 < float(losses["loss"].detach()) < 1
    assert float(losses["count_error"]) > 0


def test_what_cannot_be_trained_is_told_before_it_begins(raw, training):
    for changes, message in (
        ({"crop": 68}, "--crop is 68, accepted with --levels and --reduction: multiples of 8"),
        ({"classes": ("a", "b")}, "--classes is a b, accepted: one name"),
    ):
        with pytest.raises(ConfigError, match=message):
            PersenseMethod(replace(training, **changes), raw)


def test_the_command_trains_and_evaluates(raw, folder, tmp_path):
    line = ["train", "persense", "--data", str(folder), "--sam", raw, "--out", str(tmp_path / "run"), "--steps", "2"]
    line += ["--batch", "2", "--width", "4", "--levels", "1", "--crop", "32", "--precision", "fp32", "--device", "cpu"]
    assert main(line) == 0
    card = read_state(tmp_path / "run" / "best.safetensors")[1]
    assert (card["method"], card["step"], card["images"]["train"]) == ("persense", 2, 3)
    assert {"f1", "count_error", "f1/a", "score"} <= card["figures"].keys()
    assert main([*line, "--evaluate", "val"]) == 0
    assert "median_count_error" in (tmp_path / "run" / "val.json").read_text()
    assert len((tmp_path / "run" / "val.tsv").read_text().splitlines()) == 3
    assert main([*line[:-6], "--crop", "33"]) == 2
