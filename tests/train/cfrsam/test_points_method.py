"""The point learner is trained: it finds discs, goes on exactly, and its figures are those of the truth's points."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gigaseg.cli import main
from gigaseg.errors import CheckpointError, ConfigError
from gigaseg.sam.checkpoints import read_state, write_state
from gigaseg.segmenters.cfrsam.points import PointMaps
from gigaseg.segmenters.cfrsam.points_checkpoint import open_points
from gigaseg.train.cfrsam import points_evaluate
from gigaseg.train.cfrsam.points_config import CfrPointsTraining
from gigaseg.train.cfrsam.points_evaluate import checkpoint_figures, look, point_figures, propose_in
from gigaseg.train.cfrsam.points_method import CfrPointsMethod
from gigaseg.train.cfrsam.points_truth import image_points
from gigaseg.train.loop import run

SHORT = [
    *("--steps=3", "--batch=2", "--device=cpu", "--threads=1", "--workers=0", "--log-every=1", "--validate-every=3"),
    *("--precision=fp32", "--crop=64", "--channels=8", "--widths", "8", "8", "8", "8"),
]


@pytest.fixture
def training(still):
    return CfrPointsTraining(widths=(8, 16, 16, 16), channels=16, crop=64, smallest=20, largest=32, colour=still)


class Knowing(torch.nn.Module):
    """Stands for a net that knows each image's points: they are where its red channel is 255."""

    def __init__(self, config, shift=(0.0, 0.0)):
        super().__init__()
        self.config, self.shift = config, torch.tensor(shift)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        red = images[0, 0] > 2
        y, x = torch.nonzero(red, as_tuple=True)
        points = torch.stack([x, y], 1)[None] + 0.5 + self.shift
        kinds = len(self.config.classes)
        values = torch.zeros(1, len(x), kinds + 1)
        values[..., -1] = -2  # probability 0.88 with one class
        green = images[0, 1, y, x] > 0
        values[0, :, 0] += torch.where(green, 3.0, 0.0)
        mask = torch.where(images[0, 2] > 0, 1.0, -1.0)[None]
        return PointMaps(points[0], points, values, mask)


def marked(sample, first=()):
    """An image that shows its own truth to `Knowing`: points, which of them are of the first class, the mask."""
    image = np.zeros((*sample.labels.shape, 3), np.uint8)
    image[..., 2] = np.where(sample.labels > 0, 255, 0)
    for k, (x, y) in enumerate(image_points(sample.labels)):
        image[int(y), int(x)] = (255, 255 if k in first else 0, image[int(y), int(x), 2])
    return replace(sample, image=image, diameter=points_evaluate.DIAMETER)


def test_it_learns_to_point_at_discs_and_its_checkpoint_measures_the_same(discs_apart, training, loop, tmp_path):
    train, val = discs_apart
    method = CfrPointsMethod(training)
    config = replace(loop, steps=60, batch=4, rate=6e-3, decay=1e-4, ema=0.9)
    progress = run(method, config, train, val, tmp_path)
    figures = progress.figures
    assert figures["f1"] > 0.9
    assert figures["mask_iou"] > 0.6
    assert figures["score"] == figures["f1"] == progress.best
    assert {"f1/a", "f1/b", "precision", "recall", "threshold", "images"} <= figures.keys()

    path = tmp_path / "best.safetensors"
    card = open_points(path).card
    assert card["method"] == "cfrsam-points"
    assert card["threshold"] == figures["threshold"]
    assert card["classes"] == ["nucleus"]
    assert card["training"]["crop"] == 64
    rows = checkpoint_figures(path, val, "cpu", "fp32")
    assert np.mean([row["mask_iou"] for row in rows]) == pytest.approx(figures["mask_iou"], abs=0.01)
    assert np.mean([row["f1"] for row in rows]) > 0.88

    again = CfrPointsMethod(replace(training, start=str(path)))
    assert all(
        torch.equal(value.float(), read_state(path)[0][name].float())
        for name, value in again.build().state_dict().items()
    )
    assert again.card()["before"][0]["step"] == 60
    wider = CfrPointsMethod(replace(training, start=str(path), classes=("a", "b")))
    assert wider.build().classify[3].weight.shape[0] == 3
    with pytest.raises(CheckpointError, match=r"channels is 16, accepted: 32, as in the options of this run"):
        CfrPointsMethod(replace(training, start=str(path), channels=32))


