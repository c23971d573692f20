"""From the foreground of a tile to its instances: known answers, and what holds for every mask."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from gigaseg.segmenters.regions import components, split_touching, to_instances

DIAMETER = 20


def discs(*places, shape=(90, 120)):
    """Union of discs (row, column, radius)."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, bool)
    for row, col, radius in places:
        mask |= (y - row) ** 2 + (x - col) ** 2 <= radius**2
    return mask


@st.composite
def blobs(draw):
    """Masks of discs that may touch, lie over the border or be specks; or noise."""
    if draw(st.booleans()):
        return draw(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
    shape = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    place = st.tuples(st.integers(-5, 65), st.integers(-5, 65), st.floats(0.5, 14))
    return discs(*draw(st.lists(place, max_size=12)), shape=shape)


def same_partition(first, second):
    """Two label images tell the same objects apart, whatever their numbers."""
    pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1)
    return len(pairs[0]) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


def test_overlapping_discs_are_two_objects_for_the_split_and_one_component():
    mask = discs((45, 40, 10), (45, 56, 10))
    labels = split_touching(mask, DIAMETER)
    assert (components(mask).max(), labels.max()) == (1, 2)
    assert labels[45, 40] != labels[45, 56]
    assert ((labels > 0) == mask).all()
    middle = np.flatnonzero(np.diff(labels[45, 40:57])) + 40
    assert abs(middle[0] - 47.5) <= 1


def test_discs_in_a_row_at_random_angles_are_all_told_apart():
    for angle in np.linspace(0, np.pi, 7):
        step = 16 * np.array([np.sin(angle), np.cos(angle)])
        mask = discs(*[(*(np.array([60, 60]) + k * step), 10) for k in (-1, 0, 1)], shape=(120, 120))
        assert split_touching(mask, DIAMETER).max() == 3


@pytest.mark.parametrize("cut", [30, 35, 40, 45, 49])
def test_a_disc_cut_by_the_border_is_one_object_like_its_part_of_the_whole(cut):
    mask = discs((45, 40, 10))
    whole = split_touching(mask, DIAMETER)
    for part in (np.s_[:, cut:], np.s_[:, : cut + 2]):
        labels = split_touching(mask[part], DIAMETER)
        assert labels.max() == 1
        assert (labels == whole[part]).all()


def test_touching_discs_cut_through_their_middles_are_two():
    mask = discs((45, 40, 10), (45, 56, 10))
    whole = split_touching(mask, DIAMETER)
    assert same_partition(split_touching(mask[45:], DIAMETER), whole[45:])


def ring(outer, inner):
    return discs((45, 60, outer)) & ~discs((45, 60, inner))


def line(slope):
    mask = np.zeros((90, 120), bool)
    cols = np.arange(5, 115)
    mask[np.round(45 + slope * (cols - 60)).astype(int), cols] = True
    return mask


def ellipse():
    y, x = np.ogrid[:90, :120]
    return ((y - 45) / 8) ** 2 + ((x - 60) / 25) ** 2 <= 1


@pytest.mark.parametrize(
    "mask",
    [
        ring(14, 9),
        ring(30, 24),
        line(0),
        line(0.3),
        line(0.7),
        ellipse(),
        discs((45, 60, 40)),
        discs((3, 3, 0)),
        np.pad(np.ones((60, 90), bool), 15),
    ],
    ids=["ring", "wide ring", "line", "slanted line", "steep line", "ellipse", "large disc", "one pixel", "building"],
)
def test_one_object_without_a_neck_stays_one(mask):
    labels = split_touching(mask, DIAMETER)
    assert labels.max() == 1
    assert ((labels > 0) == mask).all()


def test_a_small_object_beside_a_large_one_keeps_its_marker():
    mask = discs((45, 40, 20), (45, 64, 2))
    assert components(mask).max() == split_touching(mask, DIAMETER).max() == 2


def test_pixels_that_touch_at_a_corner_are_connected():
    mask = np.eye(5, dtype=bool)
    assert components(mask).max() == split_touching(mask, DIAMETER).max() == 1


def test_settings_decide_how_much_is_split():
    mask = discs((45, 40, 10), (45, 56, 10))
    assert split_touching(mask, DIAMETER).max() == 2
    assert split_touching(mask, DIAMETER, depth=0.5).max() == 1
    assert split_touching(mask, DIAMETER, rounding=0.6).max() == 1


@pytest.mark.parametrize("find", [components, lambda mask, **area: split_touching(mask, DIAMETER, **area)])
def test_empty_and_full_masks_are_safe(find):
    empty = find(np.zeros((11, 22), bool))
    assert empty.shape == (11, 22)
    assert empty.dtype == np.int32
    assert not empty.any()
    assert (find(np.ones((11, 22), bool)) == 1).all()
    assert not find(np.zeros((11, 22), bool), min_area=5).any()
    assert find(np.ones((11, 22), bool), min_area=1000).max() == 0


