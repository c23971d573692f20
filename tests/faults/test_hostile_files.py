"""Weights, tile stores and tables that would run code, take all memory, or are not what they say: one line each."""

import json
import os
import pickle
import shutil
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gigaseg.testing import synthetic_slide
from gigaseg.testing.faults import attempt

MEMORY = 3 * 2**29


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A slide with all that the steps make of it."""
    folder = tmp_path_factory.mktemp("steps")
    synthetic_slide(folder / "s.tif", width=400, height=300, seed=2)
    steps = [
        ["inspect", "s.tif", "--slide=s", "--out=s.json"],
        ["grid", "s.json", "--out=g.parquet", "--foreground=f.tif", "--method=all", "--tile=256"],
        ["tile", "s.json", "g.parquet", "--out=t.zarr.zip"],
        ["segment", "s.json", "g.parquet", "--tiles=t.zarr.zip", "--segmenter=watershed", "--out=i.parquet"],
        ["stitch", "i.parquet", "--grid=g.parquet", "--out=all.parquet"],
    ]
    for words in steps:
        done = run(folder, words)
        assert done.code == 0, done
    return folder


def run(folder, words):
    return attempt(words, folder=folder, memory=MEMORY)


def segment(folder, *options):
    return run(folder, ["segment", "s.json", "g.parquet", "--out=x.parquet", *options])


def refused(done, path):
    assert done.verdict(path) == "refused", done
    assert not (path.parent / "x.parquet").exists()
    return done.errors[0]


class Trap:
    """Unpickling it would run a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("kind", ["zip", "pickle", "tar"])
def test_weights_that_would_run_code_run_none(folder, tmp_path, kind):
    path, trap = tmp_path / "evil.pth", tmp_path / "trap"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"weight": Trap(trap)}))
    else:
        torch.save({"weight": Trap(trap)}, path, _use_new_zipfile_serialization=kind == "zip")
    line = refused(segment(folder, "--segmenter=centersam", f"--checkpoint={path}"), path)
    assert "could run code: refused" in line or "damaged" in line
    assert not trap.exists()
    if kind == "zip":
        torch.load(path, weights_only=False)
        assert trap.exists(), "the trap works"


def lying_safetensors(header: dict | bytes, length: int | None = None) -> bytes:
    packed = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(packed) if length is None else length) + packed


@pytest.mark.parametrize(
    "content",
    [
        lying_safetensors({"w": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}}),
        lying_safetensors({"w": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 8]}}) + bytes(8),
        lying_safetensors({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [8, 0]}}) + bytes(8),
        lying_safetensors(b"{}", 2**63),
        lying_safetensors(b"{}", 2**40),
        lying_safetensors(b"[" * 100_000),
    ],
    ids=[
        "absurd shape",
        "shape that wraps around",
        "negative shape",
        "header of 2^63",
        "header of 2^40",
        "deep header",
    ],
)
def test_safetensors_whose_header_lies(folder, tmp_path, content):
    path = tmp_path / "lies.safetensors"
    path.write_bytes(content)
    assert "damaged" in refused(segment(folder, "--segmenter=centersam", f"--checkpoint={path}"), path)


