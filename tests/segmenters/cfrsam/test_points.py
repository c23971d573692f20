"""The learner of points: its geometry is exact, its size the paper's, its points those that its maps state."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gigaseg.errors import CheckpointError, SegmenterError
from gigaseg.prompts.suppression import point_nms
from gigaseg.sam.checkpoints import write_state
from gigaseg.segmenters.cfrsam.config import PointsConfig
from gigaseg.segmenters.cfrsam.points import (
    PIXEL_MEAN,
    PointMaps,
    build_points,
    normalised,
    points_of,
    propose_points,
)
from gigaseg.segmenters.cfrsam.points_checkpoint import open_points, points_from
from gigaseg.segmenters.cfrsam.pyramid import MaskHead, anchor_grid, enlarged, sample_at

SMALL = PointsConfig(widths=(8, 8, 8, 8), channels=8, classes=("a", "b"))


def small(seed=0, **changes):
    torch.manual_seed(seed)
    return build_points(replace(SMALL, **changes)).eval()


def coordinates(size, stride):
    """A map that holds the x and y of its cells' centres, px."""
    y, x = (torch.arange(n // stride) * stride + stride / 2 for n in size)
    return torch.stack(torch.broadcast_tensors(x, y[:, None]))[None].contiguous()


@pytest.mark.parametrize(
    ("rows", "cols", "spacing", "first", "last"),
    [(32, 32, 8, [4, 4], [252, 252]), (63, 63, 16, [8, 8], [1000, 1000]), (1, 3, 8, [4, 4], [20, 4])],
)
def test_anchors_are_the_middles_of_their_squares(rows, cols, spacing, first, last):
    anchors = anchor_grid(rows, cols, spacing)
    assert anchors.shape == (rows * cols, 2)
    assert anchors[0].tolist() == first
    assert anchors[-1].tolist() == last


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_a_map_of_its_own_coordinates_gives_them_back(stride):
    size = (96, 160)
    y, x = torch.meshgrid(torch.arange(16.0, 80), torch.arange(16.0, 144, 0.5), indexing="ij")
    points = torch.stack([x, y], -1).view(1, -1, 2)
    found = sample_at(coordinates(size, stride), points, size)
    assert found[0].T.sub(points[0]).abs().max() < 1e-3


@pytest.mark.parametrize("stride", [4, 16])
def test_the_published_sampling_is_off_by_half_a_stride_at_the_borders(stride):
    level, size = coordinates((256, 256), stride), (256, 256)
    points = torch.tensor([[[0.0, 0.0], [128.0, 128.0], [256.0, 256.0]]])
    off = sample_at(level, points, size, legacy=True)[0].T - points[0]
    assert off.tolist() == pytest.approx(np.array([[stride / 2] * 2, [0, 0], [-stride / 2] * 2]), abs=1e-4)


def test_beyond_the_border_the_border_goes_on():
    found = sample_at(coordinates((64, 64), 8), torch.tensor([[[-50.0, 30.0], [90.0, 70.0]]]), (64, 64))
    assert found[0].T.tolist() == pytest.approx(np.array([[4, 30], [60, 60]]))


def test_the_mask_lies_where_the_features_are():
    head = MaskHead(2, legacy=False).eval()
    head.first.weight.data = torch.zeros(2, 2, 3, 3)
    head.first.weight.data[[0, 1], [0, 1], 1, 1] = 1
    head.first.bias.data.zero_()
    head.norm.eps = 0
    for axis in (0, 1):
        head.last.weight.data = torch.eye(2)[axis].view(1, 2, 1, 1)
        head.last.bias.data.zero_()
        plane = head(coordinates((64, 96), 4), (64, 96))[0]
        middles = torch.arange((96, 64)[axis]) + 0.5
        expected = (middles if axis == 0 else middles[:, None]).expand(64, 96)
        assert torch.allclose(plane[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-4)


def test_the_published_mask_is_stretched_by_up_to_a_few_px():
    plane = F.pad(coordinates((256, 256), 4), (1, 1, 1, 1), mode="replicate")
    off = enlarged(plane, (256, 256), legacy=True)[0, 0, 128] - torch.arange(256) - 0.5
    assert 1.5 < off[4:-4].abs().max() < 2.6


def test_its_size_is_the_papers():
    pytest.importorskip("timm")
    with torch.device("meta"):
        net = build_points(PointsConfig(backbone="convnext_small", channels=256, classes=tuple("abcde")))
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    heads = sum(parts.pop(name) for name in ("deform", "regress", "classify"))
    assert heads == 199_946
    assert parts == {
        "backbone": 49_453_152,
        "pyramid": 2_139_904,
        "mask_pyramid": 959_744,
        "reduce": 1_769_728,
        "mask_head": 590_849,
    }
    assert heads + sum(parts.values()) == 55_113_323


def test_a_missing_timm_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SegmenterError, match=r"needs timm, .* run: pip install 'gigaseg\[cfrsam\]'"):
        build_points(PointsConfig(backbone="convnext_small"))


@pytest.mark.parametrize(("spacing", "anchors"), [(8, 5 * 8), (16, 3 * 4), (10, 4 * 6)])
@pytest.mark.parametrize("levels", [1, 4])
def test_maps_of_an_image_of_any_size(spacing, anchors, levels):
    maps = small(spacing=spacing, levels=levels)(torch.zeros(2, 3, 37, 57))
    assert maps.anchors.shape == (anchors, 2)
    assert maps.points.shape == (2, anchors, 2)
    assert maps.logits.shape == (2, anchors, 3)
    assert maps.mask.shape == (2, 37, 57)


def test_anchors_do_not_move_without_heads():
    net = small()
    for head in (net.deform, net.regress):
        for part in (head[0], head[3]):
            torch.nn.init.zeros_(part.weight)
            torch.nn.init.zeros_(part.bias)
    maps = net(torch.rand(1, 3, 64, 64))
    assert torch.equal(maps.points[0], maps.anchors)


def test_both_moves_count_and_the_second_is_seen_where_the_first_led():
    net = small()
    net.deform[3].weight.data.zero_()
    net.deform[3].bias.data = torch.tensor([3.0, -2.0])
    net.regress[3].weight.data.zero_()
    net.regress[3].bias.data = torch.tensor([10.0, 20.0])
    image = torch.rand(1, 3, 64, 64)
    maps = net(image)
    assert torch.allclose(maps.points[0], maps.anchors + torch.tensor([13.0, 18.0]))
    net.deform[3].bias.data = torch.zeros(2)
    assert not torch.allclose(net(image).logits, maps.logits)


def test_legacy_decides_how_maps_are_sampled_and_nothing_else():
    net, old = small(), small(legacy=True)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in old.state_dict().items()}
    old.load_state_dict(net.state_dict())
    image = torch.rand(1, 3, 64, 64)
    new, legacy = net(image), old(image)
    assert torch.equal(new.anchors, legacy.anchors)
    assert not torch.allclose(new.points, legacy.points)
    assert not torch.allclose(new.mask, legacy.mask)


def maps_of(rows, classes=1, size=(40, 60)):
    """Maps of one image that state points: x, y and the probabilities of the classes."""
    points = torch.tensor([row[:2] for row in rows]).view(1, -1, 2)
    kinds = torch.tensor([[*row[2:], 1 - sum(row[2:])] for row in rows]).view(1, -1, classes + 1)
    return PointMaps(points[0], points, kinds.log(), torch.ones(1, *size))


def test_without_a_threshold_the_likeliest_class_decides():
    maps = maps_of([(5.0, 5, 0.3, 0.25), (15, 5, 0.1, 0.5), (25, 5, 0.2, 0.2)], classes=2)
    (found,) = points_of(maps, radius=1)
    assert found.xy.tolist() == [[15, 5]]
    (found,) = points_of(maps, threshold=0.45, radius=1)
    assert found.xy.tolist() == [[5, 5], [15, 5]]
    assert found.score.tolist() == pytest.approx([0.55, 0.6])
    assert found.class_prob[1].tolist() == pytest.approx([1 / 6, 5 / 6])
    assert (found.xy.dtype, found.score.dtype, found.class_prob.dtype) == (np.float64, np.float32, np.float32)


def test_suppression_includes_its_radius_goes_by_score_and_not_by_class():
    rows = [(5.0, 5.0, 0.6, 0.1), (15, 5, 0.1, 0.8), (25.5, 5, 0.6, 0.0)]
    (found,) = points_of(maps_of(rows, 2), radius=10)
    assert found.xy.tolist() == [[15, 5], [25.5, 5]]
    assert point_nms(np.array([[0.0, 0], [3, 4]]), np.array([0.2, 0.9]), 5).tolist() == [1]
    assert point_nms(np.array([[0.0, 0], [3, 4]]), np.array([0.2, 0.9]), 4.99).tolist() == [0, 1]


def test_points_beyond_the_image_come_onto_its_border_pixels():
    (found,) = points_of(maps_of([(-3.0, 10.0, 0.9), (70, 80, 0.9)]), radius=1)
    assert found.xy.tolist() == [[0.5, 10], [59.5, 39.5]]


def test_the_mask_leaves_points_out_only_when_asked():
    maps = maps_of([(4.9, 7.2, 0.9), (20, 20, 0.8)])
    maps.mask[0, 7, 4] = 0
    assert len(points_of(maps)[0].xy) == 2
    assert points_of(maps, use_mask=True)[0].xy.tolist() == [[20, 20]]


def test_points_above_a_threshold_are_those_of_a_lower_one_with_such_scores():
    rng = np.random.default_rng(0)
    maps = maps_of([(float(x), float(y), float(p)) for x, y, p in rng.random((200, 3)) * (60, 40, 1)])
    (low,), (high,) = (points_of(maps, threshold=t, radius=6) for t in (0.1, 0.7))
    assert np.array_equal(low.xy[low.score > 0.7], high.xy)
    assert 0 < len(high.xy) < len(low.xy)


def test_an_image_gives_the_same_points_in_any_batch():
    net = small()
    net.classify[3].bias.data = torch.tensor([0.4, 0.3, 0.0])
    images = torch.randint(0, 256, (3, 3, 50, 70), dtype=torch.uint8)
    together = propose_points(net, images, threshold=0.5, radius=4)
    for image, found in zip(images, together):
        (alone,) = propose_points(net, image[None].float(), threshold=0.5, radius=4)
        assert len(alone.xy) > 5
        assert alone.xy == pytest.approx(found.xy, abs=1e-3)
        assert alone.class_prob == pytest.approx(found.class_prob, abs=1e-5)


def test_images_are_normalised_as_on_imagenet():
    image = torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1)
    assert normalised(image).abs().max() == 0
    assert normalised(torch.zeros(1, 3, 1, 1, dtype=torch.uint8)).flatten().tolist() == pytest.approx(
        [-2.1179, -2.0357, -1.8044], abs=1e-4
    )


