"""What a density regressor's card may say."""

import json

import pytest

from gigaseg.errors import CheckpointError
from gigaseg.segmenters.persense.config import DensityConfig


def test_a_configuration_survives_its_card():
    config = DensityConfig(8, 2, "batch", 1, 16, 1.5, ("building",))
    assert DensityConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    assert DensityConfig.from_dict({}) == DensityConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "persense is 'None', accepted: an object of classes, diameter, levels,"),
        ({"depth": 3}, "accepted: an object of"),
        ({"width": 0}, "width is '0', accepted: an integer from 1 to 4096"),
        ({"width": 8.0}, "width is '8.0', accepted: an integer"),
        ({"levels": True}, "levels is 'True', accepted: an integer"),
        ({"reduction": 17}, "reduction is '17', accepted: an integer from 1 to 16"),
        ({"norm": "layer"}, "norm is 'layer', accepted: batch, group"),
        ({"norm": ["group"]}, "accepted: batch, group"),
        ({"sigma": 0}, "sigma is '0', accepted: a number from 0.5 to 128"),
        ({"diameter": float("nan")}, "diameter is 'nan', accepted: a number from 0.5 to 1024"),
        ({"classes": []}, "accepted: one name"),
        ({"classes": ["a", "b"]}, "accepted: one name"),
        ({"classes": "nucleus"}, "accepted: one name"),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_line(values, message):
    with pytest.raises(CheckpointError) as error:
        DensityConfig.from_dict(values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
