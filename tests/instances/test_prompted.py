"""The segment step with prompts: each object once, from its tile, and tiles without prompts are not looked at."""

import json
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile

from gigaseg.config import ForegroundConfig, Preset, SegmenterConfig, TilesConfig
from gigaseg.errors import CheckpointError, FormatError, SegmenterError
from gigaseg.instances.segment import segment
from gigaseg.instances.table import Instances, read_instances
from gigaseg.prompts.prompt import prompt
from gigaseg.slides.inspect import inspect
from gigaseg.tiles.grid import grid
from samples import write_random_sam

PRESET = Preset(
    segmenter=SegmenterConfig(name="prompted"),
    foreground=ForegroundConfig(method="all"),
    tiles=TilesConfig(tile=128, overlap=32, tiles_per_shard=8),
)
POINTS = [(20, 20), (118, 30), (250, 150), (400, 280), (105, 150), (262, 146)]


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A picture of 420 x 300 px with noise, six points with classes, and random weights."""
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
    write_random_sam(folder / "random.safetensors")
    return folder


def run(slide, shard, out, prompts="p.parquet", **changes):
    keys = {"name": "prompted", "batch_size": 2, "overlaps": "keep", "checkpoint": str(slide / "random.safetensors")}
    segmenter = SegmenterConfig(**{**keys, **changes})
    file = slide / prompts if prompts else None
    return segment(slide / "slide.json", slide / "grid.parquet", shard, out, segmenter=segmenter, prompts=file)


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
        run(slide, 0, tmp_path / "0.parquet", checkpoint=None)
