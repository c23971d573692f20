"""The plan: shards from the header, options for every step, digests that change with what a step depends on only."""

import copy
import json

import numpy as np
import pytest
import tifffile

from gigaseg.errors import ConfigError
from gigaseg.plan import make_plan

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
        ({"segmenter": {"options": {"diameter_um": 9}}}, STEPS[3:]),
        ({"stitch": {"agreement": 0.6}}, STEPS[4:]),
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
    assert after(cohort, tiles=tiles).slides["s"].shards == 6
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
