"""CenterSAM is trained: it learns, goes on exactly, changes only what it should, and its checkpoint segments."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gigaseg.errors import CheckpointError, ConfigError
from gigaseg.sam.checkpoints import read_checkpoint, read_state, write_state
from gigaseg.segmenters.centersam.checkpoint import open_centersam
from gigaseg.segmenters.centersam.segmenter import CenterSam
from gigaseg.segmenters.whole import segment_image
from gigaseg.train.centersam.config import CenterSamTraining
from gigaseg.train.centersam.evaluate import checkpoint_figures
from gigaseg.train.centersam.method import CenterSamMethod
from gigaseg.train.loop import run


@pytest.fixture
def training(still):
    return CenterSamTraining(width=24, crop=64, smallest=16, largest=22, window=6, size=1.0, colour=still)


def batch_of(method, samples, seed=0):
    items = [method.prepare(s, np.random.default_rng([seed, i])) for i, s in enumerate(samples)]
    return method.collate(items, np.random.default_rng(seed))


def test_a_detector_learns_to_find_what_its_frozen_sam_outlines(sam, discs_apart, training, loop, tmp_path):
    method = CenterSamMethod(training, str(sam))
    train, val = discs_apart
    torch.manual_seed(0)
    fresh = method.validate(method.build().eval(), val)
    progress = run(method, replace(loop, steps=70, batch=4, rate=1e-2), train, val, tmp_path)
    assert fresh["f1_50"] < 0.3
    assert progress.figures["f1_50"] > 0.8
    assert progress.figures["native_f1_50"] > 0.7
    assert progress.figures["score"] == progress.figures["pq"] == progress.best

    path = tmp_path / "best.safetensors"
    state, card = read_state(path)
    known, _ = read_state(sam)
    assert state
    assert all(name.startswith("detector.") for name in state)  # SAM is not stored again
    assert card["threshold"] == pytest.approx(progress.figures["threshold"])
    assert card["classes"] == ["nucleus"]
    assert card["base"]["name"].endswith("best.safetensors")

    rows = checkpoint_figures(path, val, "cpu", "fp32")  # what --evaluate val measures is what validation saw
    for name in ("pixel_dice", "f1_50", "aji", "pq", "native_f1_50", "native_pq"):
        assert np.mean([row[name] for row in rows]) == pytest.approx(progress.figures[name], abs=0.02)

    loaded = open_centersam(path)
    assert all(torch.equal(tensor, known[name].float()) for name, tensor in loaded.backend.model.state_dict().items())
    segmenter = CenterSam.of(loaded, {"window": 6})
    assert segmenter.threshold == card["threshold"]
    found = segment_image(segmenter, val[0].image, scale=20 / 18)
    for number in np.unique(val[0].labels)[1:]:
        truth = val[0].labels == number
        mask = found == np.bincount(found[truth]).argmax()
        assert (mask & truth).sum() / (mask | truth).sum() > 0.5


@pytest.mark.parametrize("finetune", ["none", "all"])
def test_a_stopped_run_goes_on_with_the_very_same_numbers(sam, discs_apart, training, loop, tmp_path, finetune):
    train, val = discs_apart
    method = CenterSamMethod(replace(training, finetune=finetune, native=False, clahe=finetune == "all"), str(sam))
    loop = replace(loop, steps=6, save_every=2, validate_every=3)
    run(method, loop, train, val[:1], tmp_path / "whole")
    run(method, loop, train, val[:1], tmp_path / "killed", stop_after=5)
    run(method, loop, train, val[:1], tmp_path / "killed")
    for name in ("train.csv", "validation.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    one, two = (read_state(tmp_path / name / "best.safetensors")[0] for name in ("whole", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("finetune", "changed"), [("decoder", {"mask_decoder"}), ("all", {"image_encoder", "mask_decoder"})]
)
def test_fine_tuning_changes_what_was_asked_for_and_no_more(
    sam, discs_apart, training, loop, tmp_path, finetune, changed
):
    train, val = discs_apart
    method = CenterSamMethod(replace(training, finetune=finetune, native=False), str(sam))
    run(method, replace(loop, steps=3), train, val[:1], tmp_path)
    state, _ = read_state(tmp_path / "best.safetensors")
    parts = {name.partition(".")[0] for name in state}
    assert parts == {"detector", *changed}
    assert open_centersam(tmp_path / "best.safetensors").detector.config == method.detector


def test_what_is_frozen_gets_no_gradient_and_no_place_in_the_optimiser(sam, discs_apart, training):
    method = CenterSamMethod(replace(training, detail=0), str(sam))
    model = method.build().train()
    losses = method.losses(model, batch_of(method, discs_apart[0][:3]), np.random.default_rng(0))
    losses["loss"].backward()
    given = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert given == {name for name, _ in model.named_parameters() if name.startswith("detector.")}
    assert set(losses) == {"loss", "heat", "size", "offset"}
    groups = method.groups(model)
    assert sum(len(group["params"]) for group in groups) == len(given)
    for group in groups:
        assert group["scale"] == 1
        assert all((p.ndim < 2) == (group.get("weight_decay") == 0) for p in group["params"])


def test_sam_is_tuned_at_its_own_rate(sam, discs_apart, training):
    method = CenterSamMethod(replace(training, finetune="all", finetune_scale=0.2, objects=2), str(sam))
    model = method.build().train()
    detector = {id(p) for p in model.detector.parameters()}
    for group in method.groups(model):
        own = {id(p) in detector for p in group["params"]}
        assert own == {group["scale"] == 1.0}
        assert group["scale"] in (1.0, 0.2)
    batch = batch_of(method, discs_apart[0][:3])
    losses = method.losses(model, batch, np.random.default_rng(0))
    losses["loss"].backward()
    assert losses["iou"] > 0.4  # what this SAM has learnt
    assert model.image_encoder.patch_embed.proj.weight.grad.abs().sum() > 0
    assert model.mask_decoder.iou_token.weight.grad is not None
    assert all(p.grad is None for p in model.prompt_encoder.parameters())


@pytest.mark.parametrize("kind", ["resnet18", "hourglass"])
def test_detectors_on_the_image_alone_train_too(sam, discs_apart, training, kind):
    small = {"dims": (8, 8), "counts": (1, 1), "stacks": 2} if kind == "hourglass" else {}
    method = CenterSamMethod(replace(training, detector=kind, box_losses="paper", **small), str(sam))
    model = method.build().train()
    losses = method.losses(model, batch_of(method, discs_apart[0][:2]), np.random.default_rng(0))
    losses["loss"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is not None for p in model.detector.parameters())
    assert method.card()["detector"]["kind"] == kind


def test_crops_without_objects_give_a_step(sam, discs_apart, training):
    sample = discs_apart[0][0]
    empty = replace(sample, labels=np.zeros_like(sample.labels), diameter=float("nan"))
    for finetune in ("none", "all"):
        method = CenterSamMethod(replace(training, finetune=finetune), str(sam))
        model = method.build().train()
        losses = method.losses(model, batch_of(method, [empty, empty]), np.random.default_rng(0))
        losses["loss"].backward()
        assert torch.isfinite(losses["loss"])
        assert losses["size"] == 0


def test_another_sam_does_not_go_on_with_the_state(sam, discs_apart, training, tmp_path):
    from gigaseg.sam.checkpoints import write_state

    state, card = read_state(sam)
    other = tmp_path / "other.safetensors"
    write_state(other, {name: 2 * tensor for name, tensor in state.items()}, card)
    one, two = (CenterSamMethod(training, str(path)).card() for path in (sam, other))
    assert {name for name in one if one[name] != two[name]} == {"sam_sha256"}


def test_what_cannot_be_trained_is_told_before_it_begins(sam, discs_apart, training, loop, tmp_path):
    with pytest.raises(ConfigError, match="--crop is 60, accepted with light and this SAM: multiples of 8"):
        CenterSamMethod(replace(training, crop=60), str(sam))
    with pytest.raises(ConfigError, match="--crop is 64, accepted with hourglass and this SAM: multiples of 128"):
        CenterSamMethod(replace(training, detector="hourglass"), str(sam))
    with pytest.raises(CheckpointError, match="nowhere"):
        CenterSamMethod(training, "nowhere.safetensors")
    run(CenterSamMethod(training, str(sam)), replace(loop, steps=1), discs_apart[0], [], tmp_path)
    with pytest.raises(CheckpointError, match="holds changes over another one; expected a whole checkpoint"):
        CenterSamMethod(training, str(tmp_path / "best.safetensors"))


def test_fewer_images_are_validated_where_wanted(sam, discs_apart, training):
    method = CenterSamMethod(replace(training, validated=2, native=False), str(sam))
    figures = method.validate(method.build(), discs_apart[1])
    assert figures["images"] == 2
    assert not any(name.startswith("native") for name in figures)


def test_windows_are_those_that_sam_was_trained_with_unless_others_are_wanted(sam, tmp_path):
    state, card = read_state(sam)
    windowed = tmp_path / "windowed.safetensors"
    write_state(windowed, state, {**card, "training": {"window": 7}})
    write_state(tmp_path / "plain.safetensors", state, {"config": card["config"]})
    for name, wanted, window in (("windowed", -1, 7), ("windowed", 0, 0), ("plain", -1, 0), ("plain", 5, 5)):
        method = CenterSamMethod(CenterSamTraining(window=wanted, crop=64), str(tmp_path / f"{name}.safetensors"))
        assert method.card()["training"]["window"] == window, "what the segmenter will use"


def test_training_goes_on_from_weights_and_their_card_is_kept(sam, discs_apart, training, loop, tmp_path):
    train, val = discs_apart
    first = CenterSamMethod(replace(training, finetune="decoder", native=False), str(sam))
    run(first, replace(loop, steps=2), train, val[:1], tmp_path, about={"data": "discs", "split": "own"})
    path = tmp_path / "best.safetensors"
    state = read_checkpoint(path)[1]

    same = CenterSamMethod(replace(training, start=str(path)), str(sam))
    built = same.build().state_dict()
    assert all(torch.equal(built[name].float(), value.float()) for name, value in state.items())
    (before,) = same.card()["before"]
    assert (before["data"], before["split"], before["step"]) == ("discs", "own", 2)

    wider = CenterSamMethod(replace(training, start=str(path), width=32), str(sam))
    built = wider.build().state_dict()
    sams = [name for name in state if not name.startswith("detector.")]
    assert all(torch.equal(built[name].float(), state[name].float()) for name in sams)
    assert built["detector.image.0.0.weight"].shape[0] == 32

    with pytest.raises(CheckpointError, match=r"holds no changes of this method over .*; accepted: one that does"):
        CenterSamMethod(replace(training, start=str(sam)), str(sam))


def test_detail_is_trained_through_the_masks_of_a_frozen_sam(sam, discs_apart, training):
    method = CenterSamMethod(replace(training, detail=8), str(sam))
    model = method.build().train()
    losses = method.losses(model, batch_of(method, discs_apart[0][:3]), np.random.default_rng(0))
    (gradient,) = torch.autograd.grad(losses["loss"], [model.detector.detail.last.weight])
    assert (gradient.abs().sum((1, 2, 3)) > 0).all(), "foreground and every channel of the detail"
    assert all(not p.requires_grad for name, p in model.named_parameters() if not name.startswith("detector."))
    assert losses["foreground"] == pytest.approx(0.6931, abs=1e-4), "fresh, it knows nothing"
    assert losses["iou"] > 0.4
