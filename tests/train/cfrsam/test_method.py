"""The second stage is trained: it learns, goes on exactly, changes only what it should, and its checkpoint segments."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cfrsam_models import random_method, write_random_cfrsam
from gigaseg.cli import main
from gigaseg.errors import CheckpointError, ConfigError
from gigaseg.sam.checkpoints import read_checkpoint, read_state
from gigaseg.segmenters.cfrsam.checkpoint import open_adapted, open_cfrsam
from gigaseg.segmenters.cfrsam.segmenter import CfrSam
from gigaseg.train.cfrsam.evaluate import checkpoint_figures, middles_iou
from gigaseg.train.config import LoopConfig
from gigaseg.train.loop import run
from training import sample

LOOP = LoopConfig(
    steps=2, batch=1, rate=5e-3, warmup=2, beta2=0.95, ema=0.5, decay=0.0, precision="fp32", device="cpu", threads=1,
    workers=0, log_every=1, save_every=1000, validate_every=1000,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a SAM and a learner that have learnt nothing."""
    folder = tmp_path_factory.mktemp("cfrsam")
    random_method(folder)
    return folder


def batch_of(method, samples, seed=0):
    items = [method.prepare(s, np.random.default_rng([seed, i])) for i, s in enumerate(samples)]
    return method.collate(items, np.random.default_rng(seed))


def loss_of(method, samples, seed=0):
    torch.manual_seed(0)
    model = method.build().train()
    torch.manual_seed(1)
    return model, method.losses(model, batch_of(method, samples, seed), np.random.default_rng(0))


def empty(seed=0):
    some = sample(seed)
    return replace(some, labels=np.zeros_like(some.labels), diameter=float("nan"))


def test_all_losses_fall_on_discs(folder):
    method = random_method(folder, points=False, base="coarse")
    torch.manual_seed(0)
    model = method.build().train()
    optimiser = torch.optim.AdamW(method.groups(model), lr=1e-2)
    batch = batch_of(method, [sample(0)])
    curve = []
    for step in range(16):
        torch.manual_seed(step)
        losses = method.losses(model, batch, np.random.default_rng(0))
        losses["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        curve.append({name: float(value.detach()) for name, value in losses.items()})
    assert set(curve[0]) == {"loss", "focal", "dice", "quality", "boundary", "coarse"}
    for name, share in (("loss", 0.6), ("focal", 0.7), ("dice", 0.9), ("boundary", 0.9), ("coarse", 0.9)):
        assert curve[-1][name] < share * curve[0][name]


def test_the_loss_is_the_sum_by_its_weights(folder):
    method = random_method(folder, points=False, refinement="none", focal=3.0, dice=5.0, quality=7.0)
    _, found = loss_of(method, [sample(0)])
    parts = {name: float(value.detach()) for name, value in found.items()}
    assert parts["boundary"] == 0
    expected = 3 * parts["focal"] + 5 * parts["dice"] + 7 * parts["quality"]
    assert parts["loss"] == pytest.approx(expected, rel=1e-5)
    assert parts["coarse"] == parts["dice"]


DEAD = tuple(f"mask_decoder.output_hypernetworks_mlps.{i}." for i in (1, 2, 3))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kernels": "static", "fusion": "gated", "base": "coarse"},
        {"refinement": "mlp", "fusion": "concat", "window": 6},
        {"kernels": "none", "fusion": "last", "refinement": "none"},
        {"guidance": False, "enhancement": False},
    ],
    ids=["published", "ours", "mlp", "decoder alone", "bare"],
)
def test_only_what_should_trains_and_all_of_it_does(folder, tmp_path, changes):
    method = random_method(folder, told=0.0, **changes)
    model, losses = loss_of(method, [sample(0), sample(1)])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    listed = [p for group in method.groups(model) for p in group["params"]]
    assert len({id(p) for p in listed}) == len(listed) == len(trained)
    assert all(name.startswith(("cfrsam.", "mask_decoder.")) for name in trained)
    assert not any(name.startswith(DEAD) for name in trained)
    losses["loss"].backward()
    assert all(p.grad is None for name, p in model.named_parameters() if name not in trained)
    assert all(torch.isfinite(p.grad).all() for name, p in model.named_parameters() if p.grad is not None)
    # a key's bias is the same for all tokens of an attention: it leaves the softmax as it is
    missing = {name for name, p in model.named_parameters() if name in trained and p.grad is None}
    assert all(name.endswith("k_proj.bias") for name in missing)

    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.optim.AdamW(method.groups(model), lr=1e-2, weight_decay=0.0).step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= trained
    for part in {name.split(".")[1] for name in trained}:
        assert any(name.split(".")[1] == part for name in changed), part


def test_what_the_single_mask_does_not_need_is_as_large_as_published():
    from gigaseg.sam.config import CONFIGS
    from gigaseg.sam.model import build

    model = build(CONFIGS["vit_b"], "meta")
    assert sum(p.numel() for name, p in model.named_parameters() if name.startswith(DEAD)) == 419_424


