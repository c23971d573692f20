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
