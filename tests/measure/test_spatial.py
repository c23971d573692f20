"""Neighbourhoods are those of all instances together, however the slide is cut."""

import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay
from scipy.spatial.distance import cdist

from gigaseg.measure.delaunay import grains
from gigaseg.measure.incircle import side_of_circle
from gigaseg.measure.spatial import spatial, spatial_columns
from gigaseg.measure.store import Store
from gigaseg.runner import Runner
from gigaseg.slides.ground import Flat
from gigaseg.testing.array_slide import ArraySlide
from gigaseg.tiles.foreground import Foreground
from stitching import steady

EVERYWHERE = Foreground(np.ones((10, 10), bool), (100.0, 100.0), "all")
INFO = replace(ArraySlide(np.zeros((1, 1, 3), np.uint8)).info, unit="um", width=1000, height=1000)
ALL = 10**6


def neighbourhoods(centroid, size=(1.0, 1.0), radius=30.0, block=ALL):
    """Columns of `spatial` of (n, 2) centroids on a slide of 1000 px."""
    names = spatial_columns("um", radius)
    places = ("centroid_x_px", "centroid_y_px")
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder), len(centroid), dict.fromkeys(places, "f8") | dict.fromkeys(names, "f8"))
        for name, values in zip(places, centroid.T):
            store.write(name, slice(None), values)
        spatial(store, replace(INFO, pixel_size=size), Flat(size), radius, EVERYWHERE, Runner(1, None), block)
        return {name: store.read(name) for name in names}


def points_of(kind, n, seed):
    rng = np.random.default_rng(seed)
    if kind == "even":
        return rng.uniform(0, 1000, (n, 2))
    if kind == "clusters":
        return (rng.uniform(0, 1000, (6, 2))[rng.integers(0, 6, n)] + rng.normal(0, 8, (n, 2))).clip(0, 1000)
    if kind == "lattice":  # cocircular, collinear and coinciding points
        return rng.integers(0, rng.integers(2, 40), (n, 2)) * 25.0
    if kind == "ring":
        angle = rng.uniform(0, 2 * np.pi, n)
        return 500 + 400 * np.column_stack([np.cos(angle), np.sin(angle)]) + rng.normal(0, 0.5, (n, 2))
    if kind == "rim":  # thin triangles with circles far larger than the slide
        return np.column_stack([rng.uniform(0, 1000, n), 500 + rng.normal(0, 0.5, n)])
    if kind == "far":  # two clusters and one point between
        corner = rng.integers(0, 2, (n, 1)) * (970, 975)
        return np.concatenate([rng.uniform(0, 20, (n, 2)) + corner, [[500, 500]]])
    return np.concatenate([rng.integers(0, 40, (n // 2, 2)) * 4.0, rng.uniform(0, 1000, (n - n // 2, 2))])


def exact_degrees(place):
    """Delaunay degrees of distinct whole-numbered points, by definition: pairs whose Voronoi cells share an edge."""
    points = [tuple(map(int, point)) for point in place]
    degree = np.zeros(len(points), int)
    for i, a in enumerate(points):
        for j in range(i):
            b = points[j]
            # centres of circles through both: middle + s * (perpendicular); each other point bounds s on one side
            low, high, apart = None, None, True
            for k, point in enumerate(points):
                if k in (i, j):
                    continue
                x, y = point[0] - a[0], point[1] - a[1]
                u, v = b[0] - a[0], b[1] - a[1]
                free, slope = x * (x - u) + y * (y - v), 2 * (u * y - v * x)
                if slope > 0:
                    bound = Fraction(free, slope)
                    high = bound if high is None else min(high, bound)
                elif slope < 0:
                    bound = Fraction(free, slope)
                    low = bound if low is None else max(low, bound)
                elif free < 0:  # on the line between them
                    apart = False
            if apart and (low is None or high is None or low < high):
                degree[[i, j]] += 1
    return degree


@steady(60)
@given(
    st.sampled_from(["even", "clusters", "lattice", "ring", "mixed", "rim", "far"]),
    st.integers(3, 40),
    st.integers(0, 10**6),
    st.sampled_from([(1.0, 1.0), (0.25, 0.5), (0.2517, 0.2517)]),
    st.sampled_from([1, 5, ALL]),
)
def test_degrees_are_those_of_exact_arithmetic(kind, n, seed, size, block):
    points = points_of(kind, n, seed)
    place, first = np.unique(grains(points, size), axis=0, return_index=True)
    assume(len(place) >= 3)
    assume(np.linalg.matrix_rank(place - place[0]) == 2)
    found = neighbourhoods(points[first], size, block=block)["delaunay_degree"]
    assert found.tolist() == exact_degrees(place).tolist()


@given(st.lists(st.tuples(st.integers(0, 2**27), st.integers(0, 2**27)), min_size=4, max_size=4), st.integers(0, 27))
def test_the_side_of_a_circle_is_told_without_rounding(points, bits):
    points = np.array(points) >> bits
    a, b, c, d = points.tolist()
    rows = [(x - d[0], y - d[1], (x - d[0]) ** 2 + (y - d[1]) ** 2) for x, y in (a, b, c)]
    (e, f, g), (h, i, j), (k, m, n) = rows
    exact = e * (i * n - j * m) - f * (h * n - j * k) + g * (h * m - i * k)
    expected = (exact > 0) - (exact < 0)
    assert side_of_circle(*points[:, np.newaxis]).tolist() == [expected]
    # a point of the circle itself, in whatever order: every rectangle has one
    corners = np.array([a, [c[0], a[1]], c, [a[0], c[1]]])[:, np.newaxis]
    assert side_of_circle(*corners).tolist() == [0]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["even", "clusters", "lattice", "ring", "mixed", "rim", "far"]),
    st.integers(0, 250),
    st.integers(0, 10**6),
    st.sampled_from([(1.0, 1.0), (0.25, 0.5), (0.2517, 0.2517)]),
    st.sampled_from([5.0, 25.0, 200.0]),
    st.integers(1, 20),
)
def test_strips_of_any_size_give_what_all_points_together_give(kind, n, seed, size, radius, block):
    points = points_of(kind, n, seed)
    whole = neighbourhoods(points, size, radius)
    for name, values in neighbourhoods(points, size, radius, block).items():
        assert np.array_equal(values, whole[name], equal_nan=True), name


@pytest.mark.parametrize("block", [ALL, 7])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 40, 700])
def test_neighbourhoods_are_those_of_all_pairs(n, block):
    rng = np.random.default_rng(n)
    centroid = rng.uniform(0, 1000, (n, 2))
    found = neighbourhoods(centroid, (0.5, 0.25), 30.0, block)
    distance = cdist(*[centroid * (0.5, 0.25)] * 2)
    np.fill_diagonal(distance, np.inf)
    expected = distance.min(1, initial=np.inf)
    assert found["nn_distance_um"] == pytest.approx(np.where(np.isinf(expected), np.nan, expected), nan_ok=True)
    assert found["neighbours_within_30um"].tolist() == (distance <= 30).sum(1).tolist()
    assert list(found) == ["nn_distance_um", "neighbours_within_30um", "local_density_per_mm2", "delaunay_degree"]
    if n >= 3:
        place = np.rint(centroid * 256) * (0.5, 0.25)
        pairs = np.concatenate([Delaunay(place).simplices[:, [i, (i + 1) % 3]] for i in range(3)])
        edges = np.unique(np.sort(pairs, axis=1), axis=0)
        assert found["delaunay_degree"].tolist() == np.bincount(edges.ravel(), minlength=n).tolist()


