"""The plan: shards from the header, options for every step, digests that change with what a step depends on only."""

import copy
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from gigaseg.errors import CheckpointError, ConfigError
from gigaseg.plan import make_plan
from gigaseg.segmenters.card import read_card

SHEET = "slide\tpath\tpreset\tpixel_size\tannotations\tgroup\n{}\ts.tif\t{}\t{}\t{}\t{}\n"

STEPS = ["inspect", "grid", "tile", "segment", "stitch", "measure", "export", "overview"]


@pytest.fixture
def cohort(tmp_path):
    """A folder with one slide of 1000 x 800 px of 0.5 um and a config for it."""
    tifffile.imwrite(
        tmp_path / "s.tif", np.zeros((800, 1000, 3), np.uint8), photometric="rgb", tile=(256, 256),
        resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    (tmp_path / "side.geojson").write_text("{}")
    write_sheet(tmp_path)
    return {"slides": str(tmp_path / "slides.tsv"), "results": str(tmp_path / "results"), "presets": {"nuclei": {}}}


def write_sheet(folder, slide="s", preset="nuclei", size="", annotations="", group=""):
    (folder / "slides.tsv").write_text(SHEET.format(slide, preset, size, annotations, group))


def changed(before, after):
    return [step for step in STEPS if before.slides["s"].digests[step] != after.slides["s"].digests[step]]


def after(cohort, **preset):
    content = copy.deepcopy(cohort)
    content["presets"]["nuclei"].update(preset)
    return make_plan(content)


@pytest.mark.parametrize(
    ("preset", "steps"),
    [
        ({}, []),
        ({"unit": "m"}, STEPS),
        ({"working_resolution": 1.0}, STEPS[1:]),
        ({"object_diameter": 10.0}, STEPS[1:]),
        ({"foreground": {"min_fraction": 0.5}}, STEPS[1:]),
        ({"tiles": {"overlap": 32}}, STEPS[1:]),
        ({"tiles": {"materialise": False}}, []),
        ({"segmenter": {"device": "cpu"}}, []),
        ({"segmenter": {"batch_size": 2}}, STEPS[3:]),
        ({"segmenter": {"options": {"threshold": 0.2}}}, STEPS[3:]),
        ({"stitch": {"agreement": 0.6}}, STEPS[4:]),
        ({"stitch": {"regularise": None}}, []),
        ({"stitch": {"regularise": 0.6}}, STEPS[4:]),
        ({"measure": {"quantiles": [0.5]}}, ["measure", "export"]),
        ({"export": ["gpkg"]}, []),
    ],
)
def test_a_key_changes_the_digests_of_its_step_and_of_those_after_it(cohort, preset, steps):
    assert changed(make_plan(cohort), after(cohort, **preset)) == steps


def test_report_keys_change_pictures_or_the_report_alone(cohort):
    before = make_plan(cohort)
    for report, steps in (({"grid_color": "#000000"}, ["overview"]), ({"title": "x"}, [])):
        found = make_plan({**cohort, "report": report})
        assert changed(before, found) == steps
        assert found.digests["report"] != before.digests["report"]
        assert found.digests["aggregate"] == before.digests["aggregate"]


def test_a_changed_slide_row_or_side_file_changes_what_reads_it(cohort, tmp_path):
    write_sheet(tmp_path, annotations="side.geojson")
    before = make_plan(cohort)
    (tmp_path / "side.geojson").write_text('{"a": 1}')
    assert changed(before, make_plan(cohort)) == STEPS[1:]
    (tmp_path / "side.geojson").write_text("{}")
    assert changed(before, make_plan(cohort)) == []
    write_sheet(tmp_path, annotations="side.geojson", group="g")
    regrouped = make_plan(cohort)
    assert changed(before, regrouped) == []
    assert regrouped.digests["aggregate"] != before.digests["aggregate"]
    write_sheet(tmp_path, annotations="side.geojson", size="0.25")
    assert changed(before, make_plan(cohort)) == STEPS
    write_sheet(tmp_path, annotations="side.geojson")
    (tmp_path / "s.tif").unlink()
    assert changed(before, make_plan(cohort)) == STEPS


def test_shards_come_from_the_header_and_an_unreadable_slide_gets_one(cohort, tmp_path):
    tiles = {"tile": 256, "overlap": 0, "tiles_per_shard": 3}
    assert after(cohort, tiles=tiles, working_resolution=0.5).slides["s"].shards == 6
    (tmp_path / "s.tif").write_bytes(b"no picture")
    assert after(cohort, tiles=tiles).slides["s"].shards == 1


def test_headers_are_read_once_while_the_slide_stays_the_same(cohort, tmp_path, monkeypatch):
    import gigaseg.slides.inspect

    reads = []
    real = gigaseg.slides.inspect.header
    monkeypatch.setattr(gigaseg.slides.inspect, "header", lambda *a, **k: reads.append(a) or real(*a, **k))
    first = make_plan(cohort)
    again = make_plan(cohort)
    assert len(reads) == 1
    assert again.slides["s"].shards == first.slides["s"].shards
    after(cohort, tiles={"tile": 128, "overlap": 0})
    assert len(reads) == 2
    cache = tmp_path / "results" / ".headers.json"
    cache.write_text("{broken")
    make_plan(cohort)
    assert len(reads) == 3
    assert json.loads(cache.read_text())


def test_options_carry_the_row_and_the_preset(cohort, tmp_path):
    write_sheet(tmp_path, annotations="side.geojson", size="px")
    options = after(cohort, tiles={"tile": 512}, stitch={"agreement": 0.7}).slides["s"].options
    side = str(tmp_path / "side.geojson")
    assert options["inspect"] == ["--unit=um", "--pixel-size=px"]
    assert options["grid"] == ["--tile=512", f"--side-file={side}"]
    assert options["segment"] == [f"--annotations={side}"]
    assert options["stitch"] == ["--agreement=0.7"]


def test_a_wrong_config_is_an_error_and_a_wrong_row_is_not(cohort, tmp_path):
    with pytest.raises(ConfigError):
        after(cohort, unit="km")
    write_sheet(tmp_path, preset="none")
    plan = make_plan(cohort)
    assert plan.slides == {}
    assert "unknown preset 'none'" in plan.bad_rows[0].reason


def prompted_cohort(cohort, folder, **segmenter):
    """The cohort with points for slide s, and a preset that takes them."""
    (folder / "p.geojson").write_text("{}")
    (folder / "slides.tsv").write_text("slide\tpath\tprompts\ns\ts.tif\tp.geojson\n")
    content = copy.deepcopy(cohort)
    content["presets"]["nuclei"]["segmenter"] = {"name": "prompted", **segmenter}
    return content


def test_prompts_of_the_sheet_run_a_step_of_their_own_before_segment(cohort, tmp_path):
    content = prompted_cohort(cohort, tmp_path, options={"polygons_as": "mask"})
    slide = make_plan(content).slides["s"]
    assert slide.prompted
    assert not slide.stored, "only tiles with prompts are read"
    assert slide.options["prompt"] == ["--polygons-as=mask", f"--prompts={tmp_path / 'p.geojson'}"]
    assert f"--prompts={tmp_path / 'p.geojson'}" in slide.options["grid"]
    assert not make_plan(cohort).slides["s"].prompted


@pytest.mark.parametrize("name", ["centersam", "watershed"])
def test_prompts_without_a_segmenter_that_takes_them_change_nothing(cohort, tmp_path, name):
    cohort["presets"]["nuclei"]["segmenter"] = {"name": name}
    before = make_plan(cohort).slides["s"]
    prompted_cohort(cohort, tmp_path)
    found = make_plan(cohort).slides["s"]
    assert found.digests == before.digests
    assert found.options == before.options
    assert (found.prompted, found.stored) == (False, True)


def test_points_are_optional_for_a_segmenter_that_takes_them(cohort, tmp_path, discs):
    cohort["presets"]["nuclei"]["segmenter"] = {"name": "discs"}
    without = make_plan(cohort).slides["s"]
    assert list(without.digests) == STEPS
    assert (without.prompted, without.stored) == (False, True)
    assert "prompt" not in without.options
    prompted_cohort(cohort, tmp_path)
    found = make_plan(cohort).slides["s"]
    assert (found.prompted, found.stored) == (True, True), "points do not change which tiles are read"
    side = f"--prompts={tmp_path / 'p.geojson'}"
    assert found.options["prompt"] == ["--every-tile", side]
    assert found.options == {
        **without.options,
        "grid": [*without.options["grid"], side],
        "prompt": ["--every-tile", side],
    }
    assert {step for step in found.digests if found.digests[step] != without.digests.get(step)} == {
        *STEPS[1:],
        "prompt",
    }


def test_the_content_of_a_file_of_points_counts(cohort, tmp_path, discs):
    prompted_cohort(cohort, tmp_path)
    cohort["presets"]["nuclei"]["segmenter"] = {"name": "discs"}
    plans = []
    for content in ("{}", '{"a": 1}', "{}"):
        (tmp_path / "p.geojson").write_text(content)
        plans.append(make_plan(cohort).slides["s"].digests)
    assert plans[0]["segment"] != plans[1]["segment"]
    assert plans[0] == plans[2]


def test_a_grid_that_keeps_tiles_of_points_is_another_than_one_of_all_prompts(cohort, tmp_path, monkeypatch):
    """Also where the segmenters' nominal values are the same."""
    prompted = make_plan(prompted_cohort(cohort, tmp_path)).slides["s"].digests
    card = replace(read_card("prompted"), needs_prompts=False, needs_prompts_file=False, takes_points=True)
    monkeypatch.setattr("gigaseg.plan.read_card", lambda name: card)
    found = make_plan(prompted_cohort(cohort, tmp_path)).slides["s"].digests
    assert found["grid"] != prompted["grid"]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"polygons_as": "box"}, []),
        ({"polygons_as": "points"}, ["prompt", *STEPS[3:]]),
        ({"min_score": 0.5}, STEPS[3:]),
    ],
)
def test_an_option_of_prompted_runs_again_what_reads_it(cohort, tmp_path, options, steps):
    before = make_plan(prompted_cohort(cohort, tmp_path)).slides["s"].digests
    found = make_plan(prompted_cohort(cohort, tmp_path, options=options)).slides["s"].digests
    assert {step for step in before if before[step] != found[step]} == set(steps)


