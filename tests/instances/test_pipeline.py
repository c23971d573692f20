"""One model for all, with readers before and writers behind it, gives what processes that do everything give."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch

from gigaseg.config import ForegroundConfig, Preset, SegmenterConfig, TilesConfig
from gigaseg.errors import SegmenterError, SlideError
from gigaseg.instances import pipeline
from gigaseg.instances.job import PART, Job
from gigaseg.instances.model import LARGEST, Model, fitting
from gigaseg.instances.segment import segment
from gigaseg.instances.stages import FirstLook
from gigaseg.instances.table import read_instances
from gigaseg.segmenters.base import TileInstances
from gigaseg.segmenters.card import Option
from gigaseg.slides.inspect import inspect
from gigaseg.tiles.grid import Grid, grid
from gigaseg.tiles.store import tile
from inputs import write_inputs

SEGMENTER = SegmenterConfig("watershed")


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A slide of 1000 x 700 px in tiles of 256 px, of which many parts are made."""
    folder = write_inputs(tmp_path_factory.mktemp("slide"), SEGMENTER, (1000, 700), 100)
    assert len(Grid.read(folder / "grid.parquet").row) > 4 * PART
    return folder


def run(slide, out, **options):
    options = {"segmenter": SEGMENTER, "digest": "d", **options}
    segment(slide / "slide.json", slide / "grid.parquet", 0, out, **options)
    return out.read_bytes()


@pytest.fixture(scope="module")
def usual(slide):
    return run(slide, slide / "usual.parquet")


@pytest.fixture
def one_model(monkeypatch):
    monkeypatch.setattr(pipeline, "_one_model", lambda job: True)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("stored", [False, True], ids=["slide", "tile store"])
def test_reading_ahead_and_writing_behind_changes_no_byte(slide, usual, one_model, tmp_path, workers, stored):
    store = tmp_path / "000.zarr.zip" if stored else None
    if store:
        tile(slide / "slide.json", slide / "grid.parquet", 0, store, digest="d")
    assert run(slide, tmp_path / "o.parquet", workers=workers, tiles=store) == usual
    assert not (tmp_path / ".parts").exists()


