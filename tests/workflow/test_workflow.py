"""The workflow as a whole, run by Snakemake on small real files."""

import csv
import json
import os
import subprocess
import sys

import geopandas
import numpy as np
import pytest

from cohorts import ONE_SHARD, ROOT, TILES, preset, write_slide
from gigaseg.files import read_failure
from gigaseg.instances.table import read_instances


def rows(cohort):
    with cohort.path("cohort.tsv").open() as stream:
        return {row["slide"]: row for row in csv.DictReader(stream, delimiter="\t")}


def test_a_cohort_runs_and_a_second_run_has_nothing_to_do(finished):
    table = rows(finished)
    assert {name: (row["status"], row["instances"], row["group"]) for name, row in table.items()} == {
        "a": ("ok", "24", "x"),
        "b": ("ok", "24", "y"),
    }
    assert len(list(finished.path("a", "instances").iterdir())) == 2, "two shards"
    assert not list(finished.path("a").glob("tiles/*")), "tile stores are temporary"
    assert not list(finished.path("a").glob(".parts/*"))
    for name in ("slide.json", "grid.parquet", "foreground.tif", "measurements.parquet", "overview.png"):
        assert finished.path("a", name).stat().st_size > 0
    assert len(json.loads(finished.path("a", "export", "instances.geojson").read_text())["features"]) == 24
    assert "<html" in finished.path("report.html").read_text()
    assert finished.planned() == {}
    assert finished.snakemake("gate").returncode == 0


def test_tiles_in_stores_and_tiles_from_the_slide_give_the_same_instances(cohort):
    stored = preset(segmenter={"name": "watershed"})
    direct = preset(segmenter={"name": "watershed"}, tiles={**TILES, "materialise": False})
    cohort.configure(presets={"stored": stored, "direct": direct})
    cohort.sheet(("a", "a.tif", "stored"), ("b", "a.tif", "direct"), header="slide\tpath\tpreset")
    done = cohort.snakemake("results/a/instances.parquet", "results/b/instances.parquet")
    assert done.returncode == 0, done.stderr
    stored, direct = (read_instances(cohort.path(name, "instances.parquet"), stitched=True)[0] for name in "ab")
    assert len(stored) > 10
    assert stored.to_arrow().equals(direct.to_arrow())
    assert "rule tile:" in done.stderr