def test_changed_prompts_run_again_from_the_grid_on(cohort, tmp_path):
    content = prompted_cohort(cohort, tmp_path)
    before = make_plan(content).slides["s"].digests
    (tmp_path / "p.geojson").write_text('{"a": 1}')
    found = make_plan(content).slides["s"].digests
    assert {step for step in before if before[step] != found[step]} == {*STEPS[1:], "prompt"}


def test_the_content_of_a_checkpoint_counts_not_its_name(cohort, tmp_path):
    digests = []
    for name, content in (("a.pth", b"1"), ("a.pth", b"2"), ("b.pth", b"1")):
        (tmp_path / name).write_bytes(content)
        plan = make_plan(prompted_cohort(cohort, tmp_path, checkpoint=str(tmp_path / name)))
        digests.append(plan.slides["s"].digests["segment"])
    assert digests[0] != digests[1]
    assert digests[0] == digests[2]
    official = [
        make_plan(prompted_cohort(cohort, tmp_path, checkpoint=name)).slides["s"] for name in ("vit_b", "vit_l")
    ]
    assert official[0].digests["segment"] != official[1].digests["segment"], "known without the files"
    with pytest.raises(CheckpointError, match=r"unknown checkpoint 'vit_x'; accepted: .*vit_b"):
        make_plan(prompted_cohort(cohort, tmp_path, checkpoint="vit_x"))


