"""SAC is trained: it learns, goes on exactly, changes only what it should, and its checkpoint segments."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from gigaseg.errors import CheckpointError, ConfigError
from gigaseg.sam.checkpoints import read_checkpoint, read_state, write_state
from gigaseg.sam.config import SamConfig
from gigaseg.sam.encoder import encode, normalise
from gigaseg.sam.model import build
from gigaseg.segmenters.base import TileInstances
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.sac.checkpoint import open_sac
from gigaseg.segmenters.sac.segmenter import Sac
from gigaseg.segmenters.whole import segment_image
from gigaseg.train.data import Sample
from gigaseg.train.loop import run
from gigaseg.train.sac.config import SacTraining
from gigaseg.train.sac.evaluate import checkpoint_figures
from gigaseg.train.sac.method import SacMethod
from gigaseg.train.whole import segmentation_figures


@pytest.fixture
def training(still):
    return SacTraining(rank=4, width=8, crop=64, smallest=16, largest=22, unet_scale=2, colour=still)


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


def gradients(model):
    return {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_it_learns_the_mask_of_all_discs_and_its_checkpoint_segments(raw, discs_apart, training, loop, tmp_path):
    method = SacMethod(training, str(raw))
    train, val = discs_apart
    torch.manual_seed(0)
    fresh = method.validate(method.build().eval(), val)
    progress = run(method, replace(loop, steps=100, batch=4), train, val, tmp_path)
    assert fresh["pixel_dice"] < 0.6
    assert progress.figures["pixel_dice"] > 0.85
    assert progress.figures["f1_50"] > 0.9
    assert progress.figures["score"] == progress.figures["pixel_dice"] == progress.best

    path = tmp_path / "best.safetensors"
    state, card = read_state(path)
    assert {name.split(".")[0] for name in state} == {"lora", "unet", "mask_decoder"}  # not SAM's encoder
    assert card["base"]["name"].endswith("raw.safetensors")
    assert card["classes"] == ["nucleus"]

    rows = checkpoint_figures(path, val, "cpu", "fp32")  # what --evaluate val measures is what validation saw
    for name in ("pixel_dice", "pixel_iou", "f1_50", "aji", "pq"):
        assert np.mean([row[name] for row in rows]) == pytest.approx(progress.figures[name], abs=0.02)
    assert {"no_prompt_pixel_dice", "unet_pixel_dice"} <= rows[0].keys()

    found = segment_image(Sac.of(open_sac(path), {"pairs": 1}), val[0].image, scale=26 / 18)
    for number in np.unique(val[0].labels)[1:]:
        truth = val[0].labels == number
        mask = found == np.bincount(found[truth]).argmax()
        assert (mask & truth).sum() / (mask | truth).sum() > 0.6


class Fixed:
    """Finds what it is told."""

    card = read_card("sac")

    def __init__(self, boxes):
        self.boxes = iter(boxes)

    def segment(self, batch):
        box = torch.tensor([next(self.boxes)], dtype=torch.int32)
        mask = torch.ones(int(box[0, 3] - box[0, 1]), int(box[0, 2] - box[0, 0]), dtype=torch.bool)
        return [TileInstances(box, [mask], torch.ones(1), torch.ones(1, 1)) for _ in batch.tiles]


def test_means_are_over_images_and_pooled_figures_over_all_pixels():
    """One object each, half found: of 40 x 40 px the left half, of 10 x 10 px all and as much beside it."""
    samples = []
    for side in (40, 10):
        labels = np.zeros((128, 128), np.int32)
        labels[:side, :side] = 1
        samples.append(Sample(f"s{side}", "", np.zeros((128, 128, 3), np.uint8), labels, np.nan, np.zeros(3, np.uint8)))
    found = segmentation_figures(Fixed([(0, 0, 20, 40), (0, 0, 20, 10)]), samples)
    # tp, fp, fn: 800, 0, 800 and 100, 100, 0
    assert found["pixel_iou"] == pytest.approx(0.5)
    assert found["pixel_dice"] == pytest.approx(2 / 3)
    assert found["pooled_iou"] == pytest.approx(900 / 1800)
    assert found["pooled_f1"] == pytest.approx(1800 / 2700)
    samples[1].labels[:10, 10:20] = 1  # now all of the small one is found
    found = segmentation_figures(Fixed([(0, 0, 20, 40), (0, 0, 20, 10)]), samples)
    assert (found["pixel_dice"], found["pixel_iou"]) == (pytest.approx((2 / 3 + 1) / 2), pytest.approx(0.75))
    assert (found["pooled_f1"], found["pooled_iou"]) == (pytest.approx(2000 / 2800), pytest.approx(1000 / 1800))


def test_detail_is_sam_s_part_when_the_u_net_came_first(sam, discs_apart, training, loop, tmp_path):
    first = SacMethod(replace(training, trained="unet", detail=-1), str(sam))
    run(first, replace(loop, steps=2), discs_apart[0], [], tmp_path / "unet")
    start = str(tmp_path / "unet" / "best.safetensors")
    second = SacMethod(replace(training, trained="sam", detail=-1, start=start), str(sam))
    run(second, replace(loop, steps=3), discs_apart[0], [], tmp_path / "sam")
    state = read_state(tmp_path / "sam" / "best.safetensors")[0]
    assert state["unet.detail.weight"].abs().sum() > 0
    before = read_state(start)[0]
    assert torch.equal(state["unet.head.weight"], before["unet.head.weight"])


@pytest.mark.parametrize(
    "changes",
    [{}, {"rule": "random", "pairs": 8, "fewer": 0.5, "truth": 0.5}, {"detail": -1, "norm": "group", "rank": 0}],
    ids=["published", "random points", "detail"],
)
def test_a_stopped_run_goes_on_with_the_very_same_numbers(sam, discs_apart, training, loop, tmp_path, changes):
    train, val = discs_apart
    method = SacMethod(replace(training, **changes), str(sam))
    loop = replace(loop, steps=6, save_every=2, validate_every=3)
    run(method, loop, train, val[:1], tmp_path / "whole")
    run(method, loop, train, val[:1], tmp_path / "killed", stop_after=5)
    run(method, loop, train, val[:1], tmp_path / "killed")
    for name in ("train.csv", "validation.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    one, two = (read_state(tmp_path / name / "best.safetensors")[0] for name in ("whole", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_losses_of_sam_and_u_net_do_not_reach_each_other(sam, discs_apart, training):
    for weights, reached in (
        ({"bce": 0.0}, {"lora", "mask_decoder"}),
        ({"focal": 0.0, "dice": 0.0}, {"unet"}),
        ({}, {"lora", "mask_decoder", "unet"}),
    ):
        method = SacMethod(replace(training, **weights), str(sam))
        torch.manual_seed(0)
        model = method.build().train()
        losses = method.losses(model, batch_of(method, discs_apart[0][:3]), np.random.default_rng(0))
        losses["loss"].backward()
        assert set(losses) == {"loss", "bce", "focal", "dice"}
        assert gradients(model) == reached


def test_with_detail_the_masks_reach_the_u_net(sam, discs_apart, training):
    method = SacMethod(replace(training, detail=-1, bce=0.0), str(sam))
    model = method.build().train()
    model.unet.detail.weight.data.normal_()
    method.losses(model, batch_of(method, discs_apart[0][:3]), np.random.default_rng(0))["loss"].backward()
    assert "unet" in gradients(model)


def test_at_the_first_step_only_lora_s_second_factor_learns_and_the_base_never(
    sam, discs_apart, training, loop, tmp_path
):
    method = SacMethod(training, str(sam))
    model = method.build().train()
    method.losses(model, batch_of(method, discs_apart[0][:3]), np.random.default_rng(0))["loss"].backward()
    for side in "qv":
        assert all(p.grad.abs().sum() == 0 for p in getattr(model.lora, f"a_{side}"))
        assert all(p.grad.abs().sum() > 0 for p in getattr(model.lora, f"b_{side}"))
    run(method, replace(loop, steps=3), discs_apart[0], [], tmp_path)
    changed = read_checkpoint(tmp_path / "best.safetensors")[1]
    known = read_checkpoint(sam)[1]
    other = {name for name, tensor in known.items() if not torch.equal(tensor, changed[name])}
    assert "mask_decoder.mask_tokens.weight" in other
    assert all(name.startswith("mask_decoder.") for name in other)


def test_a_checkpoint_is_read_with_its_lora_merged(sam, discs_apart, training, loop, tmp_path):
    method = SacMethod(training, str(sam))
    run(method, replace(loop, steps=10), discs_apart[0], [], tmp_path)
    loaded = open_sac(tmp_path / "best.safetensors")
    assert loaded.adapter is None
    model = SacMethod(replace(training, start=str(tmp_path / "best.safetensors")), str(sam)).build()
    images = normalise(torch.from_numpy(discs_apart[0][0].image[:64, :64].copy()).permute(2, 0, 1)[None], method.config)
    with torch.no_grad():
        merged = encode(loaded.backend.model.image_encoder, images).embedding
        apart = encode(model.image_encoder, images, adapter=model.lora).embedding
        bare = encode(model.image_encoder, images).embedding
    assert torch.allclose(merged, apart, atol=1e-5)
    assert not torch.allclose(merged, bare, atol=1e-3)


def test_the_u_net_first_then_sam_with_the_u_net_as_it_is(sam, discs_apart, training, loop, tmp_path):
    train, val = discs_apart
    first = SacMethod(replace(training, trained="unet"), str(sam))
    progress = run(first, replace(loop, steps=40, batch=4), train, val, tmp_path / "unet")
    assert {name.split(".")[0] for name in read_state(tmp_path / "unet" / "best.safetensors")[0]} == {"lora", "unet"}
    assert progress.figures["pixel_dice"] > 0.5  # of the U-Net's own map

    start = str(tmp_path / "unet" / "best.safetensors")
    second = SacMethod(replace(training, trained="sam", start=start), str(sam))
    before = parameters_to_vector(second.build().unet.parameters())
    statistics = [b.clone() for b in second.build().unet.buffers()]
    run(second, replace(loop, steps=3), train, val[:1], tmp_path / "sam")
    after = SacMethod(replace(training, start=str(tmp_path / "sam" / "best.safetensors")), str(sam)).build().unet
    assert torch.equal(parameters_to_vector(after.parameters()), before)
    assert all(torch.equal(a, b) for a, b in zip(after.buffers(), statistics))
    assert [told["step"] for told in second.card()["before"]] == [progress.best_step]


@pytest.mark.parametrize("pairs", [0, 3])
def test_images_without_objects_give_a_step(sam, discs_apart, training, pairs):
    sample = discs_apart[0][0]
    empty = replace(sample, labels=np.zeros_like(sample.labels), diameter=float("nan"))
    method = SacMethod(replace(training, pairs=pairs, truth=1.0), str(sam))
    model = method.build().train()
    losses = method.losses(model, batch_of(method, [empty, empty]), np.random.default_rng(0))
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])


def test_whole_images_fill_their_square_turned_by_right_angles(sam, discs_apart, training):
    sample = discs_apart[0][0]
    wide = replace(sample, image=sample.image[:56], labels=sample.labels[:56])
    method = SacMethod(replace(training, letterbox=True), str(sam))
    seen = {}
    for seed in range(24):
        item = method.prepare(wide, np.random.default_rng(seed))
        black = (item.image == 0).all(0)
        side = [bool(part.all()) for part in (black[:15], black[-15:], black[:, :15], black[:, -15:])]
        assert side in ([True, True, False, False], [False, False, True, True])
        seen[item.labels.numpy().tobytes()] = side
    assert len(seen) == 8  # four turns, each mirrored or not
    figures = method.validate(method.build(), [wide])
    assert figures["images"] == 1


def test_points_are_fewer_in_a_share_of_steps(sam, discs_apart, training, monkeypatch):
    import gigaseg.train.sac.method as module

    counts = []
    real = module.prompt_sets

    def counted(points, *rest):
        counts.append(len(points[0].labels) // 2)
        return real(points, *rest)

    monkeypatch.setattr(module, "prompt_sets", counted)
    method = SacMethod(replace(training, pairs=4, fewer=0.5), str(sam))
    model = method.build().train()
    batch = batch_of(method, discs_apart[0][:1])
    for seed in range(40):
        with torch.no_grad():
            method.losses(model, batch, np.random.default_rng(seed))
    assert set(counts) == {0, 1, 2, 3, 4}
    assert 10 < counts.count(4) < 30


def test_what_cannot_be_trained_is_told_before_it_begins(sam, discs_apart, training, loop, tmp_path):
    for changes, message in (
        ({"crop": 72}, "--crop is 72, accepted with this SAM and --reduction: multiples of 32"),
        ({"detail": 5}, r"--detail is 5, accepted with 'tiny': 0 or 4 \(-1\)"),
        ({"detail": -1, "reduction": 4}, "--reduction is 4, accepted with --detail: up to 2"),
        ({"reduction": 3, "crop": 192}, "--reduction is 3, accepted with 'tiny': divisors of its patch, 8 px"),
        ({"classes": ("a", "b")}, "--classes is a b, accepted: one name"),
        ({"trained": "sam"}, "--trained is sam, accepted with --start"),
    ):
        with pytest.raises(ConfigError, match=message):
            SacMethod(replace(training, **changes), str(sam))
    with pytest.raises(CheckpointError, match=r"holds no changes of this method over .*accepted: one that does"):
        SacMethod(replace(training, start=str(sam)), str(sam))
    run(SacMethod(training, str(sam)), replace(loop, steps=1), discs_apart[0], [], tmp_path)
    with pytest.raises(CheckpointError, match="has rank 4, which is 2 here; accepted: a checkpoint of the same sizes"):
        SacMethod(replace(training, rank=2, start=str(tmp_path / "best.safetensors")), str(sam))
    with pytest.raises(CheckpointError, match="holds changes over another one; expected a whole checkpoint"):
        SacMethod(training, str(tmp_path / "best.safetensors"))
    with pytest.raises(CheckpointError, match="weights of method 'sam', expected those that `gigaseg train sac`"):
        open_sac(sam)