def test_sam_and_learner_stay_as_they_are_and_the_checkpoint_segments(folder, tmp_path):
    method = random_method(folder, told=0.0)
    progress = run(method, LOOP, [sample(0)], [sample(1)], tmp_path)
    path = tmp_path / "best.safetensors"
    state, card = read_state(path)
    assert {name.split(".")[0] for name in state} == {"cfrsam", "points", "mask_decoder"}
    known = read_checkpoint(folder / "sam.safetensors")[1]
    other = {name for name, value in read_checkpoint(path)[1].items() if name in known and not known[name].equal(value)}
    assert other
    assert all(name.startswith("mask_decoder.") and not name.startswith(DEAD) for name in other)
    learner = read_state(folder / "points.safetensors")[0]
    for name, value in open_cfrsam(path).points.net.state_dict().items():
        assert torch.equal(value, learner[name].half().float() if value.numel() >= 4096 else learner[name])
    assert card["classes"] == ["round", "square"]
    assert card["threshold"] == 0.3
    assert card["method"] == "cfrsam"
    assert card["points_trained"] == [{}]
    # validation went through the segmenter, as --evaluate does
    assert {"aji", "f1_50", "pq", "pixel_dice", "score"} <= set(progress.figures)
    assert progress.figures["score"] == progress.figures["aji"]
    (row,) = checkpoint_figures(path, [sample(1)], "cpu", "fp32").rows
    assert row["pixel_dice"] == pytest.approx(progress.figures["pixel_dice"], abs=0.02)


def test_the_learner_s_points_prompt_and_objects_that_it_misses_do_not(folder, monkeypatch):
    import gigaseg.train.cfrsam.method as module

    seen = []
    real = module.point_sets
    monkeypatch.setattr(module, "point_sets", lambda image, xy: seen.append(xy + 0.5) or real(image, xy))
    monkeypatch.setattr(module, "told_points", lambda batch, _: torch.where(
        (torch.arange(len(batch.ids)) % 2 == 0)[:, None], batch.centres + 0.25, torch.nan))  # fmt: skip
    batch = batch_of(random_method(folder), [sample(0)])
    assert len(batch.ids) >= 2
    for told, expected in ((1.0, batch.centres[::2] + 0.25), (0.0, batch.centres)):
        method = random_method(folder, told=told, random=0.0)
        method.losses(method.build().train(), batch, np.random.default_rng(0))
        torch.testing.assert_close(seen.pop(), expected)


def test_the_learner_sees_what_sam_sees_in_evaluation_mode(folder):
    method = random_method(folder)
    model = method.build().train()
    before = {name: value.clone() for name, value in model.points.state_dict().items()}
    method.losses(model, batch_of(method, [sample(0)]), np.random.default_rng(0))
    assert not model.points.training
    assert all(torch.equal(value, before[name]) for name, value in model.points.state_dict().items())


