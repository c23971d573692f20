"""The stitched file is the same for every way of working on the slide, and what is wrong with an input is told."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st

from clusters import cluster_that_loses_a_worker
from gigaseg.errors import ConfigError, FormatError, UpstreamFailure
from gigaseg.files import with_metadata, write_failure
from gigaseg.instances.table import Instances, read_instances
from gigaseg.stitch.blocks import cut_into_blocks, scan
from gigaseg.stitch.stitch import stitch, stitch_instances
from gigaseg.testing.labels import label_image
from gigaseg.tiles.grid import Grid
from stitching import full_grid, make, mistaken_scenes, oracle, scenes, steady, usual_scenes, write_shards


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A crowd of 500 px in 40 px tiles with two classes, as five shards in a folder."""
    folder = tmp_path_factory.mktemp("slide")
    labels = label_image("nuclei", (500, 500), 3)
    grid = full_grid(labels.shape, 40, 8)
    rng = np.random.default_rng(0)
    parts = []
    for part in oracle(labels, grid):
        prob = rng.dirichlet([1, 1], len(part)).astype(np.float32)
        parts.append(
            replace(part, classes=("a", "b"), class_prob=prob, class_index=prob.argmax(axis=1).astype(np.int32))
        )
    return write_shards(folder, parts, grid, 5)


def stitched(shards, name, **options):
    out = shards[0].parent / name
    stitch(shards, shards[0].parent / "grid.parquet", out, **options)
    return out.read_bytes()


def test_the_file_holds_what_stitching_in_memory_gives(slide):
    stitched(slide, "memory.parquet")
    grid = Grid.read(slide[0].parent / "grid.parquet")
    together = Instances.concat([read_instances(path, stitched=False)[0] for path in slide])
    expected, counts = stitch_instances(together, grid)
    found, metadata = read_instances(slide[0].parent / "memory.parquet", stitched=True)
    assert counts.unions > 10
    assert found.to_arrow().equals(expected.to_arrow())
    assert metadata["stitch"] == counts.__dict__
    assert "shard" not in metadata


@steady(25)
@given(scenes(min_overlap=0), st.integers(1, 4), st.integers(1, 200), st.randoms(use_true_random=False))
def test_neither_shards_nor_their_order_nor_blocks_matter(tmp_path_factory, scene, shards, block, random):
    check_shards_and_blocks(tmp_path_factory, scene, shards, block, random)


def check_shards_and_blocks(tmp_path_factory, scene, shards, block, random):
    labels, tile, overlap = scene
    grid = full_grid(labels.shape, tile, overlap)
    parts = oracle(labels, grid)
    one, several = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("several")
    whole = write_shards(one, parts, grid, 1)
    cut = write_shards(several, parts, grid, shards)
    expected = stitched(whole, "out.parquet")
    random.shuffle(cut)
    assert stitched(cut, "out.parquet", block=block) == expected


@steady(40)
@given(usual_scenes(), st.integers(1, 4), st.integers(1, 200), st.randoms(use_true_random=False))
def test_nor_do_they_with_tiles_of_64_to_1024_px(tmp_path_factory, scene, shards, block, random):
    check_shards_and_blocks(tmp_path_factory, scene, shards, block, random)


def test_nor_do_they_with_a_segmenter_that_makes_mistakes(tmp_path_factory):
    total = Counter()

    @steady(60)
    @given(mistaken_scenes(), st.integers(1, 4), st.integers(1, 60))
    def check(scene, shards, block):
        parts, grid = scene
        assume(parts)
        expected, counts = stitch_instances(Instances.concat(parts), grid)
        content = []
        for number, size in ((1, 10**6), (shards, 1), (shards, block)):
            folder = tmp_path_factory.mktemp("mistaken")
            paths = write_shards(folder, parts, grid, number)
            assert stitch(paths, folder / "grid.parquet", folder / "out.parquet", block=size) == counts
            content.append((folder / "out.parquet").read_bytes())
        assert content[0] == content[1] == content[2]
        found, _ = read_instances(folder / "out.parquet", stitched=True)
        assert found.to_arrow().equals(expected.to_arrow())
        total.update(counts.__dict__)

    check()
    for name in ("unions", "conflicts", "dropped", "skipped", "cut", "unmatched", "unconfirmed"):
        assert total[name] > 0, name


BETWEEN_BLOCKS = {
    # short of its tile's lower border; the tile above takes it for whole, the one below gives the lie to that
    "doubted by the later block": ([(0, 40, 64), (1, 40, 95), (2, 64, 127)], [8, 0, 2], [(40, 127)]),
    # agrees with a piece above; its area decides, below, that a small object in it does not drive it out
    "weighed by the later block": ([(0, 45, 64), (1, 45, 92), (2, 70, 80)], [8, 0, 0], [(45, 92), (70, 80)]),
}
"""What three tiles of 64 px, 32 px apart, drew: (tile row, ymin, ymax) each, cut; and what becomes of it."""