def stored(folder, path, change, compression=zipfile.ZIP_STORED):
    """A copy of the tile store whose members, name -> bytes, are changed."""
    with zipfile.ZipFile(folder / "t.zarr.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def with_json(name, edit):
    def change(members):
        content = json.loads(members[name])
        edit(content)
        members[name] = json.dumps(content).encode()

    return change


def set_tile(value):
    def edit(content):
        content["attributes"]["gigaseg"]["grid"]["tile"] = value

    return with_json("zarr.json", edit)


def set_shape(value):
    return with_json("image/zarr.json", lambda content: content.update(shape=value))


def many(content):
    facts = content["attributes"]["gigaseg"]
    facts["row"], facts["col"] = list(range(10**5)), list(range(10**5))


def climb(members):
    members["image/c/../../../../escaped"] = members.pop("image/c/0/0/0/0")


def bomb(members):
    members["image/c/0/0/0/0"] = bytes(200 * 2**20)


STORES = {
    "absurd tile": set_tile(10**9),
    "tile of 0": set_tile(0),
    "tile that is a text": set_tile("x"),
    "absurd shape": set_shape([2**60, 2**60, 2**60, 3]),
    "more tiles than there are": with_json("zarr.json", many),
    "name that climbs": climb,
    "no JSON": lambda members: members.update({"zarr.json": b"[" * 100_000}),
}


@pytest.mark.parametrize("change", STORES.values(), ids=STORES)
def test_a_tile_store_that_lies(folder, tmp_path, change):
    path = tmp_path / "t.zarr.zip"
    stored(folder, path, change)
    line = refused(segment(folder, "--segmenter=watershed", f"--tiles={path}"), path)
    assert "run tile again" in line
    assert not list(tmp_path.parent.rglob("escaped"))


def test_a_tile_store_that_is_a_bomb(folder, tmp_path):
    path = tmp_path / "t.zarr.zip"
    stored(folder, path, bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    assert "is compressed, not stored" in refused(segment(folder, "--segmenter=watershed", f"--tiles={path}"), path)


@pytest.mark.parametrize("name", ["t.zarr.zip", "g.parquet", "i.parquet", "all.parquet", "f.tif", "s.json"])
def test_files_between_the_steps_cut_or_flipped(folder, tmp_path, name):
    """Whatever bit is flipped: what reads the file refuses it, naming it, or what it holds is intact."""
    inside = tmp_path / "in"
    shutil.copytree(folder, inside)
    content = (folder / name).read_bytes()
    path, rng = inside / name, np.random.default_rng(len(name))
    measure = ["measure", "all.parquet", "--info=s.json", "--foreground=f.tif", "--summary=x.json"]
    words = {
        "t.zarr.zip": ["segment", "s.json", "g.parquet", "--tiles=t.zarr.zip", "--segmenter=watershed"],
        "g.parquet": ["tile", "s.json", "g.parquet"],
        "s.json": ["tile", "s.json", "g.parquet"],
        "i.parquet": ["stitch", "i.parquet", "--grid=g.parquet"],
        "all.parquet": measure,
        "f.tif": measure,
    }[name]
    for trial in range(6):
        damaged = bytearray(content)
        if trial < 2:
            del damaged[int(rng.integers(1, len(content))) :]
        else:
            # at either end lie headers and directories
            place = int(rng.integers(len(content))) if trial == 2 else len(content) - int(rng.integers(1, 600))
            damaged[max(0, place)] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        done = run(inside, [*words, "--out=x.parquet"])
        verdict = done.verdict(name)
        assert verdict in ("refused", "succeeded"), (trial, place if trial > 1 else len(damaged), done)
        if trial < 2 and bytes(damaged) != content:
            assert verdict == "refused", (trial, done)


def test_foreign_tables(folder, tmp_path):
    """Parquet files that are none of ours in place of the grid and of instances."""
    path = tmp_path / "x.foreign.parquet"
    plain = pa.table({"row": [1], "col": [2]})
    odd = [
        plain,
        plain.replace_schema_metadata({b"gigaseg": b"[" * 100_000}),
        plain.replace_schema_metadata({b"gigaseg": b"\xff\xfe"}),
        plain.replace_schema_metadata({b"gigaseg": b"[1]"}),
        plain.replace_schema_metadata({b"gigaseg": json.dumps({"format": "gigaseg/grid/1"}).encode()}),
        plain.replace_schema_metadata({b"gigaseg": json.dumps({"format": "gigaseg/instances/1"}).encode()}),
    ]
    for table in odd:
        pq.write_table(table, path)
        for words in (
            ["tile", "s.json", str(path), "--out=x.parquet"],
            ["stitch", str(path), "--grid=g.parquet", "--out=x.parquet"],
        ):
            done = run(folder, words)
            assert done.verdict(path) == "refused", (table.schema.metadata, words, done)


def test_a_grid_whose_numbers_lie(folder, tmp_path):
    table = pq.read_table(folder / "g.parquet")
    facts = json.loads(table.schema.metadata[b"gigaseg"])
    path = tmp_path / "g.lies.parquet"
    lies = {
        "tile": [0, 10**9, "x"],
        "overlap": [256],
        "width": [10**12, None],
        "scale": [[0, 0], [1]],
        "pixel_size": [[float("inf"), 1]],
    }
    for key, value in [(key, value) for key, values in lies.items() for value in values]:
        packed = json.dumps({**facts, "grid": {**facts["grid"], key: value}}).encode()
        pq.write_table(table.replace_schema_metadata({b"gigaseg": packed}), path)
        done = run(folder, ["tile", "s.json", str(path), "--out=x.parquet"])
        assert done.verdict(path) == "refused", (key, value, done)
    for column, value in [("row", 10**6), ("col", -1), ("shard", 7)]:
        changed = pa.array([value] * len(table), pa.int32())
        pq.write_table(table.set_column(table.column_names.index(column), column, changed), path)
        done = run(folder, ["tile", "s.json", str(path), "--out=x.parquet"])
        assert done.verdict(path) == "refused", (column, value, done)
