import numpy as np
import pytest

from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.resample import margin, resample


def test_an_impulse_stays_at_its_place_when_enlarged():
    array = np.zeros((11, 22, 1), dtype=np.float32)
    array[4, 9] = 1
    found = resample(array, Bounds(0, 0, 22, 11), Shape2d(44, 88))[..., 0]
    y, x = np.mgrid[:44, :88] + 0.5
    assert found.sum() == pytest.approx(16)
    assert (found * x).sum() / found.sum() / 4 == pytest.approx(9.5)
    assert (found * y).sum() / found.sum() / 4 == pytest.approx(4.5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_a_constant_stays_constant_in_every_dtype(dtype):
    array = np.full((40, 50, 2), 77, dtype=dtype)
    for box in (Bounds(3.3, 4.1, 33.7, 28.9), Bounds(0, 0, 50, 40)):
        for shape in (Shape2d(7, 9), Shape2d(80, 90)):
            found = resample(array, box, shape)
            assert found.dtype == array.dtype
            assert (found == 77).all()


def test_extreme_integers_are_clipped_not_wrapped():
    array = np.zeros((8, 8, 1), dtype=np.uint16)
    array[:, 4:] = 65535
    found = resample(array, Bounds(0, 0, 8, 8), Shape2d(5, 5))
    assert (found[:, 0] == 0).all()
    assert (found[:, -1] == 65535).all()


def test_pixels_around_the_box_are_seen():
    array = np.random.default_rng(1).integers(0, 256, (90, 90, 3)).astype(np.uint8)
    whole = resample(array, Bounds(0, 0, 90, 90), Shape2d(30, 30)).astype(int)
    edge = margin(3)
    part = array[30 - edge : 60 + edge, 30 - edge : 60 + edge]
    found = resample(part, Bounds(edge, edge, edge + 30, edge + 30), Shape2d(10, 10)).astype(int)
    assert np.abs(found - whole[10:20, 10:20]).max() <= 1


@pytest.mark.parametrize("nodata", [0, -9999.0])
def test_pixels_without_data_have_no_weight(nodata):
    array = np.full((40, 40, 2), 100, dtype=np.int16)
    array[:, 20:] = nodata
    found = resample(array, Bounds(0, 0, 40, 40), Shape2d(13, 13), nodata)
    assert set(np.unique(found)) == {nodata, 100}
    assert (found[:, :6] == 100).all()
    assert (found[:, 7:] == nodata).all()


def test_a_pixel_with_data_in_one_channel_is_data():
    array = np.zeros((10, 10, 3), dtype=np.uint8)
    array[..., 1] = 50
    found = resample(array, Bounds(0, 0, 10, 10), Shape2d(4, 4), 0)
    assert (found == (0, 50, 0)).all()