@pytest.mark.parametrize("name", BETWEEN_BLOCKS)
def test_what_two_blocks_know_of_an_instance_is_put_together(tmp_path, name):
    drawn, cut, expected = BETWEEN_BLOCKS[name]
    row, ymin, ymax = np.array(drawn).T
    parts = make(shapely.box(10, ymin, np.where(ymax == 80, 20, 40), ymax), row, np.zeros(3), cut)
    shards = write_shards(tmp_path, [parts.take(row == k) for k in range(3)], full_grid((128, 64), 64, 32), 1)
    assert stitched(shards, "one.parquet", block=1) == stitched(shards, "all.parquet")
    found, _ = read_instances(tmp_path / "one.parquet", stitched=True)
    assert [(g.bounds[1], g.bounds[3]) for g in found.geometry] == expected


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_workers_give_the_same_bytes(slide, scheduler):
    expected = stitched(slide, "one.parquet")
    assert stitched(slide, f"{scheduler}.parquet", workers=2, scheduler=scheduler, block=100) == expected


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_same_bytes(slide):
    expected = stitched(slide, "one.parquet")
    with cluster_that_loses_a_worker() as address:
        found = stitched(slide, "cluster.parquet", scheduler=address, block=1)
    assert found == expected


def test_an_address_without_a_scheduler_is_told(slide):
    import dask

    quickly = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with (
        quickly,
        pytest.raises(ConfigError, match=r"--scheduler is 'tcp://127\.0\.0\.1:9', where no Dask cluster answers"),
    ):
        stitched(slide, "none.parquet", scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scheduler": "cluster"}, "--scheduler is 'cluster', accepted: threads, processes, tcp://HOST:PORT"),
        ({"workers": 0}, "--workers is 0, accepted: a whole number >= 1"),
        ({"block": 0}, "--block is 0, accepted: a whole number >= 1"),
    ],
)
def test_wrong_options_are_told(slide, options, told):
    with pytest.raises(ConfigError, match=told):
        stitched(slide, "none.parquet", **options)


def test_blocks_are_runs_of_tile_rows_that_hold_every_instance_once(slide):
    grid = Grid.read(slide[0].parent / "grid.parquet")
    layout, _ = scan(slide, grid, "grid.parquet")
    blocks = cut_into_blocks(layout, 150)
    assert len(blocks) > 3
    assert [last for _, last in blocks[:-1]] == [first for first, _ in blocks[1:]]
    sizes = [layout.row_start[last] - layout.row_start[first] for first, last in blocks]
    assert sum(sizes) == len(layout)
    assert all(size <= 150 or last == first + 1 for size, (first, last) in zip(sizes, blocks))


def test_row_groups_and_pages_have_a_fixed_size_and_ids_run_on(tmp_path):
    n = 70_000
    x, y = np.arange(n) % 1000, np.arange(n) // 1000
    grid = full_grid((1000, 1000), 500, 0)
    col = x // 500
    part = make(shapely.box(x, y, x + 0.9, y + 0.9), np.zeros(n), col, np.zeros(n))
    parts = [part.take(col == 0), part.take(col == 1), part.take([]), part.take([])]
    content = []
    for shards in (1, 4):
        folder = tmp_path / f"{shards}"
        folder.mkdir()
        content.append(stitched(write_shards(folder, parts, grid, shards), "out.parquet"))
    assert content[0] == content[1]
    file = pq.ParquetFile(folder / "out.parquet")
    groups = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
    assert groups == [8192] * 8 + [n - 8 * 8192]
    assert file.read(["instance"])["instance"].to_pylist() == list(range(1, n + 1))


def test_free_outlines_are_scaled_in_place_and_through_shapely_alike(tmp_path):
    simple = shapely.Polygon([(1.25, 2), (9, 3), (5, 8.5)])
    holed = shapely.box(20, 20, 40, 40).difference(shapely.box(25, 25, 30, 30))
    multi = shapely.union(shapely.box(50, 5, 55, 9), shapely.box(60, 5, 65, 9))
    geometry = np.array([simple, holed, simple, multi, simple], object)
    grid = full_grid((100, 100), 100, 0)
    grid = replace(grid, tiling=replace(grid.tiling, scale=(2.5, 3.0)))
    zero = np.zeros(len(geometry))
    [path] = write_shards(tmp_path, [make(geometry, zero, zero, zero)], grid, 1)
    stitched([path], "out.parquet")
    found, _ = read_instances(tmp_path / "out.parquet", stitched=True)
    expected = shapely.transform(geometry, lambda xy: xy * (2.5, 3.0))
    assert shapely.equals_identical(found.geometry, expected).all()
    box = pq.read_table(tmp_path / "out.parquet", columns=["bbox"])["bbox"].to_pylist()
    assert [tuple(row.values()) for row in box] == [geometry.bounds for geometry in expected]


