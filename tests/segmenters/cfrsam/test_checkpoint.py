"""Checkpoints of CFR-SAM: both stages come back as they were, and what does not fit is told in one line."""

import json
import shutil

import numpy as np
import pytest
import torch

from cfrsam_models import POINTS, random_method, write_random_cfrsam
from gigaseg.errors import CheckpointError, SegmenterError
from gigaseg.sam.checkpoints import read_checkpoint, read_state, write_state
from gigaseg.segmenters.base import Prompts, TileBatch
from gigaseg.segmenters.cfrsam.checkpoint import open_adapted, open_cfrsam
from gigaseg.segmenters.cfrsam.config import BASES, FUSIONS, KERNELS, REFINEMENTS, CfrSamConfig
from gigaseg.segmenters.cfrsam.segmenter import CfrSam


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cfrsam")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return write_random_cfrsam(folder, about={"step": 7})


def test_both_stages_come_back(folder, checkpoint):
    loaded = open_cfrsam(checkpoint)
    state, card = read_state(checkpoint)
    assert {name.split(".")[0] for name in state} == {"cfrsam", "points"}, "SAM stays in its own file"
    assert card["base"]["name"].endswith("sam.safetensors")
    assert loaded.config == CfrSamConfig(rank=4)
    assert loaded.card["step"] == 7
    assert (loaded.points.config, loaded.points.threshold) == (POINTS, 0.3)
    adapted = loaded.adapted
    assert adapted is loaded.adapted
    assert not adapted.added.training
    assert not loaded.points.net.training
    for prefix, module in (("cfrsam.", adapted.added), ("points.", loaded.points.net)):
        for name, value in module.state_dict().items():
            assert torch.equal(value, state[prefix + name].to(value.dtype))
            assert value.dtype in (torch.float32, torch.int64)
    sam = read_state(folder / "sam.safetensors")[0]
    assert all(torch.equal(value, sam[name]) for name, value in adapted.backend.model.state_dict().items())
    learner = read_state(folder / "points.safetensors")[0]
    for name, value in loaded.points.net.state_dict().items():
        assert torch.equal(value, learner[name].half().to(value.dtype) if value.numel() >= 4096 else learner[name])


