"""A segmenter that proposes points, step by step: each object is decoded once, whatever grid, shards and workers."""

import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile

from gigaseg.cli import main
from gigaseg.config import ForegroundConfig, Preset, SegmenterConfig, TilesConfig
from gigaseg.errors import FormatError, SegmenterError, UpstreamFailure
from gigaseg.files import read_metadata
from gigaseg.instances.propose import propose
from gigaseg.instances.segment import segment
from gigaseg.instances.table import INSTANCES_FORMAT, read_instances
from gigaseg.prompts.merge import merge_proposals
from gigaseg.prompts.proposals import PROPOSALS_FORMAT, read_proposals
from gigaseg.prompts.table import PromptTable
from gigaseg.segmenters.base import Context
from gigaseg.segmenters.card import read_card
from gigaseg.segmenters.registry import load_segmenter
from gigaseg.segmenters.whole import segment_objects
from gigaseg.slides.inspect import inspect
from gigaseg.stitch.stitch import stitch
from gigaseg.tiles.grid import Grid, grid
from gigaseg.tiles.tiling import Tiling
from proposing import spots_slide

SEGMENTER = SegmenterConfig("spots", batch_size=4, device="cpu")


def make_slide(folder, image):
    """A slide of an image, 0.5 um a pixel."""
    tifffile.imwrite(
        folder / "s.tif", image, photometric="rgb", tile=(256, 256), resolution=(2e4, 2e4), resolutionunit="CENTIMETER"
    )
    inspect(folder / "s.tif", slide="s").write(folder / "slide.json")


def make_grid(folder, out, tile, overlap, tiles_per_shard=10**6):
    preset = Preset(
        segmenter=SEGMENTER,
        foreground=ForegroundConfig(method="all"),
        tiles=TilesConfig(tile=tile, overlap=overlap, tiles_per_shard=tiles_per_shard),
    )
    return grid(folder / "slide.json", out / "grid.parquet", out / "foreground.tif", preset=preset)


def run(folder, out, shards=1, workers=1):
    """All steps from propose to stitch; returns the stitched instances and their metadata."""
    where = (folder / "slide.json", out / "grid.parquet")
    points = [out / "prompts" / f"{shard:03d}.parquet" for shard in range(shards)]
    tables = [out / "instances" / path.name for path in points]
    for shard, path in enumerate(points):
        propose(*where, shard, path, segmenter=SEGMENTER, workers=workers)
    prompts = out / "prompts.parquet"
    merge_proposals(*where, prompts, proposals=points, segmenter=SEGMENTER)
    for shard, path in enumerate(tables):
        segment(*where, shard, path, segmenter=SEGMENTER, prompts=prompts, workers=workers)
    stitch(tables, out / "grid.parquet", out / "instances.parquet")
    return read_instances(out / "instances.parquet", stitched=True)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Digest: 1000 random discs of a slide, and the slide's folder."""
    folder = tmp_path_factory.mktemp("crowd")
    image, discs = spots_slide((1000, 1100), 1000, seed=26)
    make_slide(folder, image)
    return folder, image, discs


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """120 discs on a slide, and a grid of 3 shards of at most 9 tiles."""
    folder = tmp_path_factory.mktemp("small")
    image, discs = spots_slide((400, 500), 120, seed=4)
    make_slide(folder, image)
    return folder, image, discs


@pytest.mark.parametrize(("tile", "overlap"), [(128, 32), (96, 48), (240, 64), (111, 24), (1200, 64)])
def test_a_thousand_discs_give_a_thousand_objects_whatever_the_grid(crowd, spots, tmp_path, tile, overlap):
    folder, image, discs = crowd
    kept = make_grid(folder, tmp_path, tile, overlap)
    instances, metadata = run(folder, tmp_path)
    assert len(instances) == 1000
    tree = shapely.STRtree(instances.geometry)
    one, two = tree.query(instances.geometry, predicate="intersects")
    one, two = one[one < two], two[one < two]
    shared = shapely.area(shapely.intersection(instances.geometry[one], instances.geometry[two]))
    either = shapely.area(shapely.union(instances.geometry[one], instances.geometry[two]))
    assert (shared / either <= 0.1).all()
    assert (instances.members == 1).all(), "nothing is left to join at seams"
    assert sorted(instances.prompt.tolist()) == list(range(1000)), "each is decoded once"
    assert shapely.area(instances.geometry).sum() == (image[..., 0] > 0).sum()
    of_disc, which = tree.query(shapely.points(discs[:, :2]), predicate="intersects")
    np.testing.assert_array_equal(of_disc, np.arange(1000))
    np.testing.assert_array_equal(instances.class_index[which], discs[:, 3])
    table, about = PromptTable.read(tmp_path / "prompts.parquet")
    counts = about["found"]
    assert counts["objects"] == 1000
    assert counts["proposed"] - counts["near_border"] - counts["suppressed"] == 1000
    assert counts["near_border"] > 50 or len(kept.row) == 1
    fates = metadata["prompts"]
    assert (fates["objects"], fates["instances"], fates["file"]) == (1000, 1000, counts)
    assert table.class_prob.dtype == np.float32