def test_a_failure_record_is_passed_on(slide, tmp_path):
    record = tmp_path / "000.parquet"
    write_failure(record, "segment", "no such file")
    with pytest.raises(UpstreamFailure, match="no such file"):
        stitch([record, *slide[1:]], slide[0].parent / "grid.parquet", tmp_path / "out.parquet")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda shards: shards[1:], "5 shards, but 4 instance tables given"),
        (lambda shards: [*shards[1:], shards[1]], "shard 1 is given twice"),
    ],
    ids=["missing", "twice"],
)
def test_shards_that_do_not_fit_the_grid_are_told(slide, tmp_path, change, told):
    with pytest.raises(FormatError, match=told):
        stitch(change(slide), slide[0].parent / "grid.parquet", tmp_path / "out.parquet")


def test_rows_out_of_order_and_of_tiles_not_kept_are_told(tmp_path):
    box = shapely.box(0, 0, 1, 1)
    grid = full_grid((40, 100), 40, 10)
    for part, told in (
        (make([box, box], [0, 0], [1, 0], [0, 0]), "not in the order of tiles"),
        (make([box], [0], [7], [0]), "tiles that the grid does not keep"),
    ):
        [path] = write_shards(tmp_path, [part, *[Instances.empty(["object"])] * 2], grid, 1)
        with pytest.raises(FormatError, match=told):
            stitch([path], tmp_path / "grid.parquet", tmp_path / "out.parquet")


def damaged(folder, outlines, change):
    """A shard of two boxes, one at the seam of its tile; some of their WKB is cut off, and the file changed."""
    drawn = make([shapely.box(5, 5, 9, 9), shapely.box(50, 5, 60, 9)], [0, 0], [0, 0], [0, 4])
    [path] = write_shards(folder, [drawn, Instances.empty(["object"])], full_grid((64, 112), 64, 16), 1)
    table = pq.read_table(path)
    packed = [wkb[:30] if i in outlines else wkb for i, wkb in enumerate(table["geometry"].to_pylist())]
    table = table.set_column(0, table.schema.field(0), pa.chunked_array([pa.array(packed, pa.binary())]))
    pq.write_table(change(table), path)
    return path, packed


def test_outlines_far_from_seams_are_never_looked_at(tmp_path):
    path, packed = damaged(tmp_path, [0], lambda table: table)
    stitched([path], "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["geometry"].to_pylist() == packed


@pytest.mark.parametrize(
    ("outlines", "change", "told"),
    [
        ([1], lambda table: table, r"000\.parquet: damaged outline"),
        ([], lambda table: table.drop(["cut"]), r"000\.parquet: no column cut"),
        ([], lambda table: table.drop(["class"]), r"000\.parquet: no column class"),
    ],
)
def test_a_damaged_shard_is_named(tmp_path, outlines, change, told):
    path, _ = damaged(tmp_path, outlines, change)
    with pytest.raises(FormatError, match=told):
        stitched([path], "out.parquet")


def test_a_damaged_outline_is_named_also_where_it_is_only_scaled(tmp_path):
    path, _ = damaged(tmp_path, [0], lambda table: table)
    grid = Grid.read(tmp_path / "grid.parquet")
    tiling = replace(grid.tiling, scale=(2.0, 2.0))
    replace(grid, tiling=tiling).write(tmp_path / "grid.parquet")
    table = pq.read_table(path)
    metadata = {**json.loads(table.schema.metadata[b"gigaseg"]), "grid": tiling.to_dict()}
    pq.write_table(with_metadata(table, metadata), path)
    with pytest.raises(FormatError, match=r"000\.parquet: damaged outline"):
        stitched([path], "out.parquet")


def test_the_log_has_all_counts_and_warns_of_what_may_be_wrong(tmp_path, caplog):
    # an outline that the right tile missed, two that contradict each other, and two that abut without overlap
    missed = make([shapely.box(50, 5, 64, 9), shapely.box(52, 20, 60, 40), shapely.box(52, 20, 60, 28)], [0] * 3,
                  [0, 0, 1], [4, 0, 0])  # fmt: skip
    abut = make([shapely.box(50, 5, 64, 9), shapely.box(64, 5, 70, 9)], [0, 0], [0, 1], [4, 1])
    for name, part, overlap in (("a", missed, 16), ("b", abut, 0)):
        (tmp_path / name).mkdir()
        parts = [part.take(part.tile_col == 0), part.take(part.tile_col == 1)]
        shards = write_shards(tmp_path / name, parts, full_grid((64, 128 - overlap), 64, overlap), 1)
        with caplog.at_level("INFO"):
            stitched(shards, "out.parquet")
    told = [record.getMessage() for record in caplog.records if record.name == "gigaseg.stitch.stitch"]
    assert told == [
        "slide 's': tile_instances 3, instances 2, matched 0, joined 0, unions 0, single 3, conflicts 1, dropped 1, "
        "skipped 0, cut 0, unmatched 1, unconfirmed 0",
        "1 pairs of objects contradict each other; 1 objects dropped",
        "1 instances are cut at a seam, and nothing beyond it was joined to them",
        "slide 's': tile_instances 2, instances 1, matched 1, joined 1, unions 1, single 0, conflicts 0, dropped 0, "
        "skipped 0, cut 0, unmatched 0, unconfirmed 1",
        "tiles do not overlap: 1 joins along seams cannot be confirmed",
    ]
