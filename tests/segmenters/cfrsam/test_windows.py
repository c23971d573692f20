"""Windows of a tile, and which prompts they get."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigaseg.segmenters.cfrsam.windows import SHARED, window_starts, windows_of


@pytest.mark.parametrize(
    ("size", "starts"),
    [(256, [0]), (500, [0, 192, 244]), (600, [0, 192, 344]), (1000, [0, 192, 384, 576, 744]), (100, [0])],
)
def test_windows_start_where_the_published_code_has_them(size, starts):
    assert window_starts(size, 256, 192) == starts


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 700), window=st.integers(1, 300), part=st.floats(0.1, 1))
def test_windows_cover_an_axis_and_end_flush(size, window, part):
    starts = window_starts(size, window, max(1, int(window * part)))
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] == max(0, size - window)
    assert all(later - start <= window for start, later in pairwise(starts))


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(20, 300), st.integers(20, 300)),
    side=st.integers(8, 320),
    n=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_each_prompt_lies_in_the_one_window_whose_middle_is_nearest(size, side, n, seed):
    xy = np.random.default_rng(seed).random((n, 2)) * (size[1], size[0])
    windows = windows_of(3, size, xy, side)
    assert sorted(np.concatenate([w.prompts for w in windows]).tolist()) == list(range(n))
    stride = side - round(SHARED * side)
    for window in windows:
        assert window.tile == 3
        assert list(window.prompts) == sorted(window.prompts)
        for start, length, axis in ((window.x, size[1], 0), (window.y, size[0], 1)):
            if side >= max(size):
                assert start == 0
                continue
            mine = xy[window.prompts, axis]
            others = np.array(window_starts(length, side, stride)) + min(side, length) / 2
            nearest = np.abs(mine[:, None] - others).min(1)
            np.testing.assert_allclose(np.abs(mine - start - min(side, length) / 2), nearest)
            # a piece of SHARED / 2 of the side around it lies in the window, unless the tile ends
            room = round(SHARED * side) / 2 - 1
            assert ((mine - start >= room) | (start == 0)).all()
            assert ((start + side - mine >= room) | (start + side >= length)).all()


def test_a_tile_that_is_no_larger_or_has_no_prompt_needs_no_windows():
    xy = np.array([[3.0, 4.0], [90.0, 20.0]])
    for side in (0, 100, 200):
        (window,) = windows_of(0, (64, 100), xy, side)
        assert (window.x, window.y, window.prompts.tolist()) == (0, 0, [0, 1])
    assert windows_of(0, (64, 100), np.empty((0, 2)), 32) == []
