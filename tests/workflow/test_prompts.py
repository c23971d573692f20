"""Prompts from the sample sheet, through the workflow: one rule more, and instances that know their prompt."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from cohorts import preset
from gigaseg.instances.table import read_instances
from samples import write_random_sam

TILES = {"tile": 128, "overlap": 32, "tiles_per_shard": 8}


@pytest.fixture
def prompted(cohort):
    """Slide a with the boxes of its discs, b without a prompt file, c by `everything`; random weights."""
    write_random_sam(cohort.folder / "random.safetensors")
    cohort.configure(
        presets={
            "nuclei": preset(segmenter={"name": "prompted", "checkpoint": "random.safetensors"}),
            "zero": preset(
                segmenter={
                    "name": "everything",
                    "checkpoint": "random.safetensors",
                    "options": {"points_per_side": 2, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0},
                },
                tiles={**TILES, "tile": 256, "overlap": 64},
            ),
        }
    )
    rows = [("a", "a.tif", "nuclei", "a.geojson"), ("b", "b.tif", "nuclei", ""), ("c", "a.tif", "zero", "")]
    cohort.sheet(*rows, header="slide\tpath\tpreset\tprompts")
    return cohort


def table(cohort):
    with cohort.path("cohort.tsv").open() as stream:
        return {row["slide"]: row for row in csv.DictReader(stream, delimiter="\t")}


@pytest.mark.slow
def test_prompted_and_everything_run_and_a_slide_without_prompts_fails_alone(prompted):
    done = prompted.snakemake()
    assert done.returncode == 0, done.stderr
    found = table(prompted)
    assert {name: row["status"] for name, row in found.items()} == {"a": "ok", "b": "failed", "c": "ok"}
    assert "needs the column 'prompts' of the sample sheet" in found["b"]["reason"]
    assert found["b"]["step"] == "prompt"
    assert not prompted.path("c", "prompts.parquet").exists()
    assert not prompted.path("a", "run", "tile-000.json").exists(), "only tiles with prompts are read"
    prompts = pq.read_table(prompted.path("a", "prompts.parquet"))
    assert len(prompts) == 24
    instances, _ = read_instances(prompted.path("a", "instances.parquet"), stitched=True)
    assert 0 < len(instances) <= 24
    assert len(np.unique(instances.prompt)) == len(instances), "each prompt is decoded once"
    owner = {p: (r, c) for p, r, c in zip(*(prompts[n].to_pylist() for n in ("prompt", "tile_row", "tile_col")))}
    tiles = zip(instances.tile_row.tolist(), instances.tile_col.tolist())
    assert [owner[p] for p in instances.prompt.tolist()] == list(tiles)
    told = json.loads(prompted.path("a", "summary.json").read_text())["prompts"]
    assert told["objects"] == told["file"]["objects"] == 24
    assert told["instances"] + told["empty"] == 24, "overlaps are kept, so no object is lost to another"
    assert "prompts" not in json.loads(prompted.path("c", "summary.json").read_text())
    assert prompted.planned() == {}

    side = prompted.folder / "a.geojson"
    content = json.loads(side.read_text())
    content["features"] = content["features"][:5]
    side.write_text(json.dumps(content))
    planned = prompted.planned()
    assert planned["prompt"] == planned["grid"] == 1
    assert "tile" not in planned
    prompted.sheet(("a", "a.tif", "nuclei", "a.geojson"), header="slide\tpath\tpreset\tprompts")
    assert prompted.snakemake("results/a/prompts.parquet").returncode == 0
    assert pq.read_table(prompted.path("a", "prompts.parquet"))["prompt"].to_pylist() == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_points_are_hints_where_a_slide_has_some_and_need_nothing_where_it_has_none(cohort, discs):
    cohort.configure(presets={"nuclei": preset(segmenter={"name": "discs"})})
    content = {"type": "FeatureCollection", "features": []}
    for xy in ((118, 50), (10, 10), (-9, 50)):
        feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": xy}}
        content["features"].append(feature)
    content["features"][1]["properties"]["label"] = "negative"
    side = cohort.folder / "points.geojson"
    side.write_text(json.dumps(content))
    cohort.sheet(("a", "a.tif", "points.geojson"), ("b", "b.tif", ""), header="slide\tpath\tprompts")
    done = cohort.snakemake()
    assert done.returncode == 0, done.stderr
    assert {name: row["status"] for name, row in table(cohort).items()} == {"a": "ok", "b": "ok"}
    prompts = pq.read_table(cohort.path("a", "prompts.parquet"))
    assert prompts["feature"].to_pylist() == [0, 1, 0], "the first one in each of its two tiles"
    assert not cohort.path("b", "prompts.parquet").exists()
    assert all(cohort.path(name, "run", "tile-000.json").exists() for name in "ab"), "tile stores serve both"
    told = json.loads(cohort.path("a", "summary.json").read_text())["prompts"]
    assert told == {"file": {"positive": 2, "negative": 1, "other_features": 0, "off_slide": 1, "off_tiles": 0}}
    assert "prompts" not in json.loads(cohort.path("b", "summary.json").read_text())
    instances, _ = read_instances(cohort.path("a", "instances.parquet"), stitched=True)
    assert set(instances.prompt.tolist()) == {-1}
    assert "File positive" in cohort.path("report.html").read_text()
    assert cohort.planned() == {}

    content["features"].pop(0)
    side.write_text(json.dumps(content))
    planned = cohort.planned()
    assert planned["prompt"] == planned["grid"] == 1
    assert planned["segment"] == 2, "the shards of slide a"
    cohort.sheet(("a", "a.tif", ""), ("b", "b.tif", ""), header="slide\tpath\tprompts")
    assert "prompt" not in cohort.planned()
