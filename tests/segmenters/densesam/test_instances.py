"""From two maps to instances: known answers, the rule told pixel by pixel, and what holds for all maps."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from skimage.segmentation import watershed

from gigaseg.segmenters.densesam.instances import BOUNDARY, OBJECT, _spread, dilated, paper, robust
from gigaseg.segmenters.regions import components, connected
from gigaseg.train.densesam.targets import boundary_target

CROSS = ndimage.generate_binary_structure(2, 1)


def discs(*places, shape=(90, 120)):
    """Label image of discs (row, column, radius); where they overlap, the nearer centre, in radii, counts."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    distance = np.stack([np.hypot(y - row, x - col) / radius for row, col, radius in places])
    return np.where(distance.min(0) <= 1, distance.argmin(0) + 1, 0).astype(np.int32)


def maps(labels):
    """What a perfect network answers."""
    return (labels > 0).astype(np.float32), boundary_target(torch.from_numpy(labels)).numpy().astype(np.float32)


@st.composite
def any_maps(draw):
    """Objects and boundaries in three steps: noise, or discs with boundaries that are in part wiped out."""
    values = st.sampled_from(np.float32([0, 0.4, 1]))
    if draw(st.booleans()):
        shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
        return draw(arrays(np.float32, shape, elements=values)), draw(arrays(np.float32, shape, elements=values))
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    place = st.tuples(st.integers(-5, 45), st.integers(-5, 45), st.floats(0.5, 12))
    objects, boundaries = maps(discs(*draw(st.lists(place, min_size=1, max_size=8)), shape=shape))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weak = random.random(shape) < draw(st.sampled_from([0, 0.1, 0.5]))
    holes = random.random(shape) < draw(st.sampled_from([0, 0.02]))
    return np.where(holes, 0, objects), np.where(weak, 0, boundaries)


def told_pixel_by_pixel(objects, boundaries, marker_area):
    """The same rule as `robust`, in plain loops; label images, one object after the other."""
    mask = objects >= 0.5
    inner = ndimage.binary_erosion(mask & (boundaries < 0.25), CROSS, border_value=1)
    markers, count = ndimage.label(ndimage.binary_dilation(inner, CROSS))
    labels = np.zeros(mask.shape, int)
    for number, part in enumerate(components_of(mask), 1):
        inside = [
            m for m in range(1, count + 1) if (part & (markers == m)).any() and (markers == m).sum() >= marker_area
        ]
        if len(inside) < 2:
            labels[part] = 1000 * number
        for marker in inside if len(inside) >= 2 else []:
            labels[markers == marker] = 1000 * number + marker
    around = [(-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]
    while (mask & (labels == 0)).any():
        before = np.pad(labels, 1)
        for y, x in np.argwhere(mask & (labels == 0)):
            labels[y, x] = next((v for dy, dx in around if (v := before[y + 1 + dy, x + 1 + dx])), 0)
    background, count = ndimage.label(np.pad(labels == 0, 1, constant_values=True))
    for hole in range(1, count + 1):
        if hole != background[0, 0]:
            place = background == hole
            beside = set(np.pad(labels, 1)[ndimage.binary_dilation(place, CROSS) & ~place].tolist())
            if len(beside) == 1:
                labels[place[1:-1, 1:-1]] = beside.pop()
    return labels


def components_of(mask):
    labels, count = connected(mask)
    return [labels == number for number in range(1, count + 1)]


def same_partition(first, second):
    """Two label images tell the same objects and the same background apart, whatever the objects' numbers."""
    pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1)
    return ((first == 0) == (second == 0)).all() and (
        len(pairs[0]) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))
    )


def without_gaps(labels):
    return np.setdiff1d(np.unique(labels), [0]).tolist() == list(range(1, labels.max() + 1))


def test_two_overlapping_discs_are_two_objects():
    truth = discs((45, 40, 10), (45, 56, 10))
    found = robust(*maps(truth))
    assert found.dtype == np.int32
    assert same_partition(found, truth)
    found = paper(*maps(truth))
    assert found.dtype == np.int32
    assert found.max() == 2
    assert found[45, 40] != found[45, 56]


