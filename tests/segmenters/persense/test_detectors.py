"""Detectors say where objects lie in px of the picture, best first, whatever the model's own size."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from centersam_models import box_of, paint, score_of, write_painted
from gigaseg.errors import CheckpointError, SegmenterError
from gigaseg.segmenters.persense.base import Scene
from gigaseg.segmenters.persense.detectors import CenterNetDetector, GroundingDino, _spans, caption, grounded


def logit(p):
    return float(np.log(p / (1 - p)))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    pytest.importorskip("transformers", reason="of the extra 'persense'")
    from tiny_transformers import write_grounding_dino

    return write_grounding_dino(tmp_path_factory.mktemp("dino"))


@pytest.mark.parametrize(
    ("text", "read"),
    [(" All Nuclei ", "all nuclei."), ("cell.", "cell."), ("Red Cell", "red cell."), ("a. b", "a. b.")],
)
def test_a_caption_is_lower_case_and_ends_in_a_dot(text, read):
    assert caption(text) == read


def test_a_blank_caption_is_refused():
    with pytest.raises(SegmenterError, match="asked for nothing"):
        caption(" ")


def test_a_query_scores_as_its_best_token_and_the_threshold_is_strict():
    nothing = -torch.inf
    logits = torch.tensor([[-4.0, 0.0, nothing], [2.0, 1.0, nothing], [-9.0, -1.0, nothing], [nothing] * 3])
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.1, 0.5], [0.5, 0.5, 1, 1], [0.5, 0.5, 1, 1]])
    found = grounded(logits, boxes, (100, 200), 0.5)  # 0.5 is the sigmoid of 0
    assert found.xyxy.tolist() == pytest.approx(np.array([[40, 25, 60, 75]]))
    found = grounded(logits, boxes, (100, 200), 0.4999)
    assert found.xyxy.tolist() == pytest.approx(np.array([[40, 25, 60, 75], [80, 30, 120, 70]]))
    assert found.scores.tolist() == pytest.approx([1 / (1 + np.exp(-2)), 0.5])
    assert (found.xyxy.dtype, found.scores.dtype) == (np.float32, np.float32)


def test_of_equal_scores_the_earlier_query_comes_first():
    boxes = torch.tensor([[0.1 * i, 0.5, 0.1, 0.1] for i in range(1, 9)])
    found = grounded(torch.ones(8, 2), boxes, (10, 100), 0.1)
    assert (np.diff(found.xyxy[:, 0]) > 0).all()


def test_boxes_are_clipped_to_the_picture():
    found = grounded(torch.ones(1, 1), torch.tensor([[0.1, 0.9, 0.4, 0.4]]), (50, 100), 0.1)
    assert found.xyxy.tolist() == pytest.approx(np.array([[0, 35, 30, 50]]))


def test_nothing_found_is_no_error():
    found = grounded(torch.full((3, 2), -9.0), torch.full((3, 4), 0.5), (50, 100), 0.15)
    assert found.xyxy.shape == (0, 4)
    assert found.scores.shape == (0,)


@pytest.mark.parametrize("shape", [(40, 60), (700, 180), (128, 128)], ids=["small", "beyond the long side", "as it is"])
@pytest.mark.parametrize("threshold", [0.15, 0.97])
def test_grounding_dino_finds_what_transformers_own_processing_finds(dino, shape, threshold):
    rgb = noise(*shape)
    detector = GroundingDino(dino, threshold=threshold)
    found = detector.detect(Scene(rgb), " All Cells")
    processor, model = detector._processor, detector._model
    inputs = processor(images=Image.fromarray(rgb), text="all cells.", return_tensors="pt")
    assert min(inputs["pixel_values"].shape[2:]) <= 128
    assert max(inputs["pixel_values"].shape[2:]) <= 256
    with torch.no_grad():
        outputs = model(**inputs)
    expected = processor.post_process_grounded_object_detection(
        outputs, inputs["input_ids"], threshold=threshold, target_sizes=[shape]
    )[0]
    assert 0 < len(expected["boxes"]) <= 12
    order = expected["scores"].argsort(descending=True)
    boxes = expected["boxes"][order].numpy().clip(0, [shape[1], shape[0]] * 2)
    assert found.scores == pytest.approx(expected["scores"][order].numpy())
    assert found.xyxy == pytest.approx(boxes, abs=1e-4)


def test_grounding_dino_reads_the_text(dino):
    detector, scene = GroundingDino(dino, threshold=0.0), Scene(noise(64, 64))
    one, same, other = (detector.detect(scene, text).scores for text in ("all cells", "All cells.", "nucleus"))
    assert one.tolist() == same.tolist()
    assert one.tolist() != other.tolist()
    assert detector.name == f"grounding-dino {dino}"
    assert (detector.needs_weights, detector.deterministic) == (True, True)


OBJECTS = [(5, 6, 220, 20, 12), (12, 5, 160, 8, 16), (9, 12, 255, 12, 12), (3, 13, 100, 20, 20)]
"""Column and row of the grid, red, width and height; the last one's score is 0.15."""


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("painted")
    return str(write_painted(folder / "painted.safetensors", folder / "sam.safetensors"))


def picture(tile):
    return tile.permute(1, 2, 0).numpy()


def clipped(objects, shape):
    """The boxes of painted objects, in a picture of that shape."""
    boxes = np.array([box_of(c, r, w, h) for c, r, _, w, h in objects], np.float32)
    return boxes.clip(0, [shape[1], shape[0]] * 2)