def test_a_phase_of_the_grid_changes_nothing_but_the_places(spots, tmp_path):
    image, _ = spots_slide((300, 300), 80, seed=7)
    found = []
    for shift in (0, 13, 50):
        folder = tmp_path / str(shift)
        folder.mkdir()
        make_slide(folder, np.pad(image, ((shift, 64 - shift), (shift, 64 - shift), (0, 0))))
        make_grid(folder, folder, 100, 30)
        instances, _ = run(folder, folder)
        moved = shapely.normalize(shapely.transform(instances.geometry, lambda xy, by=shift: xy - by))
        found.append(sorted(shapely.to_wkt(moved)))
    assert len(found[0]) == 80
    assert found[0] == found[1] == found[2]


def test_shards_and_workers_do_not_change_a_byte(small, spots, tmp_path):
    folder, _, discs = small
    found = {}
    for name, tiles_per_shard, workers in (("one", 100, 1), ("shards", 9, 1), ("workers", 9, 2)):
        out = tmp_path / name
        shards = make_grid(folder, out, 128, 32, tiles_per_shard).shards
        instances, _ = run(folder, out, shards, workers)
        assert len(instances) == len(discs)
        prompts = pq.read_table(out / "prompts.parquet")
        assert not (out / ".parts").exists()
        found[name] = prompts.replace_schema_metadata(), pq.read_table(out / "instances.parquet")
    for prompts, table in found.values():
        assert prompts.equals(found["one"][0])
        assert table.equals(found["one"][1])
    for step in ("prompts", "instances"):
        for path in (tmp_path / "shards" / step).iterdir():
            assert path.read_bytes() == (tmp_path / "workers" / step / path.name).read_bytes()
    paths = sorted((tmp_path / "shards" / "prompts").iterdir(), reverse=True)
    where = (folder / "slide.json", tmp_path / "shards" / "grid.parquet", tmp_path / "again.parquet")
    merge_proposals(*where, proposals=paths, segmenter=SEGMENTER)
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "shards" / "prompts.parquet").read_bytes()
    with pytest.raises(FormatError, match=r"--proposals: shards 1, 2 of slide 's', expected 0 \.\. 2, each once"):
        merge_proposals(*where, proposals=paths[:-1], segmenter=SEGMENTER)


