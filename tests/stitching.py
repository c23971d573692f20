"""Scenes for the tests of stitching: label images, what an oracle finds in their tiles, and shards on disk."""

from dataclasses import replace

import numpy as np
import shapely
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from rasterio.features import rasterize

from gigaseg.instances.polygons import polygons_from_labels
from gigaseg.instances.table import Instances
from gigaseg.testing.labels import LABEL_KINDS, label_image
from gigaseg.tiles.grid import Grid
from gigaseg.tiles.tiling import Tiling


def full_grid(shape, tile, overlap, kept=None):
    tiling = Tiling(tile, overlap, shape[1], shape[0], (1.0, 1.0), (1.0, 1.0), "px")
    keep = np.ones((tiling.rows, tiling.cols), bool) if kept is None else kept(tiling)
    row, col = np.nonzero(keep)
    n = len(row)
    return Grid(
        tiling,
        "s",
        row.astype(np.int32),
        col.astype(np.int32),
        np.ones(n, np.float32),
        np.zeros(n, np.int32),
        1,
    )


def make(geometry, tile_row, tile_col, cut, score=None):
    n = len(geometry)
    return Instances(
        geometry=np.asarray(geometry, dtype=object),
        score=np.ones(n, np.float32) if score is None else np.asarray(score, np.float32),
        class_index=np.zeros(n, np.int32),
        class_prob=np.ones((n, 1), np.float32),
        tile_row=np.asarray(tile_row, np.int32),
        tile_col=np.asarray(tile_col, np.int32),
        cut=np.asarray(cut, np.uint8),
        prompt=np.full(n, -1),
        classes=("object",),
    )


def oracle(labels, grid):
    """Instances of each kept tile, as a segmenter that makes no mistake would find them."""
    parts = []
    tiling = grid.tiling
    for row, col in zip(grid.row, grid.col):
        x, y = int(col) * tiling.stride, int(row) * tiling.stride
        crop = labels[y : y + tiling.tile, x : x + tiling.tile]
        ids, geometry = polygons_from_labels(crop)
        sides = np.zeros(len(ids), np.uint8)
        if len(ids):
            box = shapely.bounds(geometry)
            sides |= ((box[:, 0] == 0) & (col > 0)).astype(np.uint8) * 1
            sides |= ((box[:, 1] == 0) & (row > 0)).astype(np.uint8) * 2
            sides |= ((box[:, 2] == tiling.tile) & (x + tiling.tile < tiling.width)).astype(np.uint8) * 4
            sides |= ((box[:, 3] == tiling.tile) & (y + tiling.tile < tiling.height)).astype(np.uint8) * 8
            geometry = shapely.transform(geometry, lambda xy, x=x, y=y: xy + (x, y))
        parts.append(make(geometry, np.full(len(ids), row), np.full(len(ids), col), sides))
    return parts


def painted(instances, shape):
    """Label image of instances, 1.. in their order; each must add to what lies beneath it nothing but itself."""
    numbered = [(geometry, i) for i, geometry in enumerate(instances.geometry, 1)]
    if not numbered:
        return np.zeros(shape, np.int32)
    image = rasterize(numbered, out_shape=shape, dtype=np.int32)
    assert shapely.area(instances.geometry).sum() == (image > 0).sum(), "instances overlap"
    return image


def same_partition(a, b):
    """The two label images hold the same sets of pixels, whatever their numbers."""
    if not np.array_equal(a > 0, b > 0):
        return False
    a, b = a[a > 0].astype(np.int64), b[b > 0].astype(np.int64)
    pairs = np.unique(a * (b.max(initial=0) + 1) + b)
    return len(pairs) == len(np.unique(a)) == len(np.unique(b))