@pytest.mark.parametrize(
    "changes", [{}, {"kernels": "none", "fusion": "last"}], ids=["published", "without what images alone would reach"]
)
def test_a_batch_without_objects_takes_its_step(folder, changes):
    for points in (False, True):
        method = random_method(folder, points, **changes)
        model, losses = loss_of(method, [empty()])
        losses["loss"].backward()
        assert float(losses["loss"].detach()) == 0
        assert set(losses) == {"loss", "focal", "dice", "quality", "boundary", "coarse"}
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_half_precision_trains_too(folder, tmp_path):
    method = random_method(folder, points=False)
    exact = loss_of(method, [sample(0)])[1]["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        model, losses = loss_of(method, [sample(0)])
    losses["loss"].backward()
    assert float(losses["loss"].detach()) == pytest.approx(float(exact.detach()), rel=0.05)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_stopped_run_goes_on_with_the_very_same_numbers(folder, tmp_path):
    method = random_method(folder, told=0.5)
    loop = replace(LOOP, steps=4, save_every=2, validate_every=4)
    train, val = [sample(0), sample(1)], []
    run(method, loop, train, val, tmp_path / "whole")
    run(method, loop, train, val, tmp_path / "killed", stop_after=3)
    run(method, loop, train, val, tmp_path / "killed")
    assert (tmp_path / "killed" / "train.csv").read_bytes() == (tmp_path / "whole" / "train.csv").read_bytes()
    one, two = (read_state(tmp_path / name / "best.safetensors")[0] for name in ("whole", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_it_goes_on_from_a_checkpoint_of_the_same_configuration(folder):
    start = write_random_cfrsam(folder, "start", about={"step": 3})
    method = random_method(folder, points=False, start=str(start))
    own, state = method.build().state_dict(), read_checkpoint(start)[1]
    assert all(torch.equal(value, state[name].to(value.dtype)) for name, value in own.items())
    assert not any(name.startswith("points.") for name in own), "the learner is the one of --points"
    assert [told["step"] for told in method.card()["before"]] == [3]
    for changes in ({"rank": 5}, {"fusion": "gated"}, {"base": "coarse"}, {"kernels": "static"}):
        with pytest.raises(CheckpointError, match=r"start\.safetensors: has {.*}, accepted: {.*}, as in the options"):
            random_method(folder, start=str(start), **changes)


def test_what_cannot_be_trained_is_told_before_it_begins(folder, tmp_path):
    for changes, message in (
        ({"crop": 60}, "--crop is 60, accepted with this SAM: multiples of 8"),
        ({"classes": ("a",)}, "--classes is a, accepted: those of .*points.safetensors, round square, or none"),
    ):
        with pytest.raises(ConfigError, match=message):
            random_method(folder, **changes)
    assert random_method(folder, points=False, classes=("a", "b")).card()["classes"] == ["a", "b"]
    assert random_method(folder, points=False).card()["classes"] == ["nucleus"]
    sam = str(folder / "sam.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no changes of this method over .*accepted: one that does"):
        random_method(folder, start=sam)
    changes = write_random_cfrsam(folder, "changes")
    with pytest.raises(CheckpointError, match="holds changes over another one; expected a whole checkpoint"):
        type(random_method(folder))(None, str(changes))
    with pytest.raises(
        CheckpointError, match="weights of a SAM model, expected those that `gigaseg train cfrsam-points"
    ):
        type(random_method(folder))(replace(random_method(folder).training, points=sam), sam)


def test_without_a_learner_masks_from_middles_are_measured(folder):
    method = random_method(folder, points=False)
    samples = [sample(0), sample(1), empty(2)]
    found = method.validate(method.build().eval(), samples)
    assert {"iou", "coarse_iou", "iou/a", "iou/b", "images", "score"} == set(found)
    assert found["score"] == found["iou"]
    assert found["images"] == 3
    path = write_random_cfrsam(folder, "coarse", points=False, base="coarse")
    adapted = open_adapted(path)
    with torch.no_grad():
        for p in adapted.added.refine.mask[-1].parameters():
            p.zero_()
    same = middles_iou(adapted, samples[:1], method.training)
    assert same["iou"] == same["coarse_iou"]
    assert middles_iou(adapted, samples[2:], method.training)["score"] == 0


def test_learning_rates_and_decay_are_those_of_their_groups(folder):
    method = random_method(folder, points=False, sam_scale=0.1, fusion="gated")
    model = method.build()
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {}
    for group in method.groups(model):
        for p in group["params"]:
            groups[names[id(p)]] = (group["scale"], group.get("weight_decay"))
    assert groups["cfrsam.mala.inner.0.down.weight"] == (1.0, None)
    assert groups["cfrsam.mala.inner.0.gamma"] == groups["cfrsam.fusion.scale"] == (1.0, 0.0)
    assert groups["mask_decoder.transformer.layers.0.mlp.lin1.weight"] == (0.1, None)
    assert groups["mask_decoder.iou_token.weight"][0] == 0.1


def test_the_command_trains_evaluates_and_tells_mistakes(folder, tmp_path, capsys):
    from PIL import Image

    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    rows, kinds = ["image\tmodality\tsplit"], ["image\tinstance\tclass"]
    for i, split in enumerate(("train", "val")):
        some = sample(i)
        Image.fromarray(some.image).save(tmp_path / "data" / "images" / f"s{i}.webp", lossless=True)
        Image.fromarray(some.labels.astype(np.uint16)).save(tmp_path / "data" / "labels" / f"s{i}.png")
        rows.append(f"s{i}\ta\t{split}")
        kinds += [f"s{i}\t{number}\tround" for number in np.unique(some.labels)[1:]]
    (tmp_path / "data" / "index.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "data" / "classes.tsv").write_text("\n".join(kinds) + "\n")
    out = tmp_path / "run"
    words = ["train", "cfrsam", "--data", str(tmp_path / "data"), "--sam", str(folder / "sam.safetensors"),
             "--out", str(out), "--steps=1", "--batch=1", "--crop=48", "--objects=2", "--rank=4", "--window=0",
             "--smallest=16", "--largest=22", "--device=cpu", "--threads=1", "--workers=0", "--precision=fp32",
             "--log-every=1"]  # fmt: skip
    assert main([*words, "--points", str(folder / "points.safetensors")]) == 0
    assert CfrSam.of(open_cfrsam(out / "best.safetensors")).card.classes == ("round", "square")
    assert main([*words, "--points", str(folder / "points.safetensors"), "--evaluate=val"]) == 0
    capsys.readouterr()
    assert main([*words, "--smallest=30"]) == 2
    assert "--smallest is 30, accepted: at most --largest (22)" in capsys.readouterr().err
