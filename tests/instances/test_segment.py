"""The segment step gives the same bytes whatever was killed, resumed or split between processes."""

import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from gigaseg.cli import main
from gigaseg.config import SegmenterConfig
from gigaseg.errors import FormatError, SegmenterError
from gigaseg.instances.job import model_bytes
from gigaseg.instances.segment import segment
from gigaseg.instances.table import read_instances
from gigaseg.sam.checkpoints import write_delta, write_state
from gigaseg.sam.downloads import OFFICIAL, Official
from gigaseg.slides.inspect import inspect
from gigaseg.tiles.grid import Grid
from inputs import write_inputs

SEGMENTER = SegmenterConfig("watershed", batch_size=2)
SEGMENT = [sys.executable, "-m", "gigaseg", "segment", "--segmenter=watershed"]


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A synthetic slide of 700 x 600 px in two shards of tiles of 256 px."""
    return write_inputs(tmp_path_factory.mktemp("slide"), SEGMENTER, (700, 600), 6)


def run(slide, out, **options):
    return segment(slide / "slide.json", slide / "grid.parquet", 0, out, segmenter=SEGMENTER, **options)


@pytest.fixture(scope="module")
def undisturbed(slide):
    out = slide / "undisturbed" / "instances" / "000.parquet"
    assert run(slide, out, digest="d") > 20
    return out.read_bytes()


def test_workers_do_not_change_a_byte(slide, undisturbed, tmp_path):
    out = tmp_path / "instances" / "000.parquet"
    run(slide, out, workers=2, digest="d")
    assert out.read_bytes() == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["instances"], "unfinished work is gone"


def test_a_killed_run_goes_on_from_its_finished_batches(slide, undisturbed, tmp_path):
    out = tmp_path / "instances" / "000.parquet"
    command = [*SEGMENT, str(slide / "slide.json"), str(slide / "grid.parquet")]
    command += ["--out", str(out), "--batch-size", "2", "--digest", "d"]
    parts = tmp_path / ".parts" / "segment-000" / "d"
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not list(parts.glob("[0-9]*.parquet")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not out.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on after" in done.stderr
    assert out.read_bytes() == undisturbed


def test_unfinished_work_of_another_digest_is_discarded(slide, undisturbed, tmp_path):
    out = tmp_path / "instances" / "000.parquet"
    stale = tmp_path / ".parts" / "segment-000" / "other"
    stale.mkdir(parents=True)
    (stale / "0000.parquet").write_bytes(b"wrong")
    run(slide, out, digest="d")
    assert out.read_bytes() == undisturbed


def test_a_damaged_part_is_done_again(slide, undisturbed, tmp_path):
    out = tmp_path / "instances" / "000.parquet"
    parts = tmp_path / ".parts" / "segment-000" / "d"
    parts.mkdir(parents=True)
    (parts / "0000.parquet").write_bytes(b"PAR1 half")
    run(slide, out, digest="d")
    assert out.read_bytes() == undisturbed


def test_an_empty_shard_writes_an_empty_table_without_loading_a_model(slide, tmp_path):
    whole = Grid.read(slide / "grid.parquet")
    n = len(whole.row)
    empty = Grid(whole.tiling, "s", whole.row, whole.col, whole.foreground, np.ones(n, np.int32), 2)
    empty.write(tmp_path / "grid.parquet")
    code = (
        "import sys; from gigaseg.instances.segment import segment; from gigaseg.config import SegmenterConfig;"
        f"n = segment({str(slide / 'slide.json')!r}, {str(tmp_path / 'grid.parquet')!r}, 0,"
        f" {str(tmp_path / 'o.parquet')!r}, segmenter=SegmenterConfig('watershed')); print(n, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "False"]
    instances, metadata = read_instances(tmp_path / "o.parquet", stitched=False)
    assert len(instances) == 0
    assert metadata["segmenter"] == "watershed"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_that_only_the_segmenter_sees_is_told_from_any_process(slide, tmp_path, workers):
    wrong = SegmenterConfig("watershed", batch_size=1, options={"min_diameter_um": 30.0})
    with pytest.raises(SegmenterError, match="min_diameter_um"):
        segment(
            slide / "slide.json", slide / "grid.parquet", 0, tmp_path / "o.parquet", segmenter=wrong, workers=workers
        )


def test_by_hand_unfinished_work_is_taken_up_only_for_the_same_options(slide, tmp_path):
    out = tmp_path / "o.parquet"
    segment(slide / "slide.json", slide / "grid.parquet", 0, tmp_path / "plain.parquet", segmenter=SEGMENTER)
    run(slide, out)
    assert out.read_bytes() == (tmp_path / "plain.parquet").read_bytes()
    other = SegmenterConfig("watershed", batch_size=2, options={"diameter_um": 12.0, "min_diameter_um": 7.0})
    command = [*SEGMENT, str(slide / "slide.json"), str(slide / "grid.parquet")]
    command += ["--out", str(out), "--batch-size=1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not list(tmp_path.glob(".parts/*/*/[0-9]*.parquet")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    few = segment(slide / "slide.json", slide / "grid.parquet", 0, out, segmenter=other)
    assert few < len(read_instances(tmp_path / "plain.parquet", stitched=False)[0])
    assert not (tmp_path / ".parts").exists()


def test_an_object_diameter_scales_the_size_limits(slide, tmp_path):
    """Objects of 8 um seen at half the resolution, and told to be 16 um, are found by the same rules."""
    usual = run(slide, tmp_path / "a.parquet")
    assert run(slide, tmp_path / "b.parquet", object_diameter=8.0) == usual
    assert run(slide, tmp_path / "c.parquet", object_diameter=30.0) < usual / 2


def test_inputs_of_different_slides_are_refused(slide, tmp_path):
    inspect(slide / "s.tif", slide="other").write(tmp_path / "slide.json")
    with pytest.raises(FormatError, match=r"grid\.parquet: made for slide 's', expected 'other'"):
        segment(tmp_path / "slide.json", slide / "grid.parquet", 0, tmp_path / "o.parquet", segmenter=SEGMENTER)


def test_workers_end_when_their_parent_is_killed(slide, tmp_path):
    import psutil

    command = [*SEGMENT, str(slide / "slide.json"), str(slide / "grid.parquet")]
    command += ["--out", str(tmp_path / "o.parquet"), "--batch-size=1", "--workers=2"]
    process = psutil.Popen(command, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob(".parts/*/*/[0-9]*.parquet")):
        assert process.poll() is None
        time.sleep(0.01)
    children = process.children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_wrong_options_and_shards_are_told(slide, tmp_path):
    wrong = SegmenterConfig("watershed", options={"diameter": 3})
    with pytest.raises(SegmenterError, match=r"unknown option 'diameter'.*did you mean 'diameter_um'"):
        segment(slide / "slide.json", slide / "grid.parquet", 0, tmp_path / "o.parquet", segmenter=wrong)
    with pytest.raises(FormatError, match=r"shard 9 is outside the grid's 0\.\.1"):
        segment(slide / "slide.json", slide / "grid.parquet", 9, tmp_path / "o.parquet", segmenter=SEGMENTER)


def test_the_metadata_says_how_the_instances_were_made(slide, undisturbed):
    _, metadata = read_instances(slide / "undisturbed" / "instances" / "000.parquet", stitched=False)
    assert metadata["slide"] == "s"
    assert metadata["digest"] == "d"
    assert metadata["outlines"] == "pixels"
    assert metadata["grid"] == {**Grid.read(slide / "grid.parquet").tiling.to_dict(), **metadata["grid"]}
    assert metadata["options"]["diameter_um"] > 0


def command(slide, out, *options):
    paths = [str(slide / "slide.json"), str(slide / "grid.parquet"), "--out", str(out)]
    return ["segment", *paths, "--segmenter", "everything", *options, "--record-failure"]


def test_another_file_under_the_name_of_published_weights_stops_the_job(slide, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GIGASEG_CHECKPOINTS", str(tmp_path))
    monkeypatch.setitem(OFFICIAL, "test", Official("test.pth", "http://127.0.0.1:9/", "0" * 64, 4, "CC0"))
    for content, found in ((b"junk!", "5 bytes, expected 4"), (b"junk", f"sha256 [0-9a-f]{{64}}, expected {'0' * 64}")):
        (tmp_path / "test.pth").write_bytes(content)
        assert main(command(slide, tmp_path / "o.parquet", "--checkpoint", "test")) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert re.fullmatch(
            f"gigaseg segment: checkpoint is 'test', but .*test.pth is another file: {found}; "
            "run: gigaseg checkpoints test",
            told,
        )
    assert not (tmp_path / "o.parquet").exists(), "no slide's failure"


@pytest.mark.parametrize("device", ["cuda:97", "gpu"])
def test_a_device_that_is_not_there_stops_the_job(slide, tmp_path, device, capsys):
    (tmp_path / "own.pth").write_bytes(b"not even looked at")
    options = ["--checkpoint", str(tmp_path / "own.pth"), "--device", device]
    assert main(command(slide, tmp_path / "o.parquet", *options)) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"gigaseg segment: device is '{device}', accepted on this machine: auto, cpu")
    assert not (tmp_path / "o.parquet").exists()


def test_a_small_checkpoint_over_a_large_one_counts_as_large(tmp_path):
    write_state(tmp_path / "base.safetensors", {"a": torch.zeros(10_000), "b": torch.zeros(4)}, {})
    write_delta(
        tmp_path / "over.safetensors",
        {"a": torch.zeros(10_000), "b": torch.ones(4)},
        tmp_path / "base.safetensors",
        {},
    )
    alone = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("base", "over")]
    assert alone[1] < 1_000 < 40_000 < alone[0]
    assert model_bytes(tmp_path / "over.safetensors") == sum(alone)
    assert model_bytes(tmp_path / "base.safetensors") == alone[0]
