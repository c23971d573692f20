"""The loop: exact resume, schedule, averages, early stop, several processes, and what it writes."""

import csv
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gigaseg.errors import FormatError
from gigaseg.sam.config import SamConfig
from gigaseg.train.config import LoopConfig, SamTraining
from gigaseg.train.loop import run
from gigaseg.train.sam import SamMethod
from gigaseg.train.schedule import factor
from gigaseg.train.state import Average
from training import Foreground

LOOP = LoopConfig(
    steps=8,
    batch=2,
    warmup=3,
    precision="fp32",
    device="cpu",
    threads=1,
    workers=0,
    log_every=1,
    save_every=2,
    validate_every=4,
)
TINY = SamConfig("tiny", 64, 8, 32, 2, 2, 4, (1,), 2.0, 32, decoder_heads=2, decoder_mlp=32, iou_hidden=16)


def rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def weights(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["gigaseg"])  # noqa: SIM118


@pytest.mark.parametrize(("workers", "optimiser"), [(0, "adamw"), (2, "muon")])
def test_a_stopped_run_goes_on_with_the_very_same_numbers(samples, tmp_path, workers, optimiser):
    method = SamMethod(TINY, SamTraining(crop=64, objects=4, smallest=12, largest=20, window=6, corrected=0.7))
    loop = replace(LOOP, workers=workers, accumulate=2, optimiser=optimiser)
    run(method, loop, samples[:3], samples[3:], tmp_path / "whole")
    # the kill comes a step after the last saved state: that step is logged, but will be done again
    run(method, loop, samples[:3], samples[3:], tmp_path / "killed", stop_after=5)
    assert len(rows(tmp_path / "killed" / "train.csv")) == 5
    run(method, loop, samples[:3], samples[3:], tmp_path / "killed")
    for name in ("train.csv", "validation.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    (one, card), (two, _) = (weights(tmp_path / name / "best.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert card["config"] == TINY.as_dict()
    assert not any(name.startswith("auxiliary") for name in one)
    assert len(rows(tmp_path / "whole" / "train.csv")) == 8


def test_a_row_of_the_log_that_a_stop_has_cut_is_finished(samples, tmp_path):
    loop = replace(LOOP, log_every=4, save_every=3)
    run(Foreground(), loop, samples, [], tmp_path / "whole")
    run(Foreground(), loop, samples, [], tmp_path / "stopped", stop_after=3)
    run(Foreground(), loop, samples, [], tmp_path / "stopped")
    assert (tmp_path / "stopped" / "train.csv").read_bytes() == (tmp_path / "whole" / "train.csv").read_bytes()


def test_another_configuration_does_not_go_on_with_the_state(samples, tmp_path):
    run(Foreground(), LOOP, samples, [], tmp_path, stop_after=2)
    with pytest.raises(FormatError, match=r"state\.pt: made with another configuration or data set"):
        run(Foreground(), replace(LOOP, rate=1e-3), samples, [], tmp_path)
    with pytest.raises(FormatError, match="another configuration"):
        run(Foreground(), LOOP, samples[1:], [], tmp_path)
    progress = run(Foreground(), replace(LOOP, threads=1, save_every=1), samples, [], tmp_path)
    assert progress.step == 8


def test_a_damaged_state_is_told_in_one_line(samples, tmp_path):
    run(Foreground(), LOOP, samples, [], tmp_path, stop_after=2)
    path = tmp_path / "state.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match=r"state\.pt: cannot be read as a training state"):
        run(Foreground(), LOOP, samples, [], tmp_path)


def test_the_rate_warms_up_and_falls_as_half_a_cosine(samples, tmp_path):
    run(Foreground(), LOOP, samples, [], tmp_path)
    found = [float(row["rate"]) for row in rows(tmp_path / "train.csv")]
    for step, rate in enumerate(found):
        cosine = LOOP.last_rate + (1 - LOOP.last_rate) * 0.5 * (1 + math.cos(math.pi * step / 8))
        assert rate == pytest.approx(LOOP.rate * min(1, (step + 1) / 3) * cosine)


def test_a_method_with_drops_has_its_rate_fall_to_a_tenth_at_each(samples, tmp_path):
    method = Foreground()
    method.drops = (0.5, 0.75)
    run(method, replace(LOOP, warmup=0), samples, [], tmp_path)
    found = [float(row["rate"]) / LOOP.rate for row in rows(tmp_path / "train.csv")]
    assert found == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_an_exponential_rate_rises_and_falls_by_epochs(samples, tmp_path):
    """The published factors of DenseSAM's epochs 0 to 6, here of two steps each."""
    loop = replace(LOOP, schedule="exponential", epoch=2, falloff=0.95, warmup=10, steps=14, validate_every=14)
    run(Foreground(), loop, samples, [], tmp_path)
    found = [float(row["rate"]) / LOOP.rate for row in rows(tmp_path / "train.csv")]
    assert found[::2] == found[1::2] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.95, 0.9025])


