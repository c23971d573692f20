"""Building models and loading weights into them."""

import json

import pytest
import torch
from safetensors.torch import save_file

from gigaseg.errors import CheckpointError
from gigaseg.sam.checkpoints import write_state
from gigaseg.sam.config import CONFIGS
from gigaseg.sam.model import build, from_state, load
from sam_models import TINY, random_model


@pytest.mark.parametrize(("name", "count"), [("vit_b", 93_735_472), ("vit_l", 312_342_832), ("vit_h", 641_090_608)])
def test_a_configuration_has_the_published_number_of_parameters(name, count):
    assert sum(p.numel() for p in build(CONFIGS[name], "meta").parameters()) == count


def test_vit_b_has_the_tensors_and_shapes_that_segment_anything_builds():
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        reference = sam_model_registry["vit_b"]().state_dict()
    ours = build(CONFIGS["vit_b"], "meta").state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in reference.items()
    }


def assert_equal(model, other):
    assert model.state_dict().keys() == other.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_state_dict_saved_by_torch_loads_strictly_and_tells_its_configuration(tmp_path):
    model = random_model(CONFIGS["small"])
    torch.save(model.state_dict(), tmp_path / "small.pth")
    loaded = load(tmp_path / "small.pth")
    assert_equal(model, loaded)
    assert not loaded.training
    assert torch.equal(loaded.pixel_mean, model.pixel_mean)
    assert torch.equal(loaded.pixel_std, model.pixel_std)


def test_the_card_tells_the_configuration_and_half_precision_loads_as_float32(tmp_path):
    model = random_model(TINY)
    write_state(tmp_path / "tiny.safetensors", model.state_dict(), {"config": TINY.as_dict()}, half=True)
    loaded = load(tmp_path / "tiny.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(loaded.get_parameter(name), parameter, rtol=1e-3, atol=1e-6)
    image = torch.zeros(1, 3, TINY.image_size, TINY.image_size)
    assert loaded.image_encoder(image).shape == (1, TINY.prompt_dim, TINY.grid, TINY.grid)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("mask_decoder.iou_token.weight"), "mask_decoder.iou_token.weight is missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra is not part of it"),
        (lambda s: s.update({"image_encoder.pos_embed": torch.zeros(1, 3, 3, 64)}), "pos_embed is .1, 3, 3, 64., expe"),
    ],
    ids=["missing", "foreign", "misshaped"],
)
def test_a_state_that_does_not_fit_is_told_in_one_line(tmp_path, change, told):
    state = dict(random_model(TINY).state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=f"does not fit configuration 'tiny': .*{told}"):
        from_state(state, TINY)
    write_state(tmp_path / "tiny.safetensors", state, {"config": TINY.as_dict()})
    with pytest.raises(CheckpointError, match=told) as caught:
        load(tmp_path / "tiny.safetensors")
    assert str(caught.value).startswith(f"{tmp_path / 'tiny.safetensors'}: ")
    assert "\n" not in str(caught.value)


NAME = "mask_decoder.iou_token.weight"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_a_single_value_that_is_not_finite_is_told_with_its_tensor(tmp_path, value):
    state = dict(random_model(TINY).state_dict())
    state[NAME] = state[NAME].double()
    state[NAME][0, 3] = value
    save_file(state, tmp_path / "x.safetensors", metadata={"gigaseg": json.dumps({"config": TINY.as_dict()})})
    with pytest.raises(CheckpointError, match=rf"x\.safetensors: tensor '{NAME}' holds values that are not finite$"):
        load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.to_sparse(), "is sparse"),
        (lambda t: t.to("meta"), "is without values"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "is quantised"),
        (lambda t: t.to(torch.complex64), "is complex"),
        (lambda t: t.to(torch.int8), "is torch.int8, expected plain floating-point"),
    ],
    ids=["sparse", "meta", "quantised", "complex", "integer"],
)
@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning", "ignore:.*TypedStorage:UserWarning")
def test_a_tensor_of_another_kind_is_refused_in_one_line(tmp_path, change, told):
    state = dict(random_model(TINY).state_dict())
    state[NAME] = change(state[NAME])
    torch.save(state, tmp_path / "x.pth")
    for attempt in (lambda: from_state(state, TINY), lambda: load(tmp_path / "x.pth", TINY)):
        with pytest.raises(CheckpointError, match=f"tensor '{NAME}' {told}") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_weights_that_were_saved_as_parameters_load(tmp_path):
    model = random_model(TINY)
    torch.save({**model.state_dict(), **dict(model.named_parameters())}, tmp_path / "x.pth")
    assert_equal(model, load(tmp_path / "x.pth", TINY))


def test_a_card_with_a_wrong_configuration_is_told_with_the_file(tmp_path):
    state = random_model(TINY).state_dict()
    for config, told in (({**TINY.as_dict(), "heads": "4"}, ": heads is '4', accepted"), (3, " is 3, accepted")):
        write_state(tmp_path / "x.safetensors", state, {"config": config})
        with pytest.raises(CheckpointError, match=rf"x\.safetensors: configuration{told}"):
            load(tmp_path / "x.safetensors")