@pytest.mark.parametrize(
    "changes",
    [
        {"kernels": "static", "fusion": "gated", "base": "coarse"},
        {"kernels": "none", "fusion": "concat", "guidance": False},
        {"fusion": "last", "refinement": "mlp"},
        {"refinement": "none", "enhancement": False},
    ],
)
def test_every_configuration_is_read_as_it_was_written(folder, changes):
    path = write_random_cfrsam(folder, "other", points=False, **changes)
    added = open_adapted(path).added
    state = read_state(path)[0]
    own = added.state_dict()
    assert {f"cfrsam.{name}" for name in own} == {name for name in state if name.startswith("cfrsam.")}
    config = CfrSamConfig(rank=4, **changes)
    assert CfrSamConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_the_published_head_that_nothing_calls_is_read_where_the_card_has_it(checkpoint, tmp_path):
    _, state, card = read_checkpoint(checkpoint)
    card = {name: value for name, value in card.items() if name != "base"}
    card["cfrsam"] = {**card["cfrsam"], "unused": True}
    path = tmp_path / "unused.safetensors"
    write_state(path, state, card)
    with pytest.raises(CheckpointError, match=r"does not fit CFR-SAM's part: refine\.unused\.0\.weight is missing"):
        open_adapted(path)
    shapes = {"0.weight": (2, 4, 3, 3), "1.num_batches_tracked": (), "3.weight": (1, 2, 1, 1), "3.bias": (1,)}
    shapes |= {f"1.{name}": (2,) for name in ("weight", "bias", "running_mean", "running_var")}
    more = {f"cfrsam.refine.unused.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    more["cfrsam.refine.unused.1.num_batches_tracked"] = torch.tensor(0)
    write_state(path, {**state, **more}, card)
    assert open_adapted(path).added.refine.unused is not None


def one_line(error, path):
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def test_weights_of_others_are_told(folder, checkpoint, tmp_path):
    sam, points = folder / "sam.safetensors", folder / "points.safetensors"
    for open_it in (open_cfrsam, open_adapted):
        for path, whose in ((sam, "of a SAM model"), (points, "of method 'cfrsam-points'")):
            with pytest.raises(CheckpointError) as error:
                open_it(path)
            assert f"weights {whose}, expected those that `gigaseg train cfrsam` writes" in one_line(error, path)
        with pytest.raises(CheckpointError, match="no-such-model"):
            open_it("no-such-model")
    with pytest.raises(SegmenterError, match="unknown precision 'fp61'"):
        open_cfrsam(checkpoint, precision="fp61")
    damaged = tmp_path / "cut.safetensors"
    damaged.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged safetensors file"):
        open_cfrsam(damaged)


def test_without_a_point_learner_it_cannot_segment_but_masks_can_be_measured(folder):
    path = write_random_cfrsam(folder, "alone", points=False)
    with pytest.raises(CheckpointError) as error:
        open_cfrsam(path)
    assert "has no point learner, expected one that was trained with --points" in one_line(error, path)
    assert open_adapted(path).added.fine == 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rank", 0, "cfrsam: rank is '?0'?, accepted: a whole number from 1 to 4096"),
        ("rank", 4.0, "cfrsam: rank is '?4.0'?, accepted: of type int"),
        ("rank", 5, "does not fit CFR-SAM's part: .*, expected .* and .* more"),
        ("kernels", "wild", f"kernels is 'wild', accepted: {', '.join(KERNELS)}"),
        ("kernels", ["a"], "kernels is .*, accepted: of type str"),
        ("kernels", "static", "does not fit CFR-SAM's part"),
        ("fusion", "first", f"fusion is 'first', accepted: {', '.join(FUSIONS)}"),
        ("refinement", "", f"refinement is '', accepted: {', '.join(REFINEMENTS)}"),
        ("base", "fine", f"base is 'fine', accepted: {', '.join(BASES)}"),
        ("enhancement", 1, "enhancement is '?1'?, accepted: of type bool"),
        ("depth", 3, "cfrsam is .*, accepted: an object of base, "),
    ],
)
def test_a_damaged_configuration_is_told(checkpoint, tmp_path, field, value, message):
    _, state, card = read_checkpoint(checkpoint)
    card = {name: value for name, value in card.items() if name != "base"}
    path = tmp_path / "wrong.safetensors"
    write_state(path, state, {**card, "cfrsam": {**card["cfrsam"], field: value}})
    with pytest.raises(CheckpointError, match=message) as error:
        open_cfrsam(path).adapted  # noqa: B018 - it is read when it is asked for
    one_line(error, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cfrsam": [1]}, "cfrsam is .*, accepted: an object of"),
        ({"points": {"levels": 9}}, "points: levels is '?9'?, accepted: a whole number from 1 to 4"),
        ({"points": "x"}, "points is .*, accepted: an object of"),
        ({"threshold": 2}, "threshold is '?2'?, accepted: a number from 0 to 1"),
        ({"points": {**POINTS.as_dict(), "channels": 16}}, "does not fit a 'light' point learner"),
    ],
)
def test_a_damaged_card_is_told_before_anything_is_segmented(checkpoint, tmp_path, changes, message):
    state, card = read_state(checkpoint)
    path = tmp_path / "wrong.safetensors"
    write_state(path, state, {**card, **changes})
    with pytest.raises(CheckpointError, match=message) as error:
        open_cfrsam(path)
    one_line(error, path)


def test_a_sam_of_other_patches_is_told(folder, tmp_path):
    _, state, card = read_checkpoint(write_random_cfrsam(folder, "patches"))
    card = {name: value for name, value in card.items() if name != "base"}
    path = tmp_path / "patches.safetensors"
    write_state(path, state, {**card, "config": {**card["config"], "patch": 2, "image_size": 32}})
    with pytest.raises(CheckpointError, match="a SAM with patches of 2 px and 32 channels, accepted") as error:
        open_adapted(path)
    one_line(error, path)


def test_points_are_proposed_without_the_sam_that_masks_need(checkpoint, folder, tmp_path):
    for name in ("sam.safetensors", "points.safetensors"):
        shutil.copy(folder / name, tmp_path)
    method = random_method(tmp_path)
    assert method.base.endswith("sam.safetensors")
    path = write_random_cfrsam(tmp_path)
    (tmp_path / "sam.safetensors").unlink()
    (tmp_path / "points.safetensors").unlink()
    segmenter = CfrSam.of(open_cfrsam(path))
    images = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    (found,) = segmenter.propose(TileBatch(images, [None]))
    assert found.class_prob.shape == (len(found.xy), 2)
    prompts = Prompts(np.arange(1), np.full((1, 1, 2), 30, np.float32), np.ones((1, 1), np.int8))
    with pytest.raises(CheckpointError, match=r"its base: .*sam\.safetensors"):
        segmenter.segment(TileBatch(images, [None], [prompts]))