@pytest.mark.parametrize("block", [ALL, 40])
@pytest.mark.parametrize("kind", ["even", "clusters", "rim", "far"])
def test_degrees_are_those_that_qhull_finds_where_rounding_decides_nothing(kind, block):
    points = points_of(kind, 1500, 3)
    place = np.unique(grains(points, (0.5, 0.5)), axis=0)
    pairs = np.concatenate([Delaunay(place - place[0]).simplices[:, [i, (i + 1) % 3]] for i in range(3)])
    edges = np.unique(np.sort(pairs, axis=1), axis=0)
    found = neighbourhoods(place / 256, (0.5, 0.5), block=block)["delaunay_degree"]
    assert found.tolist() == np.bincount(edges.ravel(), minlength=len(place)).tolist()


@pytest.mark.parametrize("block", [ALL, 5])
def test_on_a_lattice_no_diagonal_counts_and_neighbours_right_on_the_circle_do(block):
    y, x = np.mgrid[20:1000:50, 20:1000:50]
    found = neighbourhoods(np.column_stack([x.ravel(), y.ravel()]), (0.3, 0.3), 15.0, block)
    degree, within = (found[name].reshape(20, 20) for name in ("delaunay_degree", "neighbours_within_15um"))
    for values in (degree, within):
        assert np.all(values[1:-1, 1:-1] == 4)
        assert np.all(values[0, 1:-1] == 3)
        assert values[-1, -1] == 2


@pytest.mark.parametrize("block", [ALL, 1])
def test_instances_that_coincide_share_their_neighbours(block):
    corner = np.array([[0, 0], [100, 0], [0, 100], [100, 100], [50, 40], [50, 40], [50, 40.001]])
    found = neighbourhoods(corner, block=block)
    assert found["delaunay_degree"].tolist() == [3, 3, 3, 3, 4, 4, 4]
    assert found["nn_distance_um"][4:6].tolist() == [0, 0]


@pytest.mark.parametrize("block", [ALL, 3])
def test_a_lonely_instance_finds_the_nearest_wherever_it_lies(block):
    rng = np.random.default_rng(0)
    crowd = rng.uniform(0, 100, (200, 2)) + (600, 880)
    points = np.concatenate([[[10, 5]], crowd])
    found = neighbourhoods(points, block=block)
    assert found["nn_distance_um"][0] == np.hypot(*(crowd - points[0]).T).min()


@pytest.mark.parametrize("block", [ALL, 100])
def test_the_density_of_an_even_lattice_is_its_own_also_at_the_slides_border(block):
    y, x = np.mgrid[5:1000:10, 5:1000:10]
    found = neighbourhoods(np.column_stack([x.ravel(), y.ravel()]), (1.0, 1.0), 80.0, block)
    density = found["local_density_per_mm2"].reshape(100, 100)
    assert density[10:-10, 10:-10] == pytest.approx(1e4, rel=0.03)
    assert density[0, 10:-10] == pytest.approx(1e4, rel=0.15)


@pytest.mark.parametrize("block", [ALL, 1])
@pytest.mark.parametrize("direction", [(1, 1), (1, 0), (0, 1), (3, 7)])
def test_points_on_a_line_have_no_triangulation(direction, block):
    line = np.arange(50.0)[:, None] * direction
    assert np.isnan(neighbourhoods(line, block=block)["delaunay_degree"]).all()