@pytest.mark.parametrize("find", [components, lambda mask, **area: split_touching(mask, DIAMETER, **area)])
def test_small_objects_are_left_out_but_at_the_border_a_quarter_is_enough(find):
    mask = np.zeros((30, 40), bool)
    mask[10:13, 10:13] = True  # 9 px inside
    mask[0:3, 20:23] = True  # 9 px at the border
    mask[27:29, 39] = True  # 2 px at the border
    mask[20:26, 10:16] = True  # 36 px
    labels = find(mask, min_area=36)
    kept = {int(labels[place]) for place in ((11, 11), (1, 21), (27, 39), (22, 12))}
    assert kept == {0, 1, 2}
    assert labels[1, 21] > 0
    assert labels[22, 12] > 0
    assert find(mask, min_area=37).max() == 0  # 9 px are less than a quarter


def test_instances_have_boxes_masks_scores_and_a_class():
    labels = np.zeros((11, 22), np.int32)
    labels[2:5, 3:7] = 1
    labels[4, 6] = 0
    labels[10, 20:22] = 2
    probability = np.full((11, 22), 0.25, np.float32)
    probability[10, 20] = 1.0
    found = to_instances(labels, probability, classes=3, index=2)
    assert found.boxes.tolist() == [[3, 2, 7, 5], [20, 10, 22, 11]]
    assert found.boxes.dtype == torch.int32
    assert [tuple(mask.shape) for mask in found.masks] == [(3, 4), (1, 2)]
    assert [int(mask.sum()) for mask in found.masks] == [11, 2]
    assert all(mask.dtype == torch.bool for mask in found.masks)
    assert found.scores.tolist() == [0.25, 0.625]
    assert found.class_prob.tolist() == [[0, 0, 1]] * 2
    assert found.scores.dtype == found.class_prob.dtype == torch.float32


def test_a_tile_without_objects_has_no_instances():
    found = to_instances(np.zeros((8, 9), np.int32), np.zeros((8, 9), np.float32), classes=2)
    assert found.boxes.shape == (0, 4)
    assert found.masks == []
    assert found.scores.shape == (0,)
    assert found.class_prob.shape == (0, 2)


@settings(deadline=None, max_examples=150)
@given(blobs())
def test_the_objects_are_a_partition_of_the_mask_into_connected_parts(mask):
    labels = split_touching(mask, DIAMETER)
    assert labels.shape == mask.shape
    assert labels.dtype == np.int32
    assert ((labels > 0) == mask).all()
    assert np.unique(labels[mask]).tolist() == list(range(1, labels.max() + 1))
    assert labels.max() >= components(mask).max()
    for index, box in enumerate(ndimage.find_objects(labels), 1):
        assert components(labels[box] == index).max() == 1


@settings(deadline=None, max_examples=60)
@given(blobs(), st.integers(0, 40), st.integers(0, 40))
def test_the_place_of_a_mask_in_its_tile_changes_nothing(mask, down, right):
    inner = np.pad(mask, 6)  # a rim of background, so that no border cuts
    labels = split_touching(inner, DIAMETER)
    moved = split_touching(np.pad(inner, ((down, 0), (right, 0))), DIAMETER)
    assert (moved[down:, right:] == labels).all()
    assert (split_touching(inner.copy(order="F"), DIAMETER) == labels).all()


@settings(deadline=None, max_examples=60)
@given(blobs(), st.integers(0, 200))
def test_what_min_area_leaves_is_what_was_there(mask, min_area):
    everything = split_touching(mask, DIAMETER)
    labels = split_touching(mask, DIAMETER, min_area=min_area)
    border = set(np.concatenate([everything[0], everything[-1], everything[:, 0], everything[:, -1]]).tolist())
    area = np.bincount(everything.ravel())
    kept = [n for n in range(1, len(area)) if area[n] >= (min_area / 4 if n in border else min_area)]
    expected = np.zeros_like(everything)
    for index, number in enumerate(kept, 1):
        expected[everything == number] = index
    assert (labels == expected).all()


@settings(deadline=None, max_examples=60)
@given(blobs())
def test_instances_painted_into_their_boxes_are_the_labels(mask):
    labels = split_touching(mask, DIAMETER)
    found = to_instances(labels, mask.astype(np.float32) * 0.5)
    painted = np.zeros_like(labels)
    for index, ((x0, y0, x1, y1), part) in enumerate(zip(found.boxes.tolist(), found.masks), 1):
        painted[y0:y1, x0:x1][part.numpy()] = index
    assert (painted == labels).all()
    assert found.scores.tolist() == [0.5] * int(labels.max())


def test_training_needs_neither_opencv_nor_rasterio_for_it():
    code = (
        "import numpy as np, sys\n"
        "from gigaseg.segmenters.regions import split_touching, to_instances\n"
        "labels = split_touching(np.eye(40, dtype=bool), 9)\n"
        "to_instances(labels, labels.astype(float))\n"
        "print(sorted({'cv2', 'rasterio', 'shapely', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
