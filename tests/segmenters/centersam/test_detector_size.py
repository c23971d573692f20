"""A detector on the image alone may see the tile at another size than SAM: what is found stays where it is."""

import pytest
import torch

from gigaseg.errors import SegmenterError
from gigaseg.sam.backend import Backend
from gigaseg.segmenters.base import TileBatch
from gigaseg.segmenters.centersam import segmenter as module
from gigaseg.segmenters.centersam.checkpoint import Loaded
from gigaseg.segmenters.centersam.detector import STRIDE, Detector, DetectorConfig, Maps, build_detector
from gigaseg.segmenters.centersam.segmenter import CenterSam
from gigaseg.tiles.tiling import Tiling
from samples import SIZES, write_random_sam

BOXES = [[8.0, 16.0, 40.0, 56.0], [64.0, 48.0, 104.0, 88.0]]
"""Of a dim and a bright rectangle, tile px."""

PLAIN = {"kind": "resnet18", "pixel_mean": (0.0, 0.0, 0.0), "pixel_std": (255.0, 255.0, 255.0)}


class Rectangles(Detector):
    """Finds a rectangle of red and one of green, exactly; the red one scores higher. Notes the sides of its input."""

    multiple = 32

    def forward(self, images, embedding=None):
        assert embedding is None
        self.check_sides(images)
        self.sides = tuple(images.shape[2:])
        h, w = (side // STRIDE for side in self.sides)
        maps = Maps(torch.full((1, 1, h, w), -9.0), torch.zeros(1, 2, h, w), torch.zeros(1, 2, h, w))
        for channel in (0, 1):
            y, x = torch.nonzero(images[0, channel] > 0.5, as_tuple=True)
            low = torch.stack([x.min(), y.min()]) / STRIDE
            high = torch.stack([x.max() + 1, y.max() + 1]) / STRIDE
            centre = (low + high) / 2
            column, row = centre.long().tolist()
            maps.heat[0, 0, row, column] = 3.0 - channel
            maps.size[0, :, row, column] = high - low
            maps.offset[0, :, row, column] = centre - centre.floor()
        return [maps]


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    path = tmp_path_factory.mktemp("sam") / "sam.safetensors"
    write_random_sam(path)
    return Backend.open(path)


@pytest.fixture
def look(backend, monkeypatch):
    """look(options) -> the tile's instances, the boxes that SAM was asked for, and the sides that the detector saw."""
    tile = torch.zeros(3, 96, 128, dtype=torch.uint8)
    for channel, (x0, y0, x1, y1) in enumerate(torch.tensor(BOXES).int().tolist()):
        tile[channel, y0:y1, x0:x1] = 255
    asked = []
    monkeypatch.setattr(
        module, "box_sets", lambda image, boxes, real=module.box_sets: asked.append(boxes) or real(image, boxes)
    )

    def run(**options):
        detector = Rectangles(DetectorConfig(**PLAIN))
        segmenter = CenterSam.of(Loaded(backend, detector, {}), {"min_contrast": 0.0, "nms": 1.0, **options})
        tiling = Tiling(128, 0, 128, 96, (1.0, 1.0), (1.0, 1.0), "px")
        (found,) = segmenter.segment(TileBatch(tile[None], [tiling.get(0, 0)]))
        return found, asked.pop(), detector.sides

    return run


@pytest.mark.parametrize(("size", "sides"), [(0, (96, 128)), (64, (64, 64)), (256, (192, 256)), (128, (96, 128))])
def test_boxes_are_in_tile_pixels_at_any_size_of_the_detectors_input(look, size, sides):
    expected, _, _ = look()
    found, boxes, seen = look(detector_size=size)
    assert seen == sides, "48 x 64 px are filled up to 64 x 64"
    torch.testing.assert_close(boxes, torch.tensor(BOXES), atol=1e-3, rtol=0)
    assert len(found.boxes) == 2
    assert torch.equal(found.boxes, expected.boxes)
    assert all(torch.equal(a, b) for a, b in zip(found.masks, expected.masks, strict=True))


def test_sam_keeps_its_own_size(look, backend, monkeypatch):
    sides = []
    real = Backend.encode
    monkeypatch.setattr(Backend, "encode", lambda self, images: sides.append(tuple(images.shape)) or real(self, images))
    look(detector_size=64)
    assert sides == [(1, 3, 96, 128)]


def test_a_detector_on_sams_embedding_has_no_size_of_its_own(backend):
    config = DetectorConfig(embedding=SIZES.prompt_dim, patch=SIZES.patch, width=8)
    loaded = Loaded(backend, build_detector(config).eval(), {})
    CenterSam.of(loaded)
    with pytest.raises(
        SegmenterError, match="'detector_size' is 64, accepted with this checkpoint: 0, since"
    ) as caught:
        CenterSam.of(loaded, {"detector_size": 64})
    assert "\n" not in str(caught.value)
