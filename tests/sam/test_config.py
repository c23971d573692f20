"""Configurations and how the shapes of weights tell them."""

from dataclasses import replace

import pytest

from gigaseg.errors import CheckpointError
from gigaseg.sam.config import CONFIGS, SamConfig, infer_config
from gigaseg.sam.model import build
from sam_models import TINY


@pytest.mark.parametrize("name", CONFIGS)
def test_the_shapes_of_a_state_dict_tell_its_configuration(name):
    assert infer_config(build(CONFIGS[name], "meta").state_dict()) is CONFIGS[name]


@pytest.mark.parametrize("change", [{"depth": 11}, {"window": 7}, {"heads": 8}, {"decoder_mlp": 256}, {"patch": 16}])
def test_weights_of_another_model_are_told_with_the_known_ones(change):
    state = build(replace(CONFIGS["small"], **change), "meta").state_dict()
    with pytest.raises(CheckpointError, match=r"found .*blocks.*; known: vit_b, vit_l, vit_h, small") as caught:
        infer_config(state)
    assert "\n" not in str(caught.value)


def test_weights_of_no_sam_at_all_are_told():
    with pytest.raises(CheckpointError, match="found no tensor of a SAM model; known: vit_b"):
        infer_config({})


def test_a_configuration_survives_a_card():
    assert SamConfig.from_dict(TINY.as_dict()) == TINY


def test_a_card_with_a_wrong_field_is_told():
    with pytest.raises(CheckpointError, match=r"unknown field 'dept'.*did you mean 'depth'"):
        SamConfig.from_dict({"dept": 3})
    with pytest.raises(CheckpointError, match=r"configuration is incomplete .*heads"):
        SamConfig.from_dict({key: value for key, value in TINY.as_dict().items() if key != "heads"})


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("name", 3, "name is 3, accepted: a text"),
        ("depth", "six", "depth is 'six', accepted: an integer from 1 to 1024"),
        ("depth", True, "depth is True, accepted: an integer"),
        ("depth", 10**400, r"depth is 10+\.\.\., accepted: an integer from 1 to 1024"),
        ("embed_dim", 64.0, r"embed_dim is 64\.0, accepted: an integer"),
        ("window", 0, "window is 0, accepted: an integer from 1"),
        ("global_blocks", 3, "global_blocks is 3, accepted: different integers from 0 to 3"),
        ("global_blocks", [1, 4], r"global_blocks is \[1, 4\], accepted: different integers from 0 to 3"),
        ("global_blocks", [1, 1], r"global_blocks is \[1, 1\]"),
        ("mlp_ratio", float("nan"), "mlp_ratio is nan, accepted: a number above 0"),
        ("mlp_ratio", 10**400, "mlp_ratio is 10"),
        ("pixel_mean", [1.0, 2.0], r"pixel_mean is \[1\.0, 2\.0\], accepted: three finite numbers"),
        ("pixel_mean", [1.0, 2.0, float("inf")], "pixel_mean is .*inf.*, accepted: three finite numbers"),
        ("pixel_std", ["a", "b", "c"], "pixel_std is .*, accepted: three finite numbers"),
        ("pixel_std", [1.0, 0.0, 1.0], "pixel_std is .*, accepted: three numbers above 0"),
        ("image_size", 100, r"image_size is 100, accepted: a multiple of patch \(8\)"),
        ("heads", 3, r"embed_dim is 64, accepted: a multiple of heads \(3\)"),
        ("decoder_heads", 5, r"prompt_dim is 32, accepted: a multiple of 8, and of twice decoder_heads \(40\)"),
        ("mask_channels", 6, "mask_channels is 6, accepted: a multiple of 4$"),
    ],
)
def test_a_card_with_a_wrong_value_is_told_in_one_line(field, value, told):
    with pytest.raises(CheckpointError, match=f"configuration: {told}") as caught:
        SamConfig.from_dict({**TINY.as_dict(), field: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("card", [None, 3, "small", [1, 2]])
def test_a_card_whose_configuration_is_no_object_is_told(card):
    with pytest.raises(CheckpointError, match=r"configuration is .*, accepted: an object"):
        SamConfig.from_dict(card)