@pytest.mark.parametrize(("threshold", "number"), [(0.0, 3), (0.1, 4), (0.9, 2)])
def test_centersam_finds_what_is_painted(painted, threshold, number):
    detector = CenterNetDetector(painted, threshold=threshold)
    found = detector.detect(Scene(picture(paint(64, OBJECTS))), "not used")
    best = sorted(OBJECTS, key=lambda o: -o[2])[:number]
    assert found.xyxy == pytest.approx(clipped(best, (64, 64)), abs=1e-3)
    assert found.scores == pytest.approx([score_of(red) for _, _, red, _, _ in best], abs=1e-4)
    assert detector.classes == ("nucleus",)
    assert (detector.needs_weights, detector.deterministic) == (True, True)


@pytest.mark.parametrize(
    ("shape", "side"), [((64, 64), 512), ((90, 530), 512), ((200, 330), 128)], ids=["a tile", "two tiles", "ten tiles"]
)
def test_an_object_is_found_once_however_many_tiles_see_it(painted, shape, side):
    rng = np.random.default_rng(0)
    places = [(c, r) for r in range(1, shape[0] // 4 - 1, 5) for c in range(1, shape[1] // 4 - 1, 5)]
    objects = [(c, r, int(rng.integers(150, 256)), 8, 12) for c, r in places]
    tile = paint(max(-(-side // 4) * 4 for side in shape), objects)[:, : shape[0], : shape[1]]
    detector = CenterNetDetector(painted)
    detector._tile = side
    found = detector.detect(Scene(picture(tile)), "")
    expected = clipped(objects, shape)
    assert len(found.xyxy) == len(expected)
    assert (np.diff(found.scores) <= 0).all()
    order = [np.lexsort((boxes[:, 0].round(1), boxes[:, 1].round(1))) for boxes in (found.xyxy, expected)]
    assert found.xyxy[order[0]] == pytest.approx(expected[order[1]], abs=1e-2)


def test_boxes_of_centersam_are_clipped_and_those_below_a_pixel_left_out(painted):
    objects = [(0, 5, 255, 40, 12), (8, 8, 255, 0, 12)]
    found = CenterNetDetector(painted).detect(Scene(picture(paint(64, objects))), "")
    box = box_of(0, 5, 40, 12)
    assert found.xyxy == pytest.approx(np.array([[0, *box[1:]]]), abs=1e-3)


def test_an_empty_picture_has_no_boxes(painted):
    found = CenterNetDetector(painted).detect(Scene(np.zeros((30, 50, 3), np.uint8)), "")
    assert (found.xyxy.shape, found.scores.shape) == ((0, 4), (0,))


def discs(diameter):
    """Dark discs on a light ground, and their boxes."""
    step = 2 * diameter
    rgb = np.full((round(2.5 * step), round(3.5 * step), 3), 235, np.uint8)
    y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]] + 0.5
    boxes = []
    for row in range(2):
        for col in range(3):
            cx, cy = (col + 0.75) * step, (row + 0.75) * step
            rgb[np.hypot(x - cx, y - cy) < diameter / 2] = (110, 60, 130)
            boxes.append([cx - diameter / 2, cy - diameter / 2, cx + diameter / 2, cy + diameter / 2])
    return rgb, np.array(boxes)


def overlaps(one, two):
    """(n, m) IoU of boxes."""
    low, high = np.maximum(one[:, None, :2], two[None, :, :2]), np.minimum(one[:, None, 2:], two[None, :, 2:])
    common = (high - low).clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, two)]
    return common / (areas[0][:, None] + areas[1][None] - common)


@pytest.mark.parametrize("diameter", [12, 26, 70])
def test_the_shipped_detector_finds_discs_of_any_diameter_that_it_is_told(diameter):
    rgb, boxes = discs(diameter)
    detector = CenterNetDetector()
    found = detector.detect(Scene(rgb), "", diameter=diameter)
    assert len(found.xyxy) == len(boxes)
    assert (overlaps(boxes, found.xyxy).max(1) > 0.7).all()
    told = CenterNetDetector(diameter=diameter).detect(Scene(rgb), "")
    assert told.xyxy.tolist() == found.xyxy.tolist()


@pytest.mark.parametrize("width", [110, 104, 100, 91], ids=["near", "at", "beyond", "half beyond"])
def test_an_object_at_the_border_is_found_once(width):
    rgb, boxes = discs(26)
    inside = boxes[(boxes[:, 0] < width) & (boxes[:, 1] < 60)]
    found = CenterNetDetector().detect(Scene(np.ascontiguousarray(rgb[:60, :width])), "")
    assert len(found.xyxy) == len(inside)
    assert (overlaps(inside.clip(0, [width, 60] * 2), found.xyxy).max(1) > 0.6).all()
    assert found.xyxy[:, 2].max() <= width


@pytest.mark.parametrize("length", [8, 120, 128, 136, 192, 200, 264, 1000])
def test_tiles_stay_in_the_picture_and_share_it_among_them(length):
    spans = _spans(length, 128, 64)
    assert (spans[0].start, spans[-1].end) == (0, length)
    assert (spans[0].low, spans[-1].high) == (-np.inf, np.inf)
    assert {span.end - span.start for span in spans} == {min(length, 128)}
    for one, two in pairwise(spans):
        assert one.high == two.low
        assert two.start < one.end
        assert one.end - one.high >= 32  # half the overlap
        assert two.low - two.start >= 32


def test_a_checkpoint_that_is_not_there_is_told():
    with pytest.raises(CheckpointError, match="nowhere"):
        CenterNetDetector("nowhere")