@pytest.mark.parametrize(
    ("warmup", "expected"), [(0, [1, 0.5, 0.25]), (3, [1, 0.5, 0.25]), (4, [1, 0.5, 0.25]), (5, [0.5, 1, 0.5])]
)
def test_the_warm_up_of_an_exponential_rate_takes_whole_epochs(warmup, expected):
    config = LoopConfig(schedule="exponential", epoch=4, falloff=0.5, warmup=warmup)
    assert [factor(config, step, step / 12) for step in (0, 4, 8)] == expected
    assert [factor(config, step, step / 12) for step in (3, 7, 11)] == expected


def test_a_budget_of_time_ends_the_schedule(samples, tmp_path):
    progress = run(Foreground(), replace(LOOP, steps=10**6, minutes=0.02), samples, [], tmp_path)
    assert 1.2 <= progress.seconds < 5
    assert progress.step < 10**6


def test_training_stops_when_the_score_no_longer_rises_and_keeps_the_best(samples, tmp_path):
    method = Foreground(scores=[0.5, 0.7, 0.6, 0.65, 0.1])
    loop = replace(LOOP, steps=100, validate_every=2, patience=2)
    progress = run(method, loop, samples, samples[:1], tmp_path)
    assert (progress.step, progress.best, progress.best_step) == (8, 0.7, 4)
    _, card = weights(tmp_path / "best.safetensors")
    assert card["step"] == 4
    assert card["figures"] == {"score": 0.7}
    assert run(method, loop, samples, samples[:1], tmp_path).step == 8  # it stays stopped


def test_training_does_not_stop_early_before_the_step_that_it_is_told(samples, tmp_path):
    method = Foreground(scores=[0.5, 0.7, 0.6, 0.65, 0.1, 0.2])
    loop = replace(LOOP, steps=100, validate_every=2, patience=2, patience_after=11)
    progress = run(method, loop, samples, samples[:1], tmp_path)
    assert (progress.step, progress.best, progress.best_step) == (12, 0.7, 4)


def test_the_card_says_what_the_weights_are_made_of(samples, tmp_path):
    about = {"data": "discs", "licence": "CC0-1.0", "split": "own"}
    run(Foreground(), LOOP, samples, samples[:1], tmp_path, about=about)
    found, card = weights(tmp_path / "best.safetensors")
    assert about.items() <= card.items()
    assert {"method", "seed", "step", "figures", "package", "commit", "loop", "minutes"} <= card.keys()
    assert found["weight"].shape == (1, 3, 3, 3)


def test_the_average_follows_its_formula():
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0)
    average = Average(model, 0.5)
    for step, value in ((1, 1.0), (2, 2.0)):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(model, step)
    first = 1 - 2 / 11
    second = 2 - (2 - first) * 3 / 12
    assert average.values["weight"].item() == pytest.approx(second)


def test_accumulated_micro_batches_are_one_larger_batch(samples, tmp_path):
    run(Foreground(), replace(LOOP, batch=4), samples, [], tmp_path / "one")
    run(Foreground(), replace(LOOP, batch=2, accumulate=2), samples, [], tmp_path / "two")
    one, two = (rows(tmp_path / name / "train.csv") for name in ("one", "two"))
    assert [float(r["loss"]) for r in two] == pytest.approx([float(r["loss"]) for r in one], rel=1e-5)


SCRIPT = """
import sys
from pathlib import Path
from training import Foreground, sample
from gigaseg.train.config import LoopConfig
from gigaseg.train.loop import run
loop = LoopConfig(steps=6, batch=int(sys.argv[2]), warmup=3, precision="fp32", device="cpu", threads=1, workers=0,
                  log_every=1, save_every=3, validate_every=3)
run(Foreground(), loop, [sample(seed) for seed in range(5)], [sample(9)], Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_does_from_the_same_batch(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for words in (
        [*torchrun, str(script), str(tmp_path / "two"), "2"],
        [sys.executable, script, tmp_path / "one", "4"],
    ):
        subprocess.run([str(word) for word in words], check=True, env=environment, capture_output=True, timeout=300)
    one, two = (rows(tmp_path / name / "train.csv") for name in ("one", "two"))
    for name in ("loss", "gradient"):
        assert [float(r[name]) for r in two] == pytest.approx([float(r[name]) for r in one], rel=1e-4)
    (first, _), (second, _) = (weights(tmp_path / name / "best.safetensors") for name in ("one", "two"))
    assert torch.allclose(first["weight"].float(), second["weight"].float(), atol=1e-3)