def test_a_killed_proposal_goes_on_from_its_finished_batches(small, spots, tmp_path):
    folder, _, _ = small
    make_grid(folder, tmp_path, 128, 32)
    out = tmp_path / "prompts" / "000.parquet"
    where = [folder / "slide.json", tmp_path / "grid.parquet"]
    propose(*where, 0, tmp_path / "undisturbed.parquet", segmenter=SEGMENTER, digest="d")
    command = [sys.executable, "-m", "gigaseg", "propose", *map(str, where), "--segmenter=spots", "--batch-size=4"]
    command += ["--device=cpu", "--digest=d", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not list(tmp_path.glob(".parts/propose-000/d/[0-9]*.parquet")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert not out.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on after" in done.stderr
    assert out.read_bytes() == (tmp_path / "undisturbed.parquet").read_bytes()
    assert not (tmp_path / ".parts").exists()


def test_the_image_in_memory_gives_what_the_steps_give(small, spots, tmp_path):
    folder, image, _ = small
    make_grid(folder, tmp_path, 128, 32)
    instances, _ = run(folder, tmp_path)
    card = read_card("spots")
    tiling = Tiling(128, 32, 500, 400, (1, 1), (1, 1), "px")
    segmenter = load_segmenter("spots", Context(info=None, tiling=tiling, options=card.complete({})))
    found = segment_objects(segmenter, image, tile=128, overlap=32, step=None)
    from rasterio.features import rasterize

    drawn = rasterize(zip(instances.geometry, range(1, 1 + len(instances))), out_shape=image.shape[:2], dtype=np.int32)
    pairs = np.unique(np.column_stack([drawn.ravel(), found.labels.ravel()]), axis=0)
    assert len(pairs) == len(instances) + 1, "the same pixels, one to one"
    of = dict(pairs.tolist())
    classes = [found.class_index[of[i + 1] - 1] for i in range(len(instances))]
    np.testing.assert_array_equal(classes, instances.class_index)


def test_an_empty_shard_loads_no_model_and_has_no_say_in_the_classes(small, spots, tmp_path):
    folder, _, discs = small
    kept = make_grid(folder, tmp_path, 128, 32)
    Grid(kept.tiling, "s", kept.row, kept.col, kept.foreground, np.ones(len(kept.row), np.int32), 2).write(
        tmp_path / "grid.parquet"
    )
    code = (
        "import sys; from gigaseg.instances.propose import propose; from gigaseg.config import SegmenterConfig;"
        f"n = propose({str(folder / 'slide.json')!r}, {str(tmp_path / 'grid.parquet')!r}, 0,"
        f" {str(tmp_path / 'o.parquet')!r}, segmenter=SegmenterConfig('spots')); print(n, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "False"]
    points, classes, metadata = read_proposals(tmp_path / "o.parquet")
    assert (len(points), classes, metadata["shard"]) == (0, ("dim", "bright"), 0)
    instances, _ = run(folder, tmp_path, shards=2)
    assert len(instances) == len(discs)


def test_a_slide_without_points_has_no_instances(spots, tmp_path):
    make_slide(tmp_path, np.zeros((300, 300, 3), np.uint8))
    make_grid(tmp_path, tmp_path, 128, 32)
    instances, metadata = run(tmp_path, tmp_path)
    assert len(instances) == 0
    assert metadata["classes"] == ["dim", "bright"]
    assert metadata["prompts"]["file"]["proposed"] == 0


def test_classes_are_renamed_and_joined_where_instances_are_written(small, spots, tmp_path):
    folder, _, discs = small
    make_grid(folder, tmp_path, 128, 32)
    run(folder, tmp_path)
    given = {"prompts": tmp_path / "prompts.parquet", "segmenter": SEGMENTER}
    where = (folder / "slide.json", tmp_path / "grid.parquet", 0, tmp_path / "o.parquet")
    segment(*where, **given, class_names={"dim": "stroma"})
    named, _ = read_instances(where[-1], stitched=False)
    assert named.classes == ("stroma", "bright")
    assert np.bincount(named.class_index).tolist() == np.bincount(discs[:, 3].astype(int)).tolist()
    segment(*where, **given, class_names={"dim": "cell", "bright": "cell"})
    joined, _ = read_instances(where[-1], stitched=False)
    assert joined.classes == ("cell",)
    np.testing.assert_allclose(joined.class_prob, 1)
    with pytest.raises(SegmenterError, match=r"segmenter 'spots': unknown class 'dimm'; accepted: dim, bright \(did"):
        segment(*where, **given, class_names={"dimm": "cell"})


def test_by_hand(small, spots, tmp_path, capsys):
    folder, _, discs = small
    make_grid(folder, tmp_path, 128, 32)
    where = [str(folder / "slide.json"), str(tmp_path / "grid.parquet")]
    points, prompts, out = (str(tmp_path / name) for name in ("p.parquet", "prompts.parquet", "i.parquet"))
    assert main(["propose", *where, "--segmenter=spots", "--out", points]) == 0
    assert read_metadata(points, PROPOSALS_FORMAT)["segmenter"] == "spots"
    merge = ["prompt", *where, "--proposals", points, "--out", prompts]
    assert main([*merge, "--segmenter=spots", "--set=radius=6"]) == 0
    assert main(["segment", *where, "--segmenter=spots", "--prompts", prompts, "--out", out]) == 0
    assert read_metadata(out, INSTANCES_FORMAT)["prompts"]["instances"] == len(discs)
    assert main(["propose", *where, "--segmenter=watershed", "--out", points]) == 2
    assert "segmenter 'watershed' proposes no points" in capsys.readouterr().err
    assert main([*merge, "--segmenter=watershed"]) == 2
    assert "segmenter 'watershed' proposes no points; accepted" in capsys.readouterr().err
    assert main(["prompt", *where, "--out", prompts]) == 2
    assert "--foreground is missing" in capsys.readouterr().err


def test_a_failed_slide_is_passed_on(small, spots, tmp_path):
    folder, _, _ = small
    make_grid(folder, tmp_path, 128, 32)
    where = [str(folder / "slide.json"), str(tmp_path / "grid.parquet")]
    points, prompts = (str(tmp_path / name) for name in ("p.parquet", "prompts.parquet"))
    wrong = ["--segmenter=spots", "--shard=7", "--out", points, "--record-failure"]
    assert main(["propose", *where, *wrong]) == 0
    after = ["--proposals", points, "--segmenter=spots", "--out", prompts, "--record-failure"]
    assert main(["prompt", *where, *after]) == 0
    with pytest.raises(UpstreamFailure, match="shard 7 is outside") as caught:
        PromptTable.read(prompts)
    assert caught.value.step == "propose"


def test_points_of_a_file_are_not_taken_for_proposed_ones(small, spots, tmp_path):
    folder, _, _ = small
    make_grid(folder, tmp_path, 128, 32)
    run(folder, tmp_path)
    table, about = PromptTable.read(tmp_path / "prompts.parquet")
    table.write(tmp_path / "prompts.parquet", "s", {"grid": about["grid"], "found": {}})
    with pytest.raises(FormatError, match="takes the points that it proposed itself; run prompt again"):
        segment(
            folder / "slide.json", tmp_path / "grid.parquet", 0, tmp_path / "o.parquet", segmenter=SEGMENTER,
            prompts=tmp_path / "prompts.parquet",
        )  # fmt: skip