def test_the_published_base_of_a_checkpoint_of_changes_is_fetched_with_it(cohort, tmp_path):
    card = json.dumps({"base": {"name": "vit_b", "sha256": "0" * 64}})
    header = json.dumps({"__metadata__": {"gigaseg": card}}).encode()
    delta = tmp_path / "delta.safetensors"
    delta.write_bytes(len(header).to_bytes(8, "little") + header)
    assert make_plan(prompted_cohort(cohort, tmp_path, checkpoint=str(delta))).checkpoints == [str(delta), "vit_b"]
    delta.write_bytes(len(header).to_bytes(8, "little") + header.replace(b"vit_b", b"x.pth"))
    assert make_plan(prompted_cohort(cohort, tmp_path, checkpoint=str(delta))).checkpoints == [str(delta)]


def test_planning_a_prompted_cohort_loads_no_torch(cohort, tmp_path):
    content = prompted_cohort(cohort, tmp_path, checkpoint="vit_b")
    code = f"import sys; from gigaseg.plan import make_plan; make_plan({content!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


PROPOSED = [*STEPS[:3], "propose", "prompt", *STEPS[3:]]


def proposing(cohort, preset=None, **segmenter):
    content = copy.deepcopy(cohort)
    content["presets"]["nuclei"] = {"segmenter": {"name": "spots", **segmenter}, **(preset or {})}
    return make_plan(content).slides["s"]