def steady(examples):
    """The same examples in every run, however slow the machine."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@st.composite
def scenes(draw, min_overlap=1):
    tile = draw(st.integers(24, 64))
    overlap = draw(st.integers(min_overlap, tile // 2))
    shape = (draw(st.integers(10, 150)), draw(st.integers(10, 150)))
    phase = (draw(st.integers(0, 30)), draw(st.integers(0, 30)))
    kind = draw(st.sampled_from(LABEL_KINDS))
    labels = label_image(kind, (shape[0] + phase[0], shape[1] + phase[1]), draw(st.integers(0, 10**6)))
    shifted = labels[phase[0] :, phase[1] :]
    from skimage.measure import label

    return label(shifted, connectivity=2), tile, overlap


@st.composite
def usual_scenes(draw):
    """A label image under tiles of 64 to 1024 px: objects where four tiles meet and on the slide's edge."""
    # small numbers come up more often than others: each range has its share
    tile = draw(st.one_of(st.integers(64, 200), st.integers(201, 500), st.integers(501, 1024)))
    half = tile // 2
    overlap = draw(st.one_of(st.just(1), st.integers(1, half), st.integers(tile // 5, half), st.just(half)))
    kind = draw(st.sampled_from(LABEL_KINDS))
    seed = draw(st.integers(0, 10**6))
    # where the tiles (r, c), (r, c + 1), (r + 1, c) and (r + 1, c + 1) begin to share an area
    corner = np.array([draw(st.integers(1, 2)), draw(st.integers(1, 2))]) * (tile - overlap)
    if kind == "giants":  # larger than a tile: drawn small and enlarged
        shape = corner + tile // 2 + np.array([draw(st.integers(1, tile)), draw(st.integers(1, tile))])
        times = 4
        labels = label_image(kind, tuple(shape // times + 2), seed).astype(np.int32)
        labels = labels.repeat(times, axis=0).repeat(times, axis=1)
        phase = draw(st.integers(0, times - 1)), draw(st.integers(0, times - 1))
        labels = labels[phase[0] : phase[0] + shape[0], phase[1] : phase[1] + shape[1]]
    else:  # a patch around the corner; the slide ends with it
        size = np.array([draw(st.integers(60, 320)), draw(st.integers(60, 320))])
        inside = np.array([draw(st.integers(10, n - 20)) for n in size.tolist()])
        start = np.maximum(corner - inside, 0)
        labels = np.zeros(tuple(start + size), np.int32)
        labels[start[0] :, start[1] :] = label_image(kind, tuple(size), seed)
        reach = draw(st.integers(0, 30))
        y, x = corner
        labels[max(0, y - reach) : y + reach, max(0, x - reach) : x + reach] = labels.max() + 1
    from skimage.measure import label

    return label(labels, connectivity=2), tile, overlap


def disturb(labels, grid, seed):
    """What tiles draw of a label image when they move, halve and miss objects: 20 % halved, 10 % missed."""
    rng = np.random.default_rng(seed)
    parts = []
    for part, row, col in zip(oracle(labels, grid), grid.row, grid.col):
        if not len(part):
            parts.append(part)
            continue
        moved = shapely.transform(part.geometry, lambda xy: xy + rng.normal(0, 0.7, 2))
        half = rng.random(len(part)) < 0.2
        xmin, ymin, xmax, ymax = shapely.bounds(moved).T
        moved[half] = shapely.intersection(moved[half], shapely.box(xmin, ymin, (xmin + xmax) / 2, ymax)[half])
        geometry = shapely.intersection(moved, shapely.box(*grid.tiling.bounds(int(row), int(col))))
        keep = (rng.random(len(part)) < 0.9) & (shapely.area(geometry) > 0)
        keep &= np.isin(shapely.get_type_id(geometry), [3, 6])
        parts.append(replace(part, geometry=geometry).take(keep))
    return parts


def mistaken(labels, grid, seed):
    """`disturb` with random scores; some tiles draw two objects as one, with or without the second, or tell no cuts."""
    rng = np.random.default_rng(seed)
    parts = []
    for part in disturb(labels, grid, seed):
        if len(part) > 2 and rng.random() < 0.3:
            geometry = part.geometry.copy()
            geometry[0] = shapely.union_all(geometry[:2].tolist())
            part = replace(part, geometry=geometry, cut=np.append(part.cut[0] | part.cut[1], part.cut[1:]))
            if rng.random() < 0.5:
                part = part.take(np.append(0, np.arange(2, len(part))))
        part = replace(part, score=rng.random(len(part)).astype(np.float32))
        if rng.random() < 0.3:
            part = replace(part, cut=np.where(rng.random(len(part)) < 0.3, 0, part.cut).astype(np.uint8))
        parts.append(part)
    return parts


@st.composite
def mistaken_scenes(draw):
    """Tile instances, one part a kept tile, and the grid: any overlap up to half a tile, some tiles not kept."""
    seed = draw(st.integers(0, 10**6))
    tile = draw(st.integers(24, 64))
    overlap = draw(st.integers(0, tile // 2))
    shape = draw(st.integers(60, 220)), draw(st.integers(60, 220))
    share = draw(st.sampled_from([1.0, 0.8]))
    labels = label_image(draw(st.sampled_from(LABEL_KINDS)), shape, seed)
    chosen = np.random.default_rng(seed)
    grid = full_grid(shape, tile, overlap, lambda t: chosen.random((t.rows, t.cols)) < share)
    return mistaken(labels, grid, seed), grid


def write_shards(folder, parts, grid, shards=3):
    """Write grid.parquet and the tile instances of `parts` (a tile each, in order) as shards; returns their paths."""
    tiles = len(grid.row)
    shard = (np.arange(tiles) * shards // max(tiles, 1)).astype(np.int32)
    Grid(grid.tiling, "s", grid.row, grid.col, grid.foreground, shard, shards).write(folder / "grid.parquet")
    paths = []
    for k in range(shards):
        mine = [part for part, of in zip(parts, shard) if of == k]
        table = Instances.concat(mine) if mine else Instances.empty(["object"])
        paths.append(folder / f"{k:03d}.parquet")
        about = {"slide": "s", "grid": grid.tiling.to_dict(), "shard": k, "outlines": "pixels"}
        table.write(paths[-1], about)
    return paths


def box(xmin, ymin, xmax, ymax):
    return shapely.box(xmin, ymin, xmax, ymax)


NOISE = {
    "one outline moved": ([box(40, 20, 52, 32)], [box(40.8, 20.5, 53, 32.3)]),
    "split by the less central tile": ([box(36, 20, 50, 44)], [box(36, 20, 50, 30.5), box(36, 33.5, 50, 44)]),
    "merged by the less central tile": ([box(46, 20, 60, 44)], [box(46, 20, 60, 30.5), box(46, 33.5, 60, 44)]),
    "half of a merged one agrees": ([box(36, 20, 50, 44)], [box(36, 20, 50, 35), box(36, 37, 50, 44)]),
    "missed by one tile": ([box(40, 20, 52, 32)], []),
    "drawn short of the border": ([box(2, 20, 64, 44)], [box(33, 20, 90, 44)]),
    "a sliver that moved": ([box(61, 20, 64, 32)], [box(62.8, 20, 76, 32)]),
    "nested, and both tiles say so": (
        [box(36, 16, 60, 48), box(42, 24, 54, 40)],
        [box(36, 16, 60, 48), box(42, 24, 54, 40)],
    ),
    "a speck in a large piece": ([box(2, 10, 64, 54)], [box(44, 24, 54, 34)]),
}
"""What two tiles of 64 px, 32 px apart, drew of the same objects: (left tile, right tile)."""


def noisy(name):
    """Tile instances of a scene of `NOISE`, and its grid."""
    left, right = NOISE[name]
    geometry = [*left, *right]
    col = [0] * len(left) + [1] * len(right)
    cut = [4 * (g.bounds[2] == 64) if c == 0 else g.bounds[0] == 32 for g, c in zip(geometry, col)]
    return make(geometry, np.zeros(len(col)), col, cut), full_grid((64, 96), 64, 32)
