"""DenseSAM is trained: it learns, goes on exactly, changes only what it should, and its checkpoint segments."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gigaseg.errors import CheckpointError, ConfigError
from gigaseg.sam.checkpoints import read_checkpoint, read_state, write_state
from gigaseg.sam.config import SamConfig
from gigaseg.sam.encoder import encode
from gigaseg.sam.model import build
from gigaseg.segmenters.densesam.checkpoint import open_densesam
from gigaseg.segmenters.densesam.segmenter import DenseSam
from gigaseg.segmenters.whole import segment_image
from gigaseg.train.densesam.config import DenseSamTraining
from gigaseg.train.densesam.evaluate import checkpoint_figures
from gigaseg.train.densesam.method import DenseSamMethod, grid
from gigaseg.train.loop import run


@pytest.fixture
def training(still):
    return DenseSamTraining(crop=64, smallest=16, largest=22, points=1000, inner_idx=(0, 1), colour=still)


@pytest.fixture
def raw(sam, tmp_path):
    """A SAM of the same sizes that has learnt nothing."""
    config = read_state(sam)[1]["config"]
    torch.manual_seed(3)
    write_state(tmp_path / "raw.safetensors", build(SamConfig.from_dict(config)).state_dict(), {"config": config})
    return tmp_path / "raw.safetensors"


def batch_of(method, samples, seed=0):
    items = [method.prepare(s, np.random.default_rng([seed, i])) for i, s in enumerate(samples)]
    return method.collate(items, np.random.default_rng(seed))


def loss_of(method, samples):
    torch.manual_seed(0)
    model = method.build().train()
    torch.manual_seed(1)
    return model, method.losses(model, batch_of(method, samples), np.random.default_rng(0))


def test_it_learns_objects_and_boundaries_and_its_checkpoint_segments(raw, discs_apart, training, loop, tmp_path):
    method = DenseSamMethod(training, str(raw))
    train, val = discs_apart
    torch.manual_seed(0)
    fresh = method.validate(method.build().eval(), val)
    progress = run(method, replace(loop, steps=120, batch=4, decay=0.0), train, val, tmp_path)
    assert fresh["pixel_dice"] < 0.6
    assert progress.figures["pixel_dice"] > 0.85
    assert progress.figures["f1_50"] > 0.9
    assert progress.figures["score"] == progress.figures["aji"] == progress.best

    path = tmp_path / "best.safetensors"
    state, card = read_state(path)
    assert all(name.startswith("densesam.") for name in state)
    assert "densesam.iou_token" in state
    assert card["base"]["name"].endswith("raw.safetensors")
    assert card["densesam"]["inner_idx"] == [0, 1]

    rows = checkpoint_figures(path, val, "cpu", "fp32")  # what --evaluate val measures is what validation saw
    for name in ("pixel_dice", "pixel_iou", "f1_50", "aji", "pq"):
        assert np.mean([row[name] for row in rows]) == pytest.approx(progress.figures[name], abs=0.02)
    assert "paper_aji" in rows[0]

    found = segment_image(DenseSam.of(open_densesam(path)), val[0].image, scale=26 / 18)
    for number in np.unique(val[0].labels)[1:]:
        truth = val[0].labels == number
        mask = found == np.bincount(found[truth]).argmax()
        assert (mask & truth).sum() / (mask | truth).sum() > 0.6


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"heads": 1, "image_token_update": True, "site": "after"},
        {"trained": "decoder", "iou_token": "random"},
        {"trained": "all"},
    ],
    ids=["published", "semantic", "decoder too", "all"],
)
def test_only_the_listed_tensors_train_and_each_of_them_does(sam, discs_apart, training, loop, tmp_path, changes):
    method = DenseSamMethod(replace(training, **changes), str(sam))
    model, losses = loss_of(method, discs_apart[0][:3])
    losses["loss"].backward()
    expected = {name for name, _ in model.named_parameters() if name.startswith("densesam.")}
    more = changes.get("trained")
    if more:
        parts = ("mask_decoder.transformer.", "mask_decoder.output_upscaling.")
        parts += ("image_encoder.",) if more == "all" else ()
        unused = "cross_attn_image_to_token"  # without the update of image tokens
        expected |= {name for name, _ in model.named_parameters() if name.startswith(parts) and unused not in name}
    else:
        expected.remove("densesam.iou_token")
    # a key's bias is the same for all tokens of an attention: it leaves the softmax as it is
    expected = {name for name in expected if not name.endswith("k_proj.bias")}
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 1e-9}
    assert {name for name in reached if not name.endswith("k_proj.bias")} == expected

    run(method, replace(loop, steps=2), discs_apart[0], [], tmp_path)
    changed, known = read_checkpoint(tmp_path / "best.safetensors")[1], read_checkpoint(sam)[1]
    other = {name for name, value in known.items() if not torch.equal(value, changed[name])}
    assert all(name in expected or name.endswith("k_proj.bias") for name in other)
    assert any(name.startswith("mask_decoder.") for name in other) == bool(more)
    assert any(name.startswith("image_encoder.") for name in other) == (more == "all")


@pytest.mark.parametrize(("views", "precision"), [("free", "fp32"), ("fixed", "fp32"), ("fixed", "bf16")])
def test_a_stopped_run_goes_on_with_the_very_same_numbers(sam, discs_apart, training, loop, tmp_path, views, precision):
    train, val = discs_apart
    cache = None if views == "free" else str(tmp_path / "cache")
    method = DenseSamMethod(replace(training, views=views, cache=cache), str(sam))
    loop = replace(loop, steps=6, save_every=2, validate_every=3, precision=precision)
    run(method, loop, train, val[:1], tmp_path / "whole")
    run(method, loop, train, val[:1], tmp_path / "killed", stop_after=5)
    run(method, loop, train, val[:1], tmp_path / "killed")
    for name in ("train.csv", "validation.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    one, two = (read_state(tmp_path / name / "best.safetensors")[0] for name in ("whole", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_cache_changes_nothing_but_the_time(sam, discs_apart, training, loop, tmp_path):
    train = discs_apart[0][:2]
    fixed = replace(training, views="fixed")
    loop = replace(loop, steps=12, batch=2)
    run(DenseSamMethod(replace(fixed, cache=str(tmp_path / "c")), str(sam)), loop, train, [], tmp_path / "filled")
    kept = sorted((tmp_path / "c").iterdir())
    run(DenseSamMethod(replace(fixed, cache=str(tmp_path / "c")), str(sam)), loop, train, [], tmp_path / "read")
    assert sorted((tmp_path / "c").iterdir()) == kept
    assert 1 < len(kept) <= 16 * len(grid((112, 112), 64))
    run(DenseSamMethod(fixed, str(sam)), loop, train, [], tmp_path / "without")
    one, two, three = (read_state(tmp_path / name / "best.safetensors")[0] for name in ("filled", "read", "without"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.allclose(one[name].float(), three[name].float(), atol=2e-3) for name in one)
    state = read_state(tmp_path / "read" / "best.safetensors")[1]
    assert "cache" not in state["training"]


def test_a_cache_knows_an_encoder_that_the_start_brings(sam, discs_apart, training, loop, tmp_path):
    train = discs_apart[0][:1]
    run(DenseSamMethod(replace(training, trained="all"), str(sam)), replace(loop, steps=5), train, [], tmp_path / "all")
    start = str(tmp_path / "all" / "best.safetensors")
    fixed = replace(training, views="fixed", turned=False, cache=str(tmp_path / "cache"))
    base = DenseSamMethod(fixed, str(sam))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        of_base = base._encoded(base.build(), pixels).embedding
        started = DenseSamMethod(replace(fixed, start=start), str(sam))
        model = started.build()
        found = started._encoded(model, pixels).embedding
        assert torch.allclose(found, encode(model.image_encoder, pixels).embedding, atol=1e-5)
    assert not torch.allclose(found, of_base, atol=1e-3)


def test_fixed_views_are_eight_of_each_tile_and_colours_stay(sam, discs_apart, training):
    sample = discs_apart[0][0]
    method = DenseSamMethod(replace(training, views="fixed"), str(sam))
    seen = {method.prepare(sample, np.random.default_rng(i)).image.numpy().tobytes() for i in range(200)}
    assert len(seen) == 8 * len(grid(sample.labels.shape, 64 / method._scale(sample)))
    still = DenseSamMethod(replace(training, views="fixed", turned=False), str(sam))
    few = {still.prepare(sample, np.random.default_rng(i)).image.numpy().tobytes() for i in range(60)}
    assert len(few) == len(seen) // 8
    assert few < seen


def test_a_grid_covers_an_image_and_no_tile_leaves_it():
    assert grid((100, 100), 100) == [(50.0, 50.0)]
    assert grid((40, 250), 100) == [(50.0, 20.0), (125.0, 20.0), (200.0, 20.0)]


def test_the_losses_weights_and_the_branch_decide_what_is_minimised(sam, discs_apart, training):
    found = loss_of(DenseSamMethod(training, str(sam)), discs_apart[0][:2])[1]
    parts = {name: float(value.detach()) for name, value in found.items()}
    assert parts["loss"] == pytest.approx(
        0.5 * parts["bce"] + 0.5 * parts["dice"] + 0.1 * parts["contrastive"], rel=1e-5
    )
    without = loss_of(DenseSamMethod(replace(training, global_branch=False), str(sam)), discs_apart[0][:2])[1]
    assert set(without) == {"loss", "bce", "dice"}
    assert set(loss_of(DenseSamMethod(replace(training, contrastive=0.0), str(sam)), discs_apart[0][:2])[1]) == set(
        without
    )


def test_images_without_objects_give_a_step(sam, discs_apart, training):
    sample = discs_apart[0][0]
    empty = replace(sample, labels=np.zeros_like(sample.labels), diameter=float("nan"))
    _, losses = loss_of(DenseSamMethod(training, str(sam)), [empty, empty])
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])


def test_whole_images_are_seen_so_in_validation_too(sam, discs_apart, training, monkeypatch):
    method = DenseSamMethod(replace(training, views="whole"), str(sam))
    sample = discs_apart[0][0]
    wide = replace(sample, image=sample.image[:56], labels=sample.labels[:56])
    item = method.prepare(wide, np.random.default_rng(0))
    assert (item.image == 0).all(0).float().mean() == pytest.approx(0.5, abs=0.05)
    seen = []
    real = DenseSam.segment

    def watched(segmenter, batch):
        seen.append(batch.images[0])
        return real(segmenter, batch)

    monkeypatch.setattr(DenseSam, "segment", watched)
    assert method.validate(method.build(), [wide])["images"] == 1
    assert seen[0].shape == (3, 64, 64)
    assert (seen[0] == 0).all(0).float().mean() == pytest.approx(0.5, abs=0.05)


def test_it_goes_on_from_a_checkpoint_of_the_same_make(sam, discs_apart, training, loop, tmp_path):
    run(DenseSamMethod(training, str(sam)), replace(loop, steps=3), discs_apart[0], [], tmp_path)
    start = str(tmp_path / "best.safetensors")
    method = DenseSamMethod(replace(training, start=start), str(sam))
    state = read_state(start)[0]
    own = method.build().state_dict()
    assert all(torch.equal(own[name], tensor.float()) for name, tensor in state.items())
    assert [told["step"] for told in method.card()["before"]] == [3]
    for changes, message in (({"heads": 1}, "heads is 2, accepted: 1"), ({"iou_token": "random"}, "iou_token is sam")):
        with pytest.raises(CheckpointError, match=message):
            DenseSamMethod(replace(training, **changes, start=start), str(sam))
    with pytest.raises(CheckpointError, match=r"sac-v1.safetensors: holds no DenseSAM; accepted: a checkpoint of"):
        DenseSamMethod(replace(training, start="sac-v1"))


def test_what_cannot_be_trained_is_told_before_it_begins(sam, training):
    for changes, message in (
        ({"crop": 60}, "--crop is 60, accepted with this SAM: multiples of 8"),
        ({"classes": ("a", "b")}, "--classes is a b, accepted: one name"),
        ({"cache": "x"}, "--cache: accepted with --views fixed or whole"),
        ({"cache": "x", "views": "fixed", "trained": "all"}, "--cache: accepted with a frozen encoder"),
        ({"inner_idx": (3,)}, r"--inner-idx: .*inner_idx is \[3\], accepted with this SAM: 0 to 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            DenseSamMethod(replace(training, **changes), str(sam))
    with pytest.raises(CheckpointError, match=r"holds no changes of this method over .*accepted: one that does"):
        DenseSamMethod(replace(training, start=str(sam)), str(sam))
    with pytest.raises(CheckpointError, match="weights of method 'sam', expected those that `gigaseg train densesam`"):
        open_densesam(sam)