def test_a_segmenter_that_proposes_points_runs_two_steps_before_segment(cohort, tmp_path, spots):
    slide = proposing(cohort, options={"radius": 4})
    assert list(slide.digests) == PROPOSED
    assert (slide.prompted, slide.proposes, slide.stored) == (True, True, True)
    assert slide.options["propose"] == slide.options["prompt"] == ["--segmenter=spots", "--set=radius=4"]
    assert not make_plan(cohort).slides["s"].proposes
    prompted_cohort(cohort, tmp_path)
    found = proposing(cohort, options={"radius": 4})
    assert (found.digests, found.options) == (slide.digests, slide.options), "a file of prompts has no say"


@pytest.mark.parametrize(
    ("preset", "segmenter", "steps"),
    [
        ({}, {"options": {"radius": 4}}, PROPOSED[3:]),
        ({}, {"batch_size": 2}, PROPOSED[3:]),
        ({}, {"overlaps": "keep"}, PROPOSED[5:]),
        ({}, {"device": "cpu"}, []),
        ({"tiles": {"overlap": 16}}, {}, PROPOSED[1:]),
        ({"stitch": {"agreement": 0.4}}, {}, PROPOSED[6:]),
        ({"classes": {"dim": {"name": "stroma"}}}, {}, PROPOSED[5:]),
        ({"classes": {"dim": {"name": "dim"}}}, {}, []),
        ({"classes": {"dim": {"color": "#ff0000"}}}, {}, ["export", "overview"]),
        ({"classes": {}}, {}, []),
    ],
)
def test_what_runs_again_where_points_are_proposed(cohort, spots, preset, segmenter, steps):
    before, found = proposing(cohort), proposing(cohort, preset, **segmenter)
    assert [step for step in PROPOSED if before.digests[step] != found.digests[step]] == steps


def test_a_class_table_goes_to_segment_its_colours_to_exports_and_pictures(cohort, spots):
    table = {"dim": {"name": "stroma", "color": "#ff0000"}, "bright": {"name": "tumour 1"}}
    found = proposing(cohort, {"classes": table})
    assert [word for word in found.options["segment"] if "class" in word] == [
        "--class-name=bright=tumour 1",
        "--class-name=dim=stroma",
    ]
    assert found.options["export"] == ["--class-color=stroma=#ff0000"]
    assert "--class-color=stroma=#ff0000" in found.options["overview"]
    assert not [word for word in found.options["propose"] + found.options["prompt"] if "class" in word]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"dimm": {}}, "presets.nuclei.classes: unknown class 'dimm'; accepted: dim, bright (did you mean 'dim'?)"),
        ({"dim": {"color": "red"}}, "presets.nuclei.classes.dim.color is 'red', accepted: a colour as #rrggbb"),
        ({"dim": {"name": ""}}, "presets.nuclei.classes.dim.name is '', accepted: a text or null"),
        ({"dim": "stroma"}, "presets.nuclei.classes.dim is 'stroma', accepted: a mapping of name, color"),
        (
            {"dim": {"name": "a", "color": "#000000"}, "bright": {"name": "a", "color": "#ffffff"}},
            "but '#ffffff' for another class of the name 'a'; accepted: one colour a name",
        ),
    ],
)
def test_a_wrong_class_table_is_told(cohort, spots, table, told):
    with pytest.raises(ConfigError) as caught:
        proposing(cohort, {"classes": table})
    assert told in str(caught.value)


def test_classes_of_a_checkpoint_or_a_file_are_not_known_beforehand(cohort):
    for segmenter in ({"name": "annotations"}, {"name": "prompted"}):
        content = copy.deepcopy(cohort)
        content["presets"]["nuclei"] = {"segmenter": segmenter, "classes": {"Tumour": {"name": "t"}}}
        assert make_plan(content).slides["s"].options["segment"][-1] == "--class-name=Tumour=t"
