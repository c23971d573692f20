import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from gigaseg.errors import SlideError
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.slides.inspect import inspect
from gigaseg.slides.registry import open_slide
from gigaseg.viewer.picture import TILE, Pictures, is_there, max_level


@pytest.fixture(scope="module")
def info(cohort):
    return inspect(cohort.parent / "a.tif", slide="a")


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_tiles_of_all_levels_show_their_part_of_the_slide(info):
    pictures, slide = Pictures(), open_slide(info)
    for level in range(max_level(info) + 1):
        step = 2 ** (max_level(info) - level)
        columns, rows = -(-info.width // (step * TILE)), -(-info.height // (step * TILE))
        for column in range(columns):
            for row in range(rows):
                tile = decoded(pictures.tile(info, level, column, row))
                height, width = tile.shape[:2]
                assert (width, height) == (
                    min(TILE, -(-info.width // step) - column * TILE),
                    min(TILE, -(-info.height // step) - row * TILE),
                )
                left, top = column * TILE * step, row * TILE * step
                bounds = Bounds(left, top, left + width * step, top + height * step)
                truth = info.rendering.rgb(slide.read(bounds, Shape2d(height, width))).astype(int)
                if min(width, height) > 50:  # of a few pixels JPEG keeps little but their mean
                    assert np.abs(tile - truth).mean() < 5
        for beyond in ((columns, 0), (0, rows)):
            with pytest.raises(KeyError):
                pictures.tile(info, level, *beyond)
    with pytest.raises(KeyError):
        pictures.tile(info, max_level(info) + 1, 0, 0)


def test_coarse_tiles_of_a_slide_without_pyramid_are_read_once(tmp_path, monkeypatch):
    ramp = np.linspace(0, 255, 6000).astype(np.uint8)
    image = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:4500, None], np.uint8(90)), axis=-1)
    tifffile.imwrite(tmp_path / "s.tif", image, tile=(256, 256), photometric="rgb", compression="zlib")
    info = inspect(tmp_path / "s.tif", slide="s", pixel_size="px")
    pictures = Pictures()
    whole = decoded(pictures.tile(info, max_level(info) - 4, 0, 0))
    assert whole.shape == (282, 375, 3)
    np.testing.assert_allclose(whole[140, :, 0], np.linspace(0, 255, 375), atol=5)
    np.testing.assert_allclose(whole[:, 180, 1], np.linspace(0, ramp[4499], 282), atol=5)
    reads = []
    slide = open_slide(info)
    monkeypatch.setattr(type(slide), "read", lambda *arguments: reads.append(arguments))
    pictures.tile(info, 5, 0, 0)
    assert not reads


def test_a_slide_that_is_gone_or_changed_is_told(tmp_path):
    path = tmp_path / "s.png"
    Image.new("RGB", (50, 40), "pink").save(path)
    info = inspect(path, slide="s", pixel_size="px")
    assert is_there(info) is None
    Image.new("RGB", (60, 40), "pink").save(path)
    assert "has changed" in is_there(info)
    with pytest.raises(SlideError, match="has changed"):
        Pictures().tile(info, 0, 0, 0)
    path.unlink()
    assert is_there(info) == f"{path}: no such file"
