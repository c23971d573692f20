"""Config mistakes are told in one line each: key path, value found, values accepted."""

from pathlib import Path

import pytest
import yaml

from gigaseg.config import Config, Preset, SegmenterConfig, StitchConfig, TilesConfig, load_config
from gigaseg.errors import ConfigError
from gigaseg.options import add_options, from_options, step_options, to_options
from gigaseg.schema import config_schema

ROOT = Path(__file__).parents[1]


def preset(**keys):
    return {"presets": {"nuclei": keys}}


def test_the_shipped_config_states_the_defaults():
    shipped = load_config(yaml.safe_load((ROOT / "config.yaml").read_text()))
    assert shipped.presets["nuclei"] == Preset()
    assert shipped.report == Config().report
    assert (shipped.slides, shipped.results) == (Config().slides, Config().results)


def test_the_schema_file_is_the_one_the_dataclasses_make():
    path = ROOT / "workflow" / "schemas" / "config.schema.yaml"
    expected = yaml.safe_load(yaml.safe_dump(config_schema()))
    assert yaml.safe_load(path.read_text()) == expected, "run: python -m gigaseg.schema > " + str(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"slide": "x"}, ["unknown key 'slide'", "did you mean 'slides'?"]),
        ({"slides": 3}, ["slides is 3", "a text"]),
        (preset(tiles={"overlap": 600}), ["presets.nuclei.tiles.overlap is 600", "0 .. 256"]),
        (
            preset(tiles={"tile": "big"}),
            ["presets.nuclei.tiles.tile is 'big'", "a whole number from 16 to 16384 or null"],
        ),
        (preset(tiles={"tile": 512.5}), ["presets.nuclei.tiles.tile is 512.5"]),
        (preset(tiles={"materialise": "yes"}), ["materialise is 'yes'", "true or false"]),
        (preset(tiles=7), ["presets.nuclei.tiles is 7", "a mapping of tile, overlap"]),
        (preset(stitch={"agreement": 0}), ["stitch.agreement is 0", "from 0.01 to 1"]),
        (preset(stitch={"regularise": 0}), ["stitch.regularise is 0", "a number >= 1e-09 or null"]),
        (preset(working_resolution=float("nan")), ["working_resolution is nan", "a number"]),
        (preset(working_resolution=0.5, object_diameter=8), ["are both set, accepted: one of them"]),
        (preset(unit="km"), ["presets.nuclei.unit is 'km', accepted: um, m"]),
        (preset(foreground={"method": "tisue"}), ["foreground.method is 'tisue'", "tissue"]),
        (preset(measure={"quantiles": [0.5, 2]}), ["measure.quantiles is [0.5, 2]", "a list of numbers from 0 to 1"]),
        (preset(export=["geojsn"]), ["unknown format 'geojsn'", "did you mean 'geojson'?"]),
        (preset(segmenter={"name": "watershd"}), ["unknown segmenter 'watershd'", "did you mean 'watershed'?"]),
        (preset(segmenter={"options": {"nope": 1}}), ["unknown option 'nope'"]),
        (
            preset(segmenter={"name": "prompted", "options": {"window": -3}}),
            ["option 'window' is -3", "from -1 to 1024"],
        ),
        (
            preset(segmenter={"name": "everything", "options": {"points_per_side": 0}}),
            ["presets.nuclei.segmenter: ", "option 'points_per_side' is 0", "from 1 to 1024"],
        ),
        (
            preset(segmenter={"name": "prompted", "options": {"polygons_as": "dots"}}),
            ["'dots', accepted: box, mask, points"],
        ),
        (preset(segmenter={"name": "prompted", "options": {"precision": "fp8"}}), ["'fp8', accepted: auto, fp32"]),
        (preset(segmenter={"overlaps": "both"}), ["segmenter.overlaps is 'both', accepted: exclusive, keep or null"]),
        (preset(segmenter={"name": "annotations"}, object_diameter=8), ["takes any size"]),
        ({"report": {"grid_color": "red"}}, ["report.grid_color is 'red'", "#rrggbb"]),
        ({"presets": {}}, ["presets is empty"]),
        ({"presets": {1: {}}}, ["presets has the name 1, accepted: a text"]),
        ({"presets": {"-x": {}}}, ["presets has the name '-x'"]),
        ({"results": "r{x}"}, ["results is 'r{x}', accepted: a folder without braces"]),
        (preset(segmenter={"device": "gpu"}), ["segmenter.device is 'gpu'", "cuda:N"]),
        (preset(segmenter={"checkpoint": "nope.pth"}), ["segmenter.checkpoint is 'nope.pth', no such file"]),
    ],
)
def test_a_mistake_names_key_value_and_what_is_accepted(content, words):
    with pytest.raises(ConfigError) as caught:
        load_config(content)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("config.yaml: ")
    for word in words:
        assert word in line


def test_all_mistakes_are_told_at_once_a_line_each():
    with pytest.raises(ConfigError) as caught:
        load_config({"slides": 3, "presets": {"a": {"unit": "km", "tiles": {"tile": 3}}}})
    assert len(str(caught.value).splitlines()) == 3


def test_a_section_left_empty_is_all_defaults():
    assert load_config({"presets": {"nuclei": {"tiles": None}}, "report": None}) == Config()


def test_options_give_back_the_config_they_were_made_from():
    import argparse

    parser = argparse.ArgumentParser()
    given = [
        SegmenterConfig(name="annotations", batch_size=3, overlaps="keep", options={"a": "1", "b": "x y"}),
        TilesConfig(tile=512, overlap=0, materialise=False),
        StitchConfig(agreement=0.7, regularise=0.6),
    ]
    for config in given:
        add_options(parser, type(config))
    args = parser.parse_args([word for config in given for word in to_options(config)])
    assert [from_options(type(config), args) for config in given] == given


def test_a_wrong_option_names_its_flag():
    import argparse

    parser = argparse.ArgumentParser()
    add_options(parser, TilesConfig)
    with pytest.raises(ConfigError, match=r"--tiles-per-shard is 'x', accepted: a whole number from 1 to 1e\+09"):
        from_options(TilesConfig, parser.parse_args(["--tiles-per-shard", "x"]))


def test_defaults_need_no_options():
    assert all(not words or step == "inspect" for step, words in step_options(Preset(), Config().report).items())
