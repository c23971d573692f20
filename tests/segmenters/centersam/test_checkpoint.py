"""CenterSAM's checkpoints: changes over a SAM checkpoint, refused in one line when they are something else."""

import pytest
import torch

from centersam_models import PAINTED, painted_detector, write_painted
from gigaseg.errors import CheckpointError, DeviceError, SegmenterError
from gigaseg.sam.backend import Backend
from gigaseg.sam.checkpoints import read_state, write_state
from gigaseg.segmenters.centersam.checkpoint import DEFAULT_THRESHOLD, open_centersam
from gigaseg.segmenters.centersam.detector import DetectorConfig, build_detector
from samples import write_random_sam


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "sam.safetensors"
    write_random_sam(path)
    return path


def test_it_holds_the_detector_alone_and_opens_over_its_base(base, tmp_path):
    path = write_painted(tmp_path / "c.safetensors", base, threshold=0.4)
    assert all(name.startswith("detector.") for name in read_state(path)[0])
    loaded = open_centersam(path)
    assert loaded.threshold == 0.4
    assert loaded.detector.config == PAINTED
    assert not loaded.detector.training
    assert loaded.card["base"]["name"] == str(base)
    images = torch.randint(0, 256, (1, 3, 64, 64)).to(torch.uint8)
    assert torch.equal(loaded.backend.encode(images).embedding, Backend.open(base).encode(images).embedding)


@pytest.mark.parametrize("detail", [0, 8])
def test_the_detector_that_is_opened_says_what_the_trained_one_says(base, tmp_path, detail):
    torch.manual_seed(0)
    config = DetectorConfig(embedding=PAINTED.embedding, patch=PAINTED.patch, width=16, detail=detail)
    detector = build_detector(config).eval()
    for layer in detector.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    opened = open_centersam(write_painted(tmp_path / "c.safetensors", base, config=config, detector=detector)).detector
    images, embedding = (
        torch.randn(2, 3, 64, 96),
        torch.randn(2, config.embedding, 64 // config.patch, 96 // config.patch),
    )
    with torch.inference_mode():
        (expected,), (found,) = detector(images, embedding), opened(images, embedding)
    for name in ("heat", "size", "offset"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4)
    assert expected.heat.std() > 1e-3


def test_a_sam_that_was_trained_too_is_the_one_that_is_used(base, tmp_path):
    name = "image_encoder.neck.0.weight"
    changed = {name: read_state(base)[0][name] + 1}
    path = write_painted(tmp_path / "c.safetensors", base, changed=changed)
    assert torch.equal(open_centersam(path).backend.model.state_dict()[name], changed[name])


def test_any_detector_can_be_stored_in_half_precision(base, tmp_path):
    config = DetectorConfig(kind="hourglass", classes=("a", "b"), dims=(8, 8, 8), counts=(1, 1, 1))
    detector = build_detector(config)
    path = write_painted(tmp_path / "c.safetensors", base, config=config, detector=detector)
    found = open_centersam(path).detector
    assert found.config == config
    assert {tensor.dtype for tensor in found.parameters()} == {torch.float32}


def test_a_card_without_a_threshold_gets_the_default_one(base, tmp_path):
    path = write_painted(tmp_path / "c.safetensors", base)
    state, card = read_state(path)
    del card["threshold"]
    write_state(tmp_path / "d.safetensors", state, card)
    assert open_centersam(tmp_path / "d.safetensors").threshold == DEFAULT_THRESHOLD


def told(path, **options):
    with pytest.raises((CheckpointError, DeviceError, SegmenterError)) as caught:
        open_centersam(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_another_methods_checkpoint_is_told(base, tmp_path):
    message = told(base)
    assert message.endswith(
        "sam.safetensors: weights of a SAM model, expected those that `gigaseg train centersam` writes"
    )
    state, card = read_state(base)
    write_state(tmp_path / "other.safetensors", state, {**card, "method": "sac"})
    assert "weights of method 'sac', expected" in told(tmp_path / "other.safetensors")
    write_state(tmp_path / "foreign.safetensors", {"w": torch.zeros(3)}, {})
    assert "expected those that `gigaseg train centersam` writes" in told(tmp_path / "foreign.safetensors")
    assert "no such file" in told(tmp_path / "missing.safetensors")


def test_what_does_not_fit_is_told(base, tmp_path):
    path = tmp_path / "c.safetensors"
    detector = painted_detector()
    write_painted(path, base, config=DetectorConfig(**{**PAINTED.__dict__, "width": 16}), detector=detector)
    assert "c.safetensors: does not fit a 'light' detector: fine.0.0.weight is [4, 3, 3, 3], expected [8," in told(path)
    write_painted(path, base, config=DetectorConfig(width=8, patch=16, embedding=32))
    assert "its detector is for embeddings of 32 channels and patches of 16 px, but 'tiny' has 32 and 8" in told(path)
    write_painted(path, base, threshold=1.5)
    assert "threshold is '1.5', accepted: a number from 0 to 1" in told(path)
    write_painted(path, base, detector=detector)
    state, card = read_state(path)
    write_state(path, {k: v for k, v in state.items() if "deep.1" not in k}, card)
    assert "deep.1.first.0.weight is missing" in told(path)
    write_state(path, {**state, "detector.more": torch.zeros(1)}, card)
    assert "more is not part of it" in told(path)
    write_state(path, state, {**card, "detector": {"kind": "heavy"}})
    assert "kind is 'heavy', accepted: light" in told(path)
    name = "detector.fine.0.0.weight"
    write_state(path, {**state, name: torch.ones(4, 3, 3, 3, dtype=torch.int32)}, card)
    assert "tensor 'fine.0.0.weight' is torch.int32" in told(path)


def test_another_base_is_told(base, tmp_path):
    own = tmp_path / "sam.safetensors"
    write_random_sam(own)
    path = write_painted(tmp_path / "c.safetensors", own)
    write_random_sam(own, quality=(0.1, 0.2))
    assert "trained over" in told(path)
    own.unlink()
    assert "its base" in told(path)


def test_wrong_ways_to_open_it_are_told(base, tmp_path):
    path = write_painted(tmp_path / "c.safetensors", base)
    assert "'fp61'; accepted: auto" in told(path, precision="fp61")
    assert "input size is 100 px, accepted: positive multiples of 8" in told(path, input_size=100)
    assert "device is 'gpu'" in told(path, device="gpu")
