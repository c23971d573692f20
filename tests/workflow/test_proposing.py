"""A segmenter that proposes points and knows two classes, through the workflow, with a class table."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from cohorts import preset
from gigaseg.instances.table import read_instances
from proposing import spots_slide

CLASSES = {"dim": {"name": "stroma", "color": "#ff0000"}, "bright": {"name": "tumour", "color": "#0000ff"}}


@pytest.mark.slow
def test_points_are_proposed_merged_and_segmented_and_classes_have_the_names_and_colours_of_the_preset(cohort, spots):
    image, discs = spots_slide((300, 420), 60, seed=8)
    tifffile.imwrite(
        cohort.folder / "a.tif", image, photometric="rgb", tile=(128, 128), resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    sections = {"segmenter": {"name": "spots", "device": "cpu"}, "classes": CLASSES}
    cohort.configure(presets={"nuclei": preset(**sections)})
    cohort.sheet(("a", "a.tif"), header="slide\tpath")
    done = cohort.snakemake()
    assert done.returncode == 0, done.stderr

    instances, metadata = read_instances(cohort.path("a", "instances.parquet"), stitched=True)
    assert instances.classes == ("stroma", "tumour")
    assert len(np.unique(instances.prompt)) == len(instances) == 60
    assert metadata["prompts"]["file"]["objects"] == 60
    prompts = pq.read_table(cohort.path("a", "prompts.parquet"))
    assert prompts["class"].to_pylist().count("dim") == (discs[:, 3] == 0).sum(), "the model's own words"
    assert cohort.path("a", "run", "tile-000.json").exists()
    shards = sorted(path.name for path in cohort.path("a", "prompts").iterdir())
    assert shards == ["000.parquet", "001.parquet"]
    assert list(cohort.path("a", "tiles").glob("*.zip")) == [], "gone once they are read"

    of = {"stroma": int((discs[:, 3] == 0).sum()), "tumour": int((discs[:, 3] == 1).sum())}
    features = json.loads(cohort.path("a", "export", "instances.geojson").read_text())["features"]
    named = [feature["properties"]["classification"] for feature in features]
    assert {entry["name"]: entry["color"] for entry in named} == {"stroma": [255, 0, 0], "tumour": [0, 0, 255]}
    assert {name: sum(entry["name"] == name for entry in named) for name in of} == of
    summary = json.loads(cohort.path("a", "summary.json").read_text())
    assert {name: summary["classes"][name]["instances"] for name in of} == of
    assert {name: summary["classes"][name]["fraction"] for name in of} == pytest.approx(
        {name: count / 60 for name, count in of.items()}
    )
    with cohort.path("cohort.tsv").open() as stream:
        rows = {row["slide"]: row for row in csv.DictReader(stream, delimiter="\t")}
    assert any("stroma" in name for name in rows["a"])
    assert not any("dim" in name for name in rows["a"])
    page = cohort.path("report.html").read_text()
    assert "propose" in page
    assert "tumour" in page
    assert cohort.planned() == {}

    sections["classes"] = {**CLASSES, "dim": {"name": "stroma", "color": "#00ff00"}}
    cohort.configure(presets={"nuclei": preset(**sections)})
    assert set(cohort.planned()) == {"export", "overview", "report"}
    sections["classes"]["dim"]["name"] = "other"
    cohort.configure(presets={"nuclei": preset(**sections)})
    planned = cohort.planned()
    assert planned["segment"] == 2
    assert not {"tile", "propose", "prompt"} & set(planned)