def test_a_run_with_one_model_takes_up_the_parts_of_another(slide, usual, one_model, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("gigaseg.instances.job.Parts.remove", lambda self: None)
    out = tmp_path / "o.parquet"
    assert run(slide, out, workers=2) == usual
    (parts,) = tmp_path.glob(".parts/segment-o/d")
    for number in (0, 3):
        (parts / f"{number:04d}.parquet").unlink()
    with caplog.at_level(logging.INFO):
        assert run(slide, out, workers=2) == usual
    assert any("going on after" in message for message in caplog.messages)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_mistake_of_the_segmenter_and_a_broken_slide_are_told(slide, one_model, tmp_path, workers):
    with pytest.raises(SegmenterError, match="min_diameter_um"):
        run(
            slide,
            tmp_path / "o.parquet",
            segmenter=replace(SEGMENTER, options={"min_diameter_um": 30.0}),
            workers=workers,
        )
    (tmp_path / "s.tif").write_bytes((slide / "s.tif").read_bytes())
    inspect(tmp_path / "s.tif", slide="s").write(tmp_path / "slide.json")
    (tmp_path / "s.tif").write_bytes((slide / "s.tif").read_bytes()[:20_000])
    with pytest.raises(SlideError, match=r"s\.tif"):
        segment(
            tmp_path / "slide.json",
            slide / "grid.parquet",
            0,
            tmp_path / "o.parquet",
            segmenter=SEGMENTER,
            workers=workers,
        )


def test_the_log_says_where_the_time_went(slide, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run(slide, tmp_path / "o.parquet")
    assert any("read " in message and "s by the clock" in message for message in caplog.messages)


class Greedy:
    """Takes memory for up to `room` tiles; marks each tile by a square whose place depends on its column."""

    room = 3

    def __init__(self, card):
        self.card = card
        self.seen = []

    def segment(self, batch):
        self.seen.append(len(batch.tiles))
        if len(batch.tiles) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return [
            TileInstances(
                torch.tensor([[tile.col, 0, tile.col + 2, 2]], dtype=torch.int32),
                [torch.ones(2, 2, dtype=torch.bool)],
                torch.ones(1),
                torch.ones(1, 1),
            )
            for tile in batch.tiles
        ]


@pytest.fixture
def greedy(slide, monkeypatch):
    job = Job.open(slide / "slide.json", slide / "grid.parquet", 0, SEGMENTER, "d")
    monkeypatch.setattr("gigaseg.instances.model.load_segmenter", lambda name, context: Greedy(job.card))
    model = Model(job, lambda job, segmenter, batch: segmenter.segment(batch))
    model.size = 8
    return model, job.chosen[:8]


def test_a_batch_too_large_for_the_memory_is_halved_and_the_run_is_marked(greedy):
    model, tiles = greedy
    images = torch.zeros(8, 3, 256, 256, dtype=torch.uint8)
    found = model(tiles, images)
    assert [one.boxes[0, 0].item() for one in found] == [tile.col for tile in tiles], "each tile once, in order"
    assert model._segmenter.seen == [8, 4, 2, 2, 2, 2]
    assert model.told["batch_halved_to"] == 2
    model(tiles, images)
    assert model._segmenter.seen[6:] == [2, 2, 2, 2], "it does not try again what did not fit"


def test_memory_that_does_not_take_one_tile_and_other_errors_are_raised(greedy, monkeypatch):
    model, tiles = greedy
    monkeypatch.setattr(Greedy, "room", 0)
    with pytest.raises(torch.OutOfMemoryError):
        model(tiles, torch.zeros(8, 3, 256, 256, dtype=torch.uint8))
    model.size = 8
    monkeypatch.setattr(Greedy, "segment", lambda self, batch: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        model(tiles, torch.zeros(8, 3, 256, 256, dtype=torch.uint8))
    assert model.size == 8


def test_a_halved_batch_is_in_the_metadata_of_the_table(slide, tmp_path, monkeypatch, one_model):
    monkeypatch.setattr("gigaseg.instances.model.load_segmenter", lambda name, context: Greedy(job_card(slide)))
    start = Model.__init__

    def eight(self, *arguments):
        start(self, *arguments)
        self.size = 8

    monkeypatch.setattr(Model, "__init__", eight)
    run(slide, tmp_path / "o.parquet")
    found, metadata = read_instances(tmp_path / "o.parquet", stitched=False)
    assert metadata["batch_halved_to"] == 2
    assert len(found) == len(Grid.read(slide / "grid.parquet").row)


def job_card(slide):
    return Job.open(slide / "slide.json", slide / "grid.parquet", 0, SEGMENTER, "d").card


def test_the_allocator_of_the_host_is_understood():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    from gigaseg.instances.model import is_out_of_memory

    assert is_out_of_memory(error.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not is_out_of_memory(RuntimeError("size mismatch"))


@pytest.mark.parametrize(
    ("free", "one", "several", "size"),
    [
        (80_000, 1_300, 4_300, 32),  # half of 80 tiles, down to a power of two
        (1 << 40, 1_300, 4_300, LARGEST),
        (1_000, 1_300, 4_300, 1),
        (80_000, 4_000, 4_000, 32),  # what a tile adds does not show
    ],
)
def test_the_size_of_batches_suits_the_free_memory(free, one, several, size):
    assert fitting(free, one, several) == size


class Spots:
    """A model that finds one square in every tile it is asked about."""

    def __init__(self, card):
        self.card = card
        self.asked = []

    def segment(self, batch):
        self.asked += [(tile.row, tile.col) for tile in batch.tiles]
        return [
            TileInstances(
                torch.tensor([[9, 9, 20, 20]], dtype=torch.int32),
                [torch.ones(11, 11, dtype=torch.bool)],
                torch.ones(1),
                torch.ones(1, 1),
            )
            for _ in batch.tiles
        ]


def glass_and_tissue(folder, segmenter):
    """A slide whose tiles (128 px) of rows 0 to 2 are even glass and the others noise; all are kept as foreground."""
    image = np.full((768, 768, 3), 243, np.uint8)
    image[384:] = np.random.default_rng(1).integers(60, 240, (384, 768, 3))
    tifffile.imwrite(folder / "s.tif", image, photometric="rgb", tile=(64, 64))
    inspect(folder / "s.tif", slide="s", pixel_size="px").write(folder / "slide.json")
    preset = Preset(
        segmenter=segmenter,
        foreground=ForegroundConfig(method="all"),
        tiles=TilesConfig(tile=128, overlap=0, tiles_per_shard=100),
    )
    grid(folder / "slide.json", folder / "grid.parquet", folder / "foreground.tif", preset=preset)


@pytest.fixture(params=[False, True], ids=["each does all", "around one model"])
def spots(request, slide, monkeypatch):
    """A model that finds a square in every tile; it has the tiles about which it was asked."""
    contrast = Option(3.0, "grey levels", 0, 255)
    card = replace(job_card(slide), needs_gpu=True, options={"min_contrast": contrast})
    model = Spots(card)
    monkeypatch.setattr("gigaseg.instances.job.read_card", lambda name: card)
    monkeypatch.setattr("gigaseg.instances.model.load_segmenter", lambda name, context: model)
    monkeypatch.setattr(pipeline, "_one_model", lambda job: request.param)
    return model


@pytest.mark.parametrize("skip", [True, False])
def test_a_model_is_not_asked_about_tiles_in_which_nothing_stands_out(tmp_path, spots, skip):
    segmenter = SegmenterConfig("watershed", skip_blank=skip)
    glass_and_tissue(tmp_path, segmenter)
    inputs = tmp_path / "slide.json", tmp_path / "grid.parquet"
    found = segment(*inputs, 0, tmp_path / "o.parquet", segmenter=segmenter)
    rows = [row for row, _ in spots.asked]
    assert found == len(rows) == (3 * 6 if skip else 6 * 6)
    assert min(rows) == (3 if skip else 0)


@pytest.mark.parametrize("why", ["prompts", "segmenter"])
def test_it_is_asked_where_prompts_lie_and_where_faint_objects_count(tmp_path, spots, why, monkeypatch):
    segmenter = SegmenterConfig("watershed")
    glass_and_tissue(tmp_path, segmenter)
    if why == "prompts":
        rows_of = {(1, 4): [0], (2, 2): [1]}
        prompts = SimpleNamespace(rows_of=lambda row, col: rows_of.get((row, col), []))
        look = FirstLook.of(replace(job_of(tmp_path), prompts=prompts))
        assert len(look.spared) == 34
        assert not look.spared & set(rows_of)
    else:
        card = replace(spots.card, options={})
        monkeypatch.setattr("gigaseg.instances.job.read_card", lambda name: card)
        assert segment(tmp_path / "slide.json", tmp_path / "grid.parquet", 0, tmp_path / "o.parquet",
                       segmenter=segmenter) == 36  # fmt: skip


def job_of(folder):
    return Job.open(folder / "slide.json", folder / "grid.parquet", 0, SegmenterConfig("watershed"), "d")