def card(**changes):
    return {"method": "cfrsam-points", "points": SMALL.as_dict(), "threshold": 0.35, "classes": ["a", "b"], **changes}


def test_a_checkpoint_gives_the_net_back(tmp_path):
    net, path = small(), tmp_path / "points.safetensors"
    write_state(path, net.state_dict(), card())
    loaded = open_points(path)
    assert loaded.config == SMALL
    assert loaded.threshold == 0.35
    assert not loaded.net.training
    images = torch.rand(1, 3, 32, 32)
    with loaded.running():
        assert torch.equal(loaded.net(images).points, net(images).points)


def test_a_net_is_read_from_a_larger_checkpoint():
    net = small()
    state = {f"points.{name}": value for name, value in net.state_dict().items()} | {"other": torch.zeros(3)}
    assert torch.equal(points_from(state, card()).reduce.weight, net.reduce.weight)


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ("weights of method 'sac', expected those that `gigaseg train cfrsam-points` writes", {"points": None}),
        ("threshold is '2', accepted: a number from 0 to 1", {"threshold": 2}),
        ("points: spacing is '1', accepted", {"points": {**SMALL.as_dict(), "spacing": 1}}),
        ("does not fit a 'light' point learner: ", {"points": {**SMALL.as_dict(), "channels": 16}}),
    ],
)
def test_another_checkpoint_is_refused(tmp_path, told, wrong):
    content, path = card(**wrong), tmp_path / "points.safetensors"
    if content["points"] is None:
        content = {"method": "sac"}
    write_state(path, small().state_dict(), json.loads(json.dumps(content)))
    with pytest.raises(CheckpointError) as error:
        open_points(path)
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)


def test_half_precision_rounds_no_coordinates():
    net = small().train(False)
    images = torch.zeros(1, 3, 32, 1024)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        half = net(images)
    whole = net(images)
    assert half.points.dtype == half.logits.dtype == half.mask.dtype == torch.float32
    assert (half.points - whole.points).abs().max() < 0.1  # bfloat16 alone would be 4 px off at 1024
    assert math.isfinite(float(half.mask.sum()))
