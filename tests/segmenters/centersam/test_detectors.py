"""The detectors have the published sizes, and answer on a grid of stride 4."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from gigaseg.errors import CheckpointError
from gigaseg.segmenters.centersam.detector import DetectorConfig, build_detector
from gigaseg.segmenters.centersam.hourglass import Hourglass

NARROW = DetectorConfig(kind="hourglass", dims=(16, 16, 24, 32), counts=(2, 1, 2, 2))


def on_meta(config):
    with torch.device("meta"):
        return build_detector(config).eval()


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def shapes(stacks):
    return [(tuple(m.heat.shape), tuple(m.size.shape), tuple(m.offset.shape)) for m in stacks]


def test_the_hourglass_has_the_published_number_of_parameters():
    found = on_meta(DetectorConfig(kind="hourglass"))
    assert isinstance(found, Hourglass)
    assert parameters(found) == 191_243_402
    assert parameters(found.stem) == 938_112
    assert [parameters(part) for part in found.hourglasses] == [92_134_400, 92_134_400]


def test_resnet18_has_the_published_number_of_parameters():
    assert parameters(on_meta(DetectorConfig(kind="resnet18"))) == 15_815_237


def test_a_class_more_is_a_heatmap_more():
    for kind, stacks, hidden in (("hourglass", 2, 256), ("resnet18", 1, 64), ("light", 1, 64)):
        one, two = (parameters(on_meta(DetectorConfig(kind=kind, classes=names))) for names in (("a",), ("a", "b")))
        assert two - one == stacks * (hidden + 1)


def test_the_published_detectors_answer_at_stride_4():
    expected = ((1, 1, 32, 32), (1, 2, 32, 32), (1, 2, 32, 32))
    with FakeTensorMode():  # shapes alone, as if on a CPU
        images = torch.zeros(1, 3, 128, 128)
        assert shapes(build_detector(DetectorConfig(kind="hourglass")).eval()(images)) == [expected, expected]
        assert shapes(build_detector(DetectorConfig(kind="resnet18")).eval()(images)) == [expected]


@pytest.mark.parametrize("side", [160, 100])
def test_an_hourglass_refuses_sides_that_it_cannot_halve(side):
    with pytest.raises(
        ValueError, match=f"images are {side} x {side} px, accepted by a 'hourglass' .*multiples of 128"
    ):
        on_meta(DetectorConfig(kind="hourglass"))(torch.zeros(1, 3, side, side, device="meta"))


@pytest.mark.parametrize(
    ("config", "stacks"),
    [(NARROW, 2), (DetectorConfig(kind="resnet18"), 1), (DetectorConfig(embedding=16, width=32), 1)],
    ids=["hourglass", "resnet18", "light"],
)
def test_a_fresh_detector_expects_an_object_in_every_tenth_cell(config, stacks):
    torch.manual_seed(0)
    detector = build_detector(config)
    images, embedding = torch.randn(2, 3, 128, 192), torch.randn(2, 16, 16, 24)
    with torch.no_grad():  # batch norms in training mode: by the batch's own statistics
        found = detector(images, embedding if detector.uses_embedding else None)
    assert shapes(found) == [((2, 1, 32, 48), (2, 2, 32, 48), (2, 2, 32, 48))] * stacks
    for maps in found:
        # the light one's features vary more
        assert float(maps.heat.sigmoid().mean()) == pytest.approx(0.10, abs=0.04 if detector.uses_embedding else 0.02)
        assert float(maps.heat.std()) > 0.01, "the images make no difference"


def test_fresh_layers_of_resnet18_begin_as_published():
    torch.manual_seed(0)
    detector = build_detector(DetectorConfig(kind="resnet18"))
    assert float(detector.up[0].weight.detach().std()) == pytest.approx(0.001, rel=0.01)
    for name in ("size", "offset"):
        assert float(detector.heads.last(name).weight.detach().std()) == pytest.approx(0.001, rel=0.25)
        assert detector.heads.last(name).bias.tolist() == [0, 0]
    assert detector.heads.last("heat").bias.tolist() == [pytest.approx(-2.19)]


@pytest.mark.parametrize("patch", [8, 16])
def test_the_light_detector_takes_any_size_in_patches_and_sees_image_and_embedding(patch):
    torch.manual_seed(0)
    detector = build_detector(DetectorConfig(embedding=16, patch=patch, width=8)).eval()
    images, embedding = torch.randn(1, 3, 3 * patch, 5 * patch), torch.randn(1, 16, 3, 5)
    with torch.no_grad():
        (found,) = detector(images, embedding)
        (other_image,) = detector(images + 1, embedding)
        (other_embedding,) = detector(images, embedding + 1)
    assert found.heat.shape == (1, 1, 3 * patch // 4, 5 * patch // 4)
    assert not torch.allclose(found.heat, other_image.heat)
    assert not torch.allclose(found.heat, other_embedding.heat)
    with pytest.raises(ValueError, match="embedding is 3 x 4, expected 3 x 5 cells"):
        detector(images, embedding[..., :4])
    with pytest.raises(ValueError, match="embedding is none, expected 3 x 5 cells"):
        detector(images)


def test_a_cell_of_the_embedding_lands_on_its_own_pixels():
    detector = build_detector(DetectorConfig(embedding=4, patch=16, width=8)).eval()
    embedding = torch.zeros(1, 4, 3, 5)
    before = detector.embedding(embedding)
    embedding[:, :, 1, 3] = 9
    changed = (detector.embedding(embedding) != before).any(1)[0]
    rows, columns = torch.nonzero(changed, as_tuple=True)
    assert set(rows.tolist()) == {2, 3}, "places of 8 px, two a cell"
    assert set(columns.tolist()) == {6, 7}


@pytest.mark.parametrize("patch", [8, 16])
def test_a_fresh_detail_has_the_grid_of_sams_masks_and_says_nothing(patch):
    detector = build_detector(DetectorConfig(embedding=16, patch=patch, width=8, detail=4)).eval()
    images, embedding = torch.randn(1, 3, 3 * patch, 5 * patch), torch.randn(1, 16, 3, 5)
    with torch.no_grad():
        (found,) = detector(images, embedding)
        detector.detail.last.weight.normal_()
        (other,) = detector(images, embedding)
    assert found.detail.shape == (1, 2, 12, 20), "an eighth of the embedding's channels, four places a cell"
    assert found.foreground.shape == (1, 12, 20)
    assert found.detail.abs().max() == found.foreground.abs().max() == 0
    assert other.detail.std() > 0.01
    assert torch.equal(other.heat, found.heat)


def test_what_a_detector_says_of_an_image_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    for config in (NARROW, DetectorConfig(embedding=16, width=8)):
        detector = build_detector(config).eval()
        images, embedding = torch.randn(3, 3, 64, 64), torch.randn(3, 16, 8, 8)
        with torch.no_grad():
            both = detector(images, embedding)[-1]
            alone = detector(images[1:2], embedding[1:2])[-1]
        torch.testing.assert_close(both.heat[1:2], alone.heat, atol=1e-4, rtol=1e-4)


def test_maps_are_float32_in_half_precision_too():
    torch.manual_seed(0)
    detector = build_detector(DetectorConfig(embedding=16, width=8)).eval()
    images, embedding = torch.randn(1, 3, 128, 128), torch.randn(1, 16, 16, 16)
    with torch.no_grad():
        exact = detector(images, embedding)[0]
        with torch.autocast("cpu", torch.bfloat16):
            half = detector(images, embedding)[0]
    assert {half.heat.dtype, half.size.dtype, half.offset.dtype} == {torch.float32}
    torch.testing.assert_close(half.heat, exact.heat, atol=0.05, rtol=0.05)
    values = half.heat.flatten()
    assert len(values.unique()) > 0.95 * len(values), "cells tie"


def test_images_are_normalised_by_the_detectors_own_mean_and_deviation():
    config = DetectorConfig(embedding=16, width=8, pixel_mean=(10.0, 20.0, 30.0), pixel_std=(1.0, 2.0, 4.0))
    pixels = torch.tensor([12, 24, 38], dtype=torch.uint8).view(1, 3, 1, 1)
    assert build_detector(config).normalise(pixels).flatten().tolist() == [2, 2, 2]


def test_a_configuration_survives_its_card():
    for config in (NARROW, DetectorConfig(classes=("a", "b"), patch=16, pixel_std=(1.0, 1.0, 1.0))):
        assert DetectorConfig.from_dict(config.as_dict()) == config
    assert DetectorConfig.from_dict({}) == DetectorConfig()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (7, "detector is 7, accepted: an object"),
        ({"kind": "resnet50"}, "detector: kind is 'resnet50', accepted: light, resnet18, hourglass"),
        ({"kind": ["light"]}, "detector: kind is .*light.*, accepted: light"),
        ({"widht": 8}, r"detector: unknown field 'widht'; accepted: kind, .*\(did you mean 'width'\?\)"),
        ({"classes": []}, r"classes is \[\], accepted: different texts, at least one"),
        ({"classes": "nucleus"}, "classes is 'nucleus', accepted"),
        ({"classes": ["a", "a"]}, "accepted: different texts"),
        ({"classes": [["a"]]}, "accepted: different texts"),
        ({"patch": 6}, "patch is 6, accepted: a multiple of 4"),
        ({"patch": 12}, "patch is 12, accepted: a multiple of 8 px with a 'light' detector"),
        ({"detail": -1}, "detail is -1, accepted: an integer from 0"),
        ({"width": 3}, "width is 3, accepted: a multiple of 2"),
        ({"width": 10**9}, "width is 1000000000, accepted"),
        ({"embedding": 0}, "embedding is 0"),
        ({"stacks": True}, "stacks is True, accepted: an integer from 1 to 16"),
        ({"dims": [256]}, r"dims is \[256\], accepted: 2 to 10 integers"),
        ({"dims": [15, 16], "counts": [1, 1]}, "dims is .*, accepted: an even number first"),
        ({"counts": [2, 2]}, r"counts is \[2, 2\], accepted: 6 integers, as many as dims"),
        ({"pixel_mean": [0, 0]}, "pixel_mean is .*three numbers"),
        ({"pixel_std": [1, 1, 0]}, "pixel_std is .*above 0"),
        ({"pixel_std": [1, 1, float("nan")]}, "pixel_std is .*three numbers"),
    ],
)
def test_a_configuration_that_makes_no_detector_is_told_in_one_line(values, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        DetectorConfig.from_dict(values)
    assert "\n" not in str(caught.value)