def test_an_interrupted_run_goes_on_exactly(discs_apart, training, loop, tmp_path):
    train, val = discs_apart
    loop = replace(loop, steps=6, save_every=1)
    run(CfrPointsMethod(training), loop, train, val[:1], tmp_path / "straight")
    run(CfrPointsMethod(training), loop, train, val[:1], tmp_path / "killed", stop_after=3)
    run(CfrPointsMethod(training), loop, train, val[:1], tmp_path / "killed")
    one, two = (read_state(tmp_path / name / "best.safetensors")[0] for name in ("straight", "killed"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_every_part_gets_a_gradient(discs_apart, training):
    method = CfrPointsMethod(training)
    model = method.build().train()
    rng = np.random.default_rng(0)
    batch = method.collate([method.prepare(sample, rng) for sample in discs_apart[0][:2]], rng)
    losses = method.losses(model, batch, rng)
    losses["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    listed = [p for group in method.groups(model) for p in group["params"]]
    assert len(listed) == len(list(model.parameters()))
    assert {"classification", "regression", "mask", "distance"} < losses.keys()


def test_a_net_that_knows_the_truth_has_all_figures_at_1(discs_apart):
    samples = [marked(sample) for sample in discs_apart[1]]
    config = CfrPointsMethod(CfrPointsTraining()).points
    figures = point_figures(Knowing(config), samples)
    assert all(figures[name] == 1 for name in ("precision", "recall", "f1", "mask_iou", "score", "f1/a", "f1/b"))
    off = point_figures(Knowing(config, (9.0, 9.0)), samples, suppression=1.0)
    assert off["f1"] == 0
    assert off["mask_iou"] == 1


def test_of_several_classes_the_score_is_their_mean(discs_apart):
    sample = next(s for s in discs_apart[1] if s.labels.max() >= 3)
    number = len(image_points(sample.labels))
    names = ["a" if k < 2 else "b" for k in range(int(sample.labels.max()))]
    # one of the two of class a is taken for b
    shown = replace(marked(sample, first=(0,)), classes=tuple(names))
    config = CfrPointsMethod(CfrPointsTraining(classes=("a", "b"))).points
    net = Knowing(config)
    forward = net.forward

    def told(images):
        maps = forward(images)
        maps.logits[..., 1] += 1
        return maps

    net.forward = told
    figures = point_figures(net, [shown])
    rest = number - 2
    assert figures["f1"] == 1
    assert figures["f1_a"] == pytest.approx(2 / 3)
    assert figures["f1_b"] == pytest.approx(2 * rest / (2 * rest + 1))
    assert figures["score"] == pytest.approx((figures["f1_a"] + figures["f1_b"]) / 2)


def test_images_are_seen_at_the_nominal_diameter(discs_apart):
    sample = discs_apart[1][0]
    config = CfrPointsMethod(CfrPointsTraining()).points
    seen = look(Knowing(config), replace(sample, diameter=13.0))
    assert seen.truth.xy == pytest.approx(2 * image_points(sample.labels))


def test_a_large_image_is_seen_in_tiles_that_find_each_point_once(monkeypatch):
    monkeypatch.setattr(points_evaluate, "TILE", 64)
    monkeypatch.setattr(points_evaluate, "OVERLAP", 16)
    rng = np.random.default_rng(1)
    image = np.zeros((150, 100, 3), np.uint8)
    places = [(x, y) for x in range(3, 100, 9) for y in range(2, 150, 9) if rng.random() < 0.7]
    for x, y in places:
        image[y, x, 0] = 255
    image[..., 2] = rng.integers(0, 2, image.shape[:2]) * 255
    config = CfrPointsMethod(CfrPointsTraining()).points
    found, mask = propose_in(Knowing(config), image, threshold=0.5, radius=3.0)
    assert sorted(map(tuple, (found.xy - 0.5).astype(int).tolist())) == sorted(places)
    assert np.array_equal(mask, image[..., 2] > 0)


def test_it_is_trained_measured_and_resumed_by_one_line(folder, tmp_path):
    out = tmp_path / "run"
    words = ["train", "cfrsam-points", "--data", str(folder), "--out", str(out), "--licence", "CC0-1.0", *SHORT]
    assert main(words) == 0
    before = (out / "best.safetensors").read_bytes()
    assert main(words) == 0
    assert (out / "best.safetensors").read_bytes() == before
    assert main([*words, "--evaluate", "val"]) == 0
    report = json.loads((out / "val.json").read_text())
    assert {"precision", "recall", "f1", "paired_f1", "mask_iou"} == report["figures"].keys()
    assert open_points(out / "best.safetensors").card["licence"] == "CC0-1.0"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--backbone=vgg"], "--backbone is 'vgg', accepted: light, convnext_small"),
        (["--smallest=40", "--largest=20"], "--smallest is 40, accepted: at most --largest (20)"),
        (["--widths", "8", "8"], "--widths is '(8, 8)', accepted: four whole numbers from 8 to 4096"),
        (["--classes", "cell", "cell"], "accepted: different names, at least one"),
        (["--classes", "cell", "dead"], "s0.webp: its data set states no classes, accepted: cell, dead"),
        (["--pretrained=x.pth"], "--pretrained: accepted with --backbone convnext_small"),
        (["--start=nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_a_mistake_is_one_line(folder, tmp_path, capsys, words, told):
    assert main(["train", "cfrsam-points", "--data", str(folder), "--out", str(tmp_path / "run"), *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("gigaseg train: ")
    assert told in line
    assert not (tmp_path / "run").exists()


def test_weights_of_timm_are_taken_without_their_head(tmp_path):
    timm = pytest.importorskip("timm")
    path = tmp_path / "convnext_small.safetensors"
    with torch.device("meta"):
        shapes = timm.create_model("convnext_small", pretrained=False).state_dict()
    write_state(
        path, {name: torch.full(value.shape, k / 8) for k, (name, value) in enumerate(shapes.items())}, {}, half=True
    )
    keys = {"backbone": "convnext_small", "channels": 8}
    net = CfrPointsMethod(CfrPointsTraining(**keys, pretrained=str(path))).build()
    state = read_state(path)[0]
    assert torch.equal(
        net.backbone.body.stages_3.blocks[2].mlp.fc1.weight, state["stages.3.blocks.2.mlp.fc1.weight"].float()
    )
    assert torch.equal(net.backbone.body.stem_0.bias, state["stem.0.bias"].float())
    with pytest.raises(ConfigError, match="accepted without --start"):
        CfrPointsMethod(CfrPointsTraining(**keys, pretrained=str(path), start="x"))
    write_state(path, {"stem.0.bias": torch.zeros(96)}, {})
    with pytest.raises(CheckpointError, match=r"does not fit timm's convnext_small: .* is missing"):
        CfrPointsMethod(CfrPointsTraining(**keys, pretrained=str(path)))