def test_a_failed_slide_stops_no_other_and_a_repair_runs_only_what_is_missing(cohort):
    whole = (cohort.folder / "b.tif").read_bytes()
    (cohort.folder / "cut.tif").write_bytes(whole[: len(whole) // 3])
    cohort.configure(presets={"nuclei": preset(tiles=ONE_SHARD)})
    cohort.sheet(
        ("a", "a.tif", "", "a.geojson", ""),
        ("cut", "cut.tif", "", "b.geojson", ""),
        ("missing", "none.tif", "", "b.geojson", ""),
        ("a", "b.tif", "", "b.geojson", ""),
        ("b", "b.tif", "", "b.geojson", ""),
    )
    done = cohort.snakemake()
    assert done.returncode == 0, done.stderr
    table = rows(cohort)
    assert {name: row["status"] for name, row in table.items()} == {
        "a": "ok", "b": "ok", "cut": "failed", "missing": "failed", "a (line 5)": "failed",
    }  # fmt: skip
    assert "none.tif" in table["missing"]["reason"]
    assert table["missing"]["step"] == "inspect"
    assert "cut.tif" in table["cut"]["reason"]
    assert "already on line 2" in table["a (line 5)"]["reason"]
    assert read_failure(cohort.path("missing", "instances.parquet")) is not None
    report = cohort.path("report.html").read_text()
    for name in ("missing", "cut", "a (line 5)"):
        assert table[name]["reason"].split(":")[0] in report
    gate = cohort.snakemake("gate")
    assert gate.returncode != 0
    assert "3 slides failed" in cohort.path("log", "gate.log").read_text()
    (cohort.folder / "cut.tif").write_bytes(whole)
    write_slide(cohort.folder / "none.tif", 3)
    planned = cohort.planned()
    assert planned["inspect"] == planned["stitch"] == 2
    done = cohort.snakemake()
    assert done.returncode == 0, done.stderr
    assert {name: row["status"] for name, row in rows(cohort).items() if row["status"] != "ok"} == {
        "a (line 5)": "failed"
    }


def test_a_changed_parameter_runs_its_step_and_what_follows_and_nothing_before(finished):
    finished.configure(presets={"nuclei": preset(stitch={"agreement": 0.6})})
    assert set(finished.planned()) == {"stitch", "measure", "export", "overview", "aggregate", "report"}
    finished.configure(presets={"nuclei": preset()}, report={"instance_color": "#ff0000"})
    assert set(finished.planned()) == {"overview", "report"}
    finished.configure(presets={"nuclei": preset()}, report={"title": "other"})
    assert set(finished.planned()) == {"report"}
    finished.configure(presets={"nuclei": preset(export=["geojson", "gpkg"])})
    assert finished.planned() == {"export": 2, "report": 1}
    finished.configure(presets={"nuclei": preset(foreground={"method": "tissue"})})
    planned = finished.planned()
    assert {"grid", "tile", "segment", "stitch", "measure"} <= set(planned)
    assert "inspect" not in planned


def test_exports_that_are_folders_are_made_and_one_of_a_failed_slide_is_a_folder_that_says_so(finished):
    import zarr

    finished.configure(presets={"nuclei": preset(export=["geojson", "ome-zarr"])})
    (finished.folder / "b.tif").unlink()
    done = finished.snakemake()
    assert done.returncode == 0, done.stderr
    store = finished.path("a", "export", "instances.ome.zarr")
    assert np.unique(zarr.open_group(store, mode="r")["0"][:]).tolist() == list(range(25))
    assert "b.tif" in read_failure(finished.path("b", "export", "instances.ome.zarr"))[1]
    assert finished.planned() == {}


def test_changed_side_files_and_slides_run_again_and_only_theirs(finished):
    side = finished.folder / "a.geojson"
    content = json.loads(side.read_text())
    content["features"] = content["features"][:5]
    side.write_text(json.dumps(content))
    planned = finished.planned()
    assert planned["stitch"] == 1
    assert "inspect" not in planned
    write_slide(finished.folder / "b.tif", 9)
    assert finished.planned()["inspect"] == 1
    assert finished.snakemake().returncode == 0
    assert rows(finished)["a"]["instances"] == "5"
    assert finished.planned() == {}


def test_stale_results_do_not_survive_a_rerun_that_broke(finished):
    """Change a parameter, let a step of the rerun fail: the next run must not call the old cohort table done."""
    before = finished.path("cohort.parquet").read_bytes()
    finished.configure(presets={"nuclei": preset(stitch={"agreement": 0.7})})
    assert finished.snakemake(broken="measure").returncode != 0
    assert finished.path("cohort.parquet").read_bytes() == before, "the old table is still there"
    planned = finished.planned()
    assert planned["measure"] == 2
    assert planned["aggregate"] == planned["report"] == 1
    assert finished.snakemake().returncode == 0
    assert finished.path("cohort.parquet").read_bytes() != before, "its metadata holds the new digest"
    assert finished.planned() == {}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"presets": {"nuclei": {"tiles": {"overlapp": 3}}}}, "unknown key 'overlapp'"),
        ({"presets": {"nuclei": {"tiles": {"tile": 100000}}}}, "presets.nuclei.tiles.tile is 100000"),
        ({"slides": "nowhere.tsv"}, "nowhere.tsv: cannot be read"),
    ],
)
def test_a_config_mistake_is_one_line_of_ours(cohort, section, words):
    cohort.configure(**section)
    done = cohort.snakemake("--dry-run")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("gigaseg: ")]
    assert words in line
    assert "Traceback" not in done.stderr


def test_the_report_of_snakemake_has_labelled_categories(finished):
    done = finished.snakemake("--report", "snakemake-report.html")
    assert done.returncode == 0, done.stderr
    text = (finished.folder / "snakemake-report.html").read_text()
    assert "overview.png" in text
    assert "Slides" in text


def test_the_catalog_entry_runs_the_same_targets(cohort):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile"), "--dry-run"]
        + ["--configfile", "mine.yaml"],
        cwd=cohort.folder, capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "stitch" in done.stdout + done.stderr


def test_regions_of_the_sheet_are_reported_and_changed_ones_run_measure_but_not_stitch(cohort):
    cohort.configure(presets={"nuclei": preset(export=[], tiles=ONE_SHARD)})
    half = {"type": "Polygon", "coordinates": [[[0, 0], [210, 0], [210, 300], [0, 300], [0, 0]]]}
    regions = cohort.folder / "regions.geojson"

    def write(name):
        feature = {"type": "Feature", "properties": {"name": name}, "geometry": half}
        regions.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))

    write("left")
    cohort.sheet(
        ("a", "a.tif", "a.geojson", "regions.geojson"), ("b", "b.tif", "b.geojson", ""),
        header="slide\tpath\tannotations\tregions",
    )  # fmt: skip
    done = cohort.snakemake()
    assert done.returncode == 0, done.stderr
    with cohort.path("cohort.tsv").open() as stream:
        found = [(row["slide"], row["region"]) for row in csv.DictReader(stream, delimiter="\t")]
    assert found == [("a", ""), ("a", "left"), ("b", "")]
    assert geopandas.read_file(cohort.path("a", "regions.gpkg"))["region"].tolist() == ["left"]
    assert not cohort.path("b", "regions.gpkg").exists()
    pooled = cohort.path("cohort_measurements.tsv").read_text()
    assert "haematoxylin_od_mean" in pooled
    assert cohort.planned() == {}
    write("west")
    planned = cohort.planned()
    assert planned["measure"] == planned["regions"] == 1
    assert "stitch" not in planned
