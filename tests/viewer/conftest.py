"""Results of a small cohort as the steps write them: a slide with regions and prompts, another, and one that failed."""

import json
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import shapely

from gigaseg.cli import main
from gigaseg.prompts.table import BOX, POINT, POSITIVE, UNLABELLED, PromptTable
from gigaseg.testing import synthetic_slide


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """A results folder; read only, apart from the viewer's packs."""
    folder = tmp_path_factory.mktemp("viewed")
    results = folder / "results"
    synthetic_slide(folder / "a.tif", width=1400, height=1000, seed=3)
    box = [[300, 200], [900, 200], [900, 700], [300, 700], [300, 200]]
    tumour = {
        "type": "Feature",
        "properties": {"name": "tumour"},
        "geometry": {"type": "Polygon", "coordinates": [box]},
    }
    regions = folder / "regions.geojson"
    regions.write_text(json.dumps({"type": "FeatureCollection", "features": [tumour]}))
    run_steps(folder / "a.tif", results / "a", regions)
    write_prompts(results / "a" / "prompts.parquet")
    synthetic_slide(folder / "b.tif", width=400, height=300, seed=4)
    run_steps(folder / "b.tif", results / "b")
    failed = results / "broken"
    out = {name: failed / f"{name}.parquet" for name in ("grid", "instances", "measurements")}
    (folder / "broken.tif").write_bytes(b"no slide")
    run("inspect", folder / "broken.tif", "--slide", "broken", "--out", failed / "slide.json", "--record-failure")
    foreground = failed / "foreground.tif"
    run("grid", failed / "slide.json", "--out", out["grid"], "--foreground", foreground, "--record-failure")
    run("stitch", out["grid"], "--grid", out["grid"], "--out", out["instances"], "--record-failure")
    return results


def run(*words):
    assert main([str(word) for word in words]) == 0


def run_steps(slide, out, regions=None):
    tables = {name: out / f"{name}.parquet" for name in ("grid", "instances", "measurements")}
    info, foreground, shard, summary = (
        out / name for name in ("slide.json", "foreground.tif", "0.parquet", "summary.json")
    )
    run("inspect", slide, "--slide", out.name, "--out", info)
    run("grid", info, "--segmenter", "watershed", "--tile", "256", "--out", tables["grid"], "--foreground", foreground)
    run("segment", info, tables["grid"], "--segmenter", "watershed", "--out", shard)
    run("stitch", shard, "--grid", tables["grid"], "--out", tables["instances"])
    named = ["--regions", regions] if regions else []
    run(
        "measure", tables["instances"], "--info", info, "--foreground", foreground, *named,
        "--out", tables["measurements"], "--summary", summary,
    )  # fmt: skip
    if regions:
        run("regions", summary, "--info", info, *named, "--out", out / "regions.gpkg")


def write_prompts(path):
    """Three points and a box, working px."""
    n, nan = 4, np.nan
    PromptTable(
        tile_row=np.zeros(n, np.int32),
        tile_col=np.zeros(n, np.int32),
        object=np.arange(n),
        kind=np.array([POINT, POINT, POINT, BOX], np.int8),
        xy=np.array([[500, 400], [520, 410], [540, 380], [nan, nan]]),
        box=np.array([[nan] * 4] * 3 + [[600, 300, 640, 350]]),
        label=np.array([POSITIVE, POSITIVE, 0, UNLABELLED], np.int8),
        class_index=np.zeros(n, np.int32),
        score=np.ones(n, np.float32),
        feature=np.arange(n),
        geometry=np.full(n, None, object),
        classes=("nucleus",),
    ).write(path, "a", {})


@contextmanager
def serving(path, **options):
    """The viewer's server on a free port of this machine, in a thread; yields its address."""
    import asyncio

    import tornado.httpserver
    import tornado.netutil

    from gigaseg.viewer.cohort import ResultsFolder
    from gigaseg.viewer.server import make_application

    ready, found = threading.Event(), {}

    def serve():
        asyncio.set_event_loop(asyncio.new_event_loop())
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server = tornado.httpserver.HTTPServer(make_application(ResultsFolder(path), **options))
        server.add_sockets(sockets)
        found.update(port=sockets[0].getsockname()[1], loop=tornado.ioloop.IOLoop.current())
        ready.set()
        found["loop"].start()
        server.stop()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{found['port']}/"
    finally:
        found["loop"].add_callback(found["loop"].stop)
        thread.join()


@pytest.fixture(scope="session")
def address(cohort):
    with serving(cohort) as found:
        yield found


def outlines_of(data, rows):
    """Polygons by row of a tile's file, as `gigaseg.viewer.outlines` lays it out."""
    import gzip

    raw = gzip.decompress(data)
    frame, counts = np.frombuffer(raw, "<f8", 4), np.frombuffer(raw, "<u4", 3, 32)
    n, m, k = counts.tolist()
    row, rings, vertices = np.split(np.frombuffer(raw, "<u4", 2 * n + m, 44), [n, 2 * n])
    change = np.frombuffer(raw, "<i2", 2 * k, 44 + 4 * (2 * n + m)).reshape(2, k).T
    first = np.repeat(np.r_[0, np.cumsum(vertices)[:-1]].astype(int), vertices)
    total = np.cumsum(change.astype(np.int64), axis=0)
    before = np.vstack([np.zeros((1, 2), np.int64), total])[first]
    xy = frame[:2] + frame[2:] * (total - before).astype(np.int16)
    parts = np.split(xy, np.cumsum(vertices)[:-1])
    owner = np.repeat(row, rings)
    for one in row:
        mine = [shapely.Polygon(part) for part, of in zip(parts, owner, strict=True) if of == one]
        whole = shapely.Polygon()
        for ring in sorted(mine, key=lambda shape: -shape.area):
            whole = whole.symmetric_difference(ring)
        rows[int(one)] = whole