def test_between_touching_objects_the_published_rule_leaves_a_line():
    truth = discs((45, 40, 10), (45, 56, 10))
    line = (truth > 0) & (paper(*maps(truth)) == 0)
    rows = np.flatnonzero(line.any(1))
    assert (line.sum(1)[rows] == 1).all()
    assert len(rows) == (truth[:, 48] > 0).sum()
    assert set(np.flatnonzero(line.any(0))) <= {47, 48, 49}


@pytest.mark.parametrize("value", [0, 0.1, 1])
def test_a_constant_boundary_gives_no_object_by_the_published_rule_and_one_here(value):
    objects, boundaries = maps(discs((45, 40, 10), (45, 56, 10)))
    constant = np.full_like(boundaries, value)
    assert not paper(objects, constant).any()
    assert (robust(objects, constant) == objects).all()


@pytest.mark.parametrize("find", [paper, robust])
def test_empty_tiles_have_no_object(find):
    for shape in ((11, 22), (1, 1), (0, 5), (5, 0)):
        found = find(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        assert found.shape == shape
        assert found.dtype == np.int32
        assert not found.any()


@pytest.mark.parametrize("value", [0.25, 0.75, 1])
def test_constant_objects_are_safe(value):
    objects, ring = np.full((60, 80), value, np.float32), maps(discs((30, 40, 10), shape=(60, 80)))[1]
    for boundaries in (np.zeros_like(objects), ring):
        assert not paper(objects, boundaries).any()
        assert robust(objects, boundaries).max() == (value >= 0.5) * (1 + (boundaries is ring))


def test_an_object_too_small_for_a_marker_is_kept_here_and_lost_by_the_published_rule():
    truth = discs((45, 40, 10), (20, 20, 1), (20, 60, 0.5))
    assert same_partition(robust(*maps(truth)), truth)
    assert (paper(*maps(truth)) > 0).sum() == (truth == 1).sum()


def test_an_object_cut_by_the_border_has_its_marker_there():
    truth = discs((45, 0, 6), (45, 10, 6))
    assert same_partition(robust(*maps(truth)), truth)


def test_the_least_area_of_a_marker_decides_whether_a_speck_is_an_object():
    objects, boundaries = maps(discs((45, 40, 12)))
    boundaries[30:60, 36:45] = 1
    boundaries[44:47, 39:42] = ~CROSS  # 5 px without a boundary
    assert robust(objects, boundaries).max() == 3
    assert robust(objects, boundaries, marker_area=6).max() == 2


def test_thresholds_decide_what_is_an_object_and_what_a_boundary():
    objects, boundaries = (value * part for value, part in zip((0.6, 0.4), maps(discs((45, 40, 10), (45, 56, 10)))))
    assert robust(objects, boundaries).max() == 2
    assert robust(objects, boundaries, boundary=0.5).max() == 1
    assert robust(objects, boundaries, threshold=0.7).max() == 0


def test_a_hole_in_one_object_is_filled_and_a_gap_between_objects_is_not():
    ring = discs((45, 40, 12)) * (discs((45, 40, 4)) == 0)
    objects, _ = maps(ring)
    assert same_partition(robust(objects, np.zeros_like(objects)), discs((45, 40, 12)))
    around = [(45 + 14 * np.sin(a), 60 + 14 * np.cos(a), 8) for a in np.arange(6) * np.pi / 3]
    truth = discs(*around)
    assert truth[45, 60] == 0
    assert same_partition(robust(*maps(truth)), truth)


def test_an_object_within_a_ring_stays_apart_from_it():
    ring = discs((45, 40, 20)) * (discs((45, 40, 14)) == 0)
    truth = ring + 2 * discs((45, 40, 6))
    assert same_partition(robust(*maps(truth)), truth)


def test_small_objects_are_left_out_but_at_the_border_a_quarter_is_enough():
    truth = discs((45, 40, 10), (20, 20, 3), (0, 80, 3))
    kept = robust(*maps(truth), min_area=60)
    assert (kept[45, 40], kept[20, 20]) == (2, 0)
    assert kept[0, 80] == 1


def test_one_marker_far_from_the_rim_fills_a_large_tile():
    objects = np.ones((600, 600), np.float32)
    boundaries = np.ones_like(objects)
    boundaries[10:20, 10:20] = boundaries[580:590, 580:590] = 0
    found = robust(objects, boundaries)
    assert (found[0, 0], found[-1, -1]) == (1, 2)
    assert np.abs((found == 1).mean() - 0.5) < 0.01


@settings(deadline=None, max_examples=100)
@given(any_maps(), st.sampled_from([0, 5, 20]))
def test_it_is_the_rule_told_pixel_by_pixel(both, marker_area):
    before = [part.copy() for part in both]
    found = robust(*both, marker_area=marker_area)
    assert same_partition(found, told_pixel_by_pixel(*both, marker_area))
    assert without_gaps(found)
    assert all((part == old).all() for part, old in zip(both, before))


@settings(deadline=None, max_examples=100)
@given(any_maps())
def test_every_pixel_of_the_foreground_is_of_one_object_in_one_component(both):
    mask = both[0] >= 0.5
    found = robust(*both)
    assert (found[mask] > 0).all()
    assert without_gaps(found)
    assert (found[~mask & ~ndimage.binary_fill_holes(mask)] == 0).all()
    component, count = connected(mask)
    pairs = np.unique(np.stack([component[mask], found[mask]]), axis=1)
    assert len(np.unique(pairs[1])) == len(pairs[1]) == found.max()
    assert np.unique(pairs[0]).tolist() == list(range(1, count + 1))
    for index, box in enumerate(ndimage.find_objects(found), 1):
        assert components(found[box] == index).max() == 1


@settings(deadline=None, max_examples=60)
@given(any_maps(), st.integers(0, 40), st.integers(0, 40))
def test_the_place_in_the_tile_changes_nothing(both, down, right):
    objects, boundaries = (np.pad(part, 3) for part in both)  # a rim of background, so that no border cuts
    found = robust(objects, boundaries)
    moved = robust(*(np.pad(part, ((down, 0), (right, 0))) for part in (objects, boundaries)))
    assert (moved[down:, right:] == found).all()
    assert (robust(np.asfortranarray(objects), boundaries) == found).all()


@settings(deadline=None, max_examples=60)
@given(any_maps())
def test_the_published_rule_numbers_parts_of_the_foreground_without_gaps(both):
    found = paper(*both)
    assert found.shape == both[0].shape
    assert without_gaps(found)
    assert (found[both[0] == 0] == 0).all()


@settings(deadline=None, max_examples=60)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_dilation_is_that_of_scipy(mask):
    assert (dilated(mask) == ndimage.binary_dilation(mask, CROSS)).all()


def test_flooding_is_several_times_faster_than_a_watershed():
    side, random = 512, np.random.default_rng(0)
    y, x = np.ogrid[:side, :side]
    truth = np.zeros((side, side), np.int32)
    for number, (row, col, radius) in enumerate(random.uniform((0, 0, 9), (side, side, 17), (175, 3)), 1):
        truth[(y - row) ** 2 + (x - col) ** 2 <= radius**2] = number
    objects, boundaries = (ndimage.gaussian_filter(part, 1) for part in maps(truth))
    mask = objects >= OBJECT
    markers, count = connected(mask & (boundaries < BOUNDARY), corners=False)

    def seconds(call):
        begin = time.process_time()
        call()
        return time.process_time() - begin

    ours, others = [], []
    for _ in range(5):
        labels = np.pad(markers, 1)
        rest = np.flatnonzero(np.pad(mask, 1) & (labels == 0))
        ours.append(seconds(lambda: _spread(labels.ravel(), rest, side + 2)))  # noqa: B023
        others.append(seconds(lambda: watershed(mask, markers, mask=mask)))
    assert count > 100
    assert ((labels > 0)[1:-1, 1:-1] == mask).mean() > 0.99  # all but components without a marker
    assert 3 * min(ours) < min(others)


def test_training_needs_no_opencv_for_it():
    code = (
        "import numpy as np, sys, torch\n"
        "from gigaseg.segmenters.densesam.instances import robust\n"
        "from gigaseg.train.densesam.targets import boundary_target\n"
        "labels = np.kron(np.arange(4).reshape(2, 2), np.ones((9, 9), int))\n"
        "rims = boundary_target(torch.from_numpy(labels)).numpy()\n"
        "robust((labels > 0).astype('f4'), rims.astype('f4'), min_area=5)\n"
        "print(sorted({'cv2', 'rasterio', 'shapely', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
