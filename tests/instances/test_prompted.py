"""The segment step with prompts: each object once, from its tile, and tiles without prompts are not looked at."""

import json
import logging
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile

from gigaseg.config import ForegroundConfig, MeasureConfig, Preset, SegmenterConfig, TilesConfig
from gigaseg.errors import CheckpointError, FormatError, SegmenterError
from gigaseg.instances.segment import segment
from gigaseg.instances.table import Instances, read_instances
from gigaseg.measure.measure import measure
from gigaseg.prompts.prompt import prompt
from gigaseg.slides.inspect import inspect
from gigaseg.stitch.stitch import stitch
from gigaseg.tiles.grid import grid
from gigaseg.tiles.store import tile
from samples import write_random_sam

PRESET = Preset(
    segmenter=SegmenterConfig(name="prompted"),
    foreground=ForegroundConfig(method="all"),
    tiles=TilesConfig(tile=128, overlap=32, tiles_per_shard=8),
)
POINTS = [(20, 20), (118, 30), (250, 150), (400, 280), (105, 150), (262, 146)]


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A picture of 420 x 300 px with noise, six points with classes, boxes drawn several times, and random weights."""
    folder = tmp_path_factory.mktemp("slide")
    noise = np.random.default_rng(0).integers(0, 256, (300, 420, 3)).astype(np.uint8)
    tifffile.imwrite(folder / "s.tif", noise, photometric="rgb", tile=(64, 64))
    inspect(folder / "s.tif", slide="s", pixel_size="px").write(folder / "slide.json")
    features = [
        {"type": "Feature", "properties": {"class": "ab"[i % 2]}, "geometry": {"type": "Point", "coordinates": xy}}
        for i, xy in enumerate(POINTS)
    ]
    side = folder / "p.geojson"
    side.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    grid(folder / "slide.json", folder / "grid.parquet", folder / "fg.tif", preset=PRESET, prompts=side)
    prompt(folder / "slide.json", folder / "grid.parquet", folder / "fg.tif", folder / "p.parquet", prompts=side)
    boxes = [shapely.box(20, 20, 60, 60)] * 3 + [shapely.box(250, 200, 300, 240)] * 2
    crowd = [{"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(box))} for box in boxes]
    side = folder / "crowd.geojson"
    side.write_text(json.dumps(crowd))
    prompt(folder / "slide.json", folder / "grid.parquet", folder / "fg.tif", folder / "crowd.parquet", prompts=side)
    write_random_sam(folder / "random.safetensors")
    return folder


def run(slide, shard, out, prompts="p.parquet", tiles=None, workers=1, **changes):
    keys = {"name": "prompted", "batch_size": 2, "checkpoint": str(slide / "random.safetensors")}
    segmenter = SegmenterConfig(**{**keys, **changes})
    file = slide / prompts if prompts else None
    inputs = slide / "slide.json", slide / "grid.parquet"
    return segment(*inputs, shard, out, segmenter=segmenter, prompts=file, tiles=tiles, workers=workers)


def shards_of(slide, folder, **changes):
    """Both shards and their metadata."""
    paths = [folder / f"{k:03d}.parquet" for k in range(2)]
    for k, path in enumerate(paths):
        run(slide, k, path, **changes)
    return paths, [read_instances(path, stitched=False)[1] for path in paths]


def test_each_prompt_becomes_one_instance_of_its_class_with_its_id(slide, tmp_path, caplog):
    shards = [tmp_path / "instances" / f"{k:03d}.parquet" for k in range(2)]
    with caplog.at_level(logging.INFO):
        counts = [run(slide, k, path) for k, path in enumerate(shards)]
    assert sum(counts) == 6
    found = Instances.concat([read_instances(path, stitched=False)[0] for path in shards])
    assert found.classes == ("a", "b")
    prompts = pq.read_table(slide / "p.parquet").to_pylist()
    kept = {row["prompt"]: row for row in prompts}
    assert sorted(found.prompt.tolist()) == list(range(6))
    for i in range(len(found)):
        row = kept[int(found.prompt[i])]
        assert (row["tile_row"], row["tile_col"]) == (found.tile_row[i], found.tile_col[i])
        assert row["class"] == found.classes[found.class_index[i]]
    with_prompts = {(row["tile_row"], row["tile_col"]) for row in prompts}
    said = [int(text.split(" instances in ")[1].split()[0]) for text in caplog.messages if " instances in " in text]
    assert sum(said) == len(with_prompts) < 15, "of the grid's tiles"


def test_nothing_is_lost_by_default_and_what_exclusivity_takes_is_told(slide, tmp_path, caplog):
    _, kept = shards_of(slide, tmp_path / "keep", prompts="crowd.parquet")
    assert [metadata["overlaps"] for metadata in kept] == ["keep", "keep"]
    assert [metadata["prompts"]["instances"] for metadata in kept] == [3, 2]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING and "have an instance" in r.message]
    paths, exclusive = shards_of(slide, tmp_path / "exclusive", prompts="crowd.parquet", overlaps="exclusive")
    assert [pq.read_metadata(path).num_rows for path in paths] == [1, 1]
    for metadata, objects in zip(exclusive, (3, 2)):
        told = {name: metadata["prompts"][name] for name in ("objects", "instances", "lost_to_others", "empty")}
        assert told == {"objects": objects, "instances": 1, "lost_to_others": objects - 1, "empty": 0}
    lines = [r.message for r in caplog.records if r.levelno >= logging.WARNING and "have an instance" in r.message]
    assert len(lines) == 2
    assert "2 objects all of whose pixels went to masks of higher score" in lines[0]


def middle_score(slide, folder):
    paths, _ = shards_of(slide, folder / "all")
    return float(np.median(np.concatenate([pq.read_table(path)["score"].to_numpy() for path in paths])))


def test_objects_below_the_least_score_are_told(slide, tmp_path):
    paths, told = shards_of(slide, tmp_path, options={"min_score": middle_score(slide, tmp_path)})
    found = [metadata["prompts"] for metadata in told]
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    assert 0 < rows < 6
    assert sum(counts["below_min_score"] for counts in found) == 6 - rows
    assert all(c["objects"] == c["instances"] + c["below_min_score"] + c["empty"] for c in found)


def test_the_counts_of_all_shards_and_of_the_file_reach_the_summary(slide, tmp_path):
    paths, told = shards_of(slide, tmp_path, options={"min_score": middle_score(slide, tmp_path)})
    stitch(paths, slide / "grid.parquet", tmp_path / "instances.parquet")
    content = measure(
        tmp_path / "instances.parquet", slide / "slide.json", slide / "fg.tif", tmp_path / "m.parquet",
        tmp_path / "summary.json", config=MeasureConfig(intensity=False, spatial=False),
    )  # fmt: skip
    assert json.loads((tmp_path / "summary.json").read_text())["prompts"] == content["prompts"]
    assert content["prompts"]["objects"] == 6
    lost = sum(metadata["prompts"]["below_min_score"] for metadata in told)
    assert content["prompts"]["below_min_score"] == lost > 0
    assert content["prompts"]["file"]["objects"] == 6
    assert content["prompts"]["file"]["off_slide"] == 0
    assert f"{lost} of 6 prompted objects have no instance" in content["flags"]


def test_a_killed_run_goes_on_with_the_same_bytes_and_counts(slide, tmp_path):
    files = [tmp_path / name / "instances" / "000.parquet" for name in ("whole", "killed")]
    commands = [
        [
            sys.executable, "-m", "gigaseg", "segment", str(slide / "slide.json"), str(slide / "grid.parquet"),
            "--segmenter=prompted", f"--checkpoint={slide / 'random.safetensors'}", "--batch-size=1",
            f"--prompts={slide / 'p.parquet'}", f"--out={path}", "--digest=d",
        ]
        for path in files
    ]  # fmt: skip
    subprocess.run(commands[0], capture_output=True, check=True)
    parts = tmp_path / "killed" / ".parts" / "segment-000" / "d"
    process = subprocess.Popen(commands[1], stderr=subprocess.PIPE)
    while not list(parts.glob("[0-9]*.parquet")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert not files[1].exists()
    done = subprocess.run(commands[1], capture_output=True, text=True, check=True)
    assert "going on after" in done.stderr
    assert files[1].read_bytes() == files[0].read_bytes()


def test_tiles_from_a_store_give_the_same_instances_as_the_slide(slide, tmp_path):
    for shard in range(2):
        store = tmp_path / f"{shard}.zarr.zip"
        tile(slide / "slide.json", slide / "grid.parquet", shard, store)
        run(slide, shard, tmp_path / "stored.parquet", tiles=store)
        run(slide, shard, tmp_path / "read.parquet")
        assert (tmp_path / "stored.parquet").read_bytes() == (tmp_path / "read.parquet").read_bytes()


def test_a_second_run_gives_the_same_bytes(slide, tmp_path):
    files = [tmp_path / name / "instances" / "000.parquet" for name in "ab"]
    for path in files:
        run(slide, 0, path)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_shard_without_prompts_is_empty_and_loads_no_model(slide, tmp_path):
    side = slide / "one.geojson"
    geometry = json.loads(shapely.to_geojson(shapely.Point(20, 20)))
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    side.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    prompt(slide / "slide.json", slide / "grid.parquet", slide / "fg.tif", slide / "one.parquet", prompts=side)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    assert run(slide, 1, tmp_path / "1.parquet", prompts="one.parquet", checkpoint=str(broken)) == 0
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        run(slide, 0, tmp_path / "0.parquet", prompts="one.parquet", checkpoint=str(broken))


def test_without_prompts_or_with_those_of_another_grid_it_is_told(slide, tmp_path):
    with pytest.raises(SegmenterError, match=r"segmenter 'prompted' needs prompts; give prompts\.parquet"):
        run(slide, 0, tmp_path / "0.parquet", prompts=None)
    other = Preset(segmenter=PRESET.segmenter, foreground=PRESET.foreground, tiles=TilesConfig(tile=96, overlap=32))
    files = [slide / "slide.json", tmp_path / "grid.parquet", tmp_path / "fg.tif"]
    grid(*files, preset=other, prompts=slide / "p.geojson")
    prompt(*files, slide / "other.parquet", prompts=slide / "p.geojson")
    with pytest.raises(FormatError, match=r"other\.parquet: made for another grid; run prompt again"):
        run(slide, 0, tmp_path / "0.parquet", prompts="other.parquet")


def test_a_checkpoint_that_was_not_fetched_is_told_with_the_command(slide, tmp_path, monkeypatch):
    monkeypatch.setenv("GIGASEG_CHECKPOINTS", str(tmp_path))
    with pytest.raises(
        CheckpointError, match=r"checkpoint is 'vit_b', not found at .*; run: gigaseg checkpoints vit_b"
    ):
        run(slide, 0, tmp_path / "0.parquet", checkpoint="vit_b")


def test_on_a_cpu_processes_share_a_models_tiles_and_change_no_byte(slide, tmp_path):
    for workers in (1, 2):
        run(slide, 0, tmp_path / f"{workers}.parquet", batch_size=1, workers=workers)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    assert pq.read_metadata(tmp_path / "1.parquet").num_rows > 2
