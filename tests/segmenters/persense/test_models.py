"""A user's density model: what it is given, what its map becomes, and what is said when it is none."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.persense.base import Exemplar, Scene
from gigaseg.segmenters.persense.models import IMAGENET_MEAN, IMAGENET_STD, ModelDensity, resized
from gigaseg.segmenters.persense.strip import CONTEXT, GAP, beside


class Places(nn.Module):
    """Unit mass at the centre of each box."""

    def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
        found = torch.zeros(image.shape[2], image.shape[3])
        for i in range(boxes.shape[1]):
            y, x = (boxes[0, i, 0] + boxes[0, i, 2]) / 2, (boxes[0, i, 1] + boxes[0, i, 3]) / 2
            found[int(y), int(x)] += 1
        return found


class Red(nn.Module):
    """Mass where the picture is white in red: 1.1 a pixel, and -1 elsewhere."""

    def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
        red = image[:, :1] * 0.229 + 0.485
        return torch.where(red > 0.999, 1.1, -1.0)


class Echo(nn.Module):
    """The boxes themselves, as a map of (1, K, 4)."""

    def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
        return boxes


class Blocks(nn.Module):
    """`Red`, summed over blocks of 4 x 4 px, as a map of a quarter of the size."""

    def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
        red = (image[:, :1] * 0.229 + 0.485 > 0.999).float()
        return nn.functional.avg_pool2d(red, 4) * 16


class Wrong(nn.Module):
    """What is no map: `kind` says why."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
        if self.kind == 0:
            return torch.zeros(1, 2, 8, 8)
        if self.kind == 1:
            return torch.full((8, 8), float("nan"))
        if self.kind == 2:
            return torch.zeros(8)
        return torch.zeros(3, 4) @ torch.zeros(3, 4)


class Pair(nn.Module):
    """Two maps."""

    def forward(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        return image[:, :1], boxes


def script(folder, module, name="model.pt"):
    path = folder / name
    torch.jit.save(torch.jit.script(module), path)
    return path


def onnx_file(folder, nodes, outputs=1, inputs=("image", "boxes")):
    """An ONNX model of some nodes, from `inputs` to "map", and "second"."""
    onnx = pytest.importorskip("onnx", reason="of the extra 'dev'")
    pytest.importorskip("onnxruntime", reason="of the extra 'persense'")
    shapes = {"image": [1, 3, "h", "w"], "boxes": [1, "k", 4]}
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(*node[:3], **node[3]) for node in nodes],
        "density",
        [onnx.helper.make_tensor_value_info(name, kind, shapes[name]) for name in inputs],
        [onnx.helper.make_tensor_value_info(name, kind, None) for name in ("map", "second")[:outputs]],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


GREY = [("ReduceMean", ["image"], ["grey"], {"axes": [1], "keepdims": 1}), ("Relu", ["grey"], ["map"], {})]
"""The mean of the channels, where it is positive."""

ECHO = [("Identity", ["boxes"], ["map"], {})]


class Grey(nn.Module):
    """As `GREY`."""

    def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
        return torch.relu(image.mean(1, keepdim=True))


def grey_file(folder, suffix):
    return onnx_file(folder, GREY) if suffix == ".onnx" else script(folder, Grey(), f"model{suffix}")


def echo_file(folder, suffix):
    return onnx_file(folder, ECHO) if suffix == ".onnx" else script(folder, Echo(), f"model{suffix}")


BOTH = pytest.mark.parametrize("suffix", [".pt", ".onnx"])


def exemplar(scene, *box):
    return Exemplar(scene, np.array(box, np.float64))


def noise(height, width, seed=0):
    return Scene(np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8))


def spotted(height, width, places):
    """A picture with white squares of 4 px at these corners (x, y), multiples of 4."""
    rgb = np.full((height, width, 3), 50, np.uint8)
    for x, y in places:
        rgb[y : y + 4, x : x + 4] = 255
    return Scene(rgb)


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_unit_mass_at_each_box_counts_the_boxes(tmp_path, number):
    scene = noise(40, 60)
    boxes = [(6 * i, 3 * i, 6 * i + 5, 3 * i + 9) for i in range(number)]
    found = ModelDensity(script(tmp_path, Places()), exemplars=0).density(
        scene, [exemplar(scene, *box) for box in boxes]
    )
    assert found.count == number
    expected = np.zeros((40, 60), np.float32)
    for x0, y0, x1, y1 in boxes:
        expected[(y0 + y1) // 2, (x0 + x1) // 2] = 1
    assert (found.map == expected).all()
    assert found.map.dtype == np.float32


@BOTH
def test_the_image_is_normalised_as_for_imagenet(tmp_path, suffix):
    scene = noise(24, 30)
    found = ModelDensity(grey_file(tmp_path, suffix)).density(scene, [exemplar(scene, 1, 2, 5, 8)])
    expected = ((scene.rgb / 255 - IMAGENET_MEAN) / IMAGENET_STD).mean(2).clip(0)
    assert found.map == pytest.approx(expected, abs=1e-5)
    assert found.count == pytest.approx(expected.sum(), rel=1e-5)


@BOTH
def test_boxes_are_y_first_and_stay_exact_without_a_size(tmp_path, suffix):
    scene = noise(100, 200)
    found = ModelDensity(echo_file(tmp_path, suffix), exemplars=1).density(
        scene, [exemplar(scene, 10.5, 20.25, 30, 44)]
    )
    assert found.count == 10.5 + 20.25 + 30 + 44
    model = ModelDensity(echo_file(tmp_path, suffix))
    assert model._inputs(scene.rgb, np.array([[1.0, 2, 3, 4]]))[1].tolist() == [[[2, 1, 4, 3]]]


@BOTH
@pytest.mark.parametrize(
    ("given", "taken"), [([1], [1, 1, 1]), ([1, 2], [1, 2, 1]), ([1, 2, 3], [1, 2, 3]), ([1, 2, 3, 4, 5], [1, 2, 3])]
)
def test_a_model_of_three_exemplars_gets_three(tmp_path, suffix, given, taken):
    scene = noise(64, 64)
    model = ModelDensity(echo_file(tmp_path, suffix), exemplars=3)
    found = model.density(scene, [exemplar(scene, 0, 0, 10**i, 50) for i in given][: len(given)])
    assert found.count == sum(10**i + 50 for i in taken)


def test_at_a_fixed_size_boxes_are_squeezed_and_lose_their_fractions(tmp_path):
    scene = noise(300, 700)
    model = ModelDensity(script(tmp_path, Echo()), size=512, exemplars=1)
    image, boxes = model._inputs(scene.rgb, np.array([[101.0, 50, 230, 99]]))
    assert image.shape == (1, 3, 512, 512)
    # 50 * 512 / 300 = 85.33, 101 * 512 / 700 = 73.87, 99 -> 168.96, 230 -> 168.23
    assert boxes.tolist() == [[[85, 73, 168, 168]]]
    assert model.density(scene, [exemplar(scene, 101, 50, 230, 99)]).count == 85 + 73 + 168 + 168


def test_a_box_that_would_vanish_keeps_a_pixel(tmp_path):
    scene = noise(1200, 1200)
    model = ModelDensity(script(tmp_path, Echo()), size=512)
    assert model._inputs(scene.rgb, np.array([[100.0, 200, 101, 203]]))[1].tolist() == [[[85, 42, 86, 43]]]


@pytest.mark.parametrize("size", [0, 16, 128], ids=["as it is", "smaller", "larger"])
@pytest.mark.parametrize("shape", [(48, 64), (33, 70)])
def test_the_count_is_that_of_the_models_map_and_the_map_keeps_it(tmp_path, size, shape):
    scene = noise(*shape)
    model = ModelDensity(grey_file(tmp_path, ".pt"), size=size)
    one = exemplar(scene, 3, 3, 9, 9)
    image, _ = model._inputs(scene.rgb, one.box[None])
    found = model.density(scene, [one])
    assert found.count == pytest.approx(float(image.mean(1).clamp(min=0).sum()), rel=1e-5)
    assert found.map.shape == shape
    assert float(found.map.sum()) == pytest.approx(found.count, rel=1e-4)
    assert found.map.min() >= 0


def test_a_coarser_map_lies_where_its_objects_are(tmp_path):
    scene = spotted(48, 64, [(8, 12), (40, 32)])
    found = ModelDensity(script(tmp_path, Blocks())).density(scene, [exemplar(scene, 8, 12, 12, 16)])
    assert found.count == 32  # pixels
    y, x = np.mgrid[:48, :64] + 0.5
    assert float((found.map * x).sum() / found.count) == pytest.approx((10 + 42) / 2, abs=1e-3)
    assert float((found.map * y).sum() / found.count) == pytest.approx((14 + 34) / 2, abs=1e-3)
    assert found.map[:24, :32].sum() == pytest.approx(16, abs=1e-3)


def test_shrinking_a_map_passes_over_no_cell():
    cells = np.zeros((512, 512))
    cells[101, 203] = 1
    assert resized(cells, (50, 60)).sum() > 0
    assert np.argwhere(resized(cells, (50, 60)) > 0)[0].tolist() == [101 * 50 // 512, 203 * 60 // 512]


def test_negative_values_count_as_nothing_and_the_map_is_divided_by_the_scale(tmp_path):
    scene = spotted(40, 40, [(8, 8), (20, 24)])
    one = [exemplar(scene, 8, 8, 12, 12)]
    path = script(tmp_path, Red())
    assert ModelDensity(path).density(scene, one).count == pytest.approx(1.1 * 32, rel=1e-5)
    assert ModelDensity(path, scale=60).density(scene, one).count == pytest.approx(1.1 * 32 / 60, rel=1e-5)
    up = ModelDensity(path, scale=60, ceil=True).density(scene, one)
    assert up.count == 1.0
    assert up.map.sum() == pytest.approx(1.1 * 32 / 60, rel=1e-4)


def test_without_foreign_exemplars_the_picture_is_taken_as_it_is():
    scene = noise(30, 50)
    rgb, boxes = beside(scene, [exemplar(scene, 1, 2, 3, 4)])
    assert rgb is scene.rgb
    assert boxes.tolist() == [[1, 2, 3, 4]]


def test_exemplars_of_another_picture_stand_beside_this_one_with_their_surroundings():
    scene, other = noise(60, 50), noise(40, 40, seed=1)
    foreign = [exemplar(other, 10, 12, 18, 16), exemplar(other, 0, 30.5, 20, 39.5)]
    rgb, boxes = beside(scene, [foreign[0], exemplar(scene, 1, 2, 3, 4), foreign[1]])
    assert (rgb[:60, :50] == scene.rgb).all()
    assert boxes[1].tolist() == [1, 2, 3, 4]
    first = other.rgb[8:20, 6:22]  # half of 8 px around
    assert CONTEXT == 0.5
    x = 50 + GAP
    assert (rgb[:12, x : x + 16] == first).all()
    assert boxes[0].tolist() == [x + 4, 4, x + 12, 8]
    second = other.rgb[20:40, 0:30]  # as far as the picture goes
    y = 12 + GAP
    assert (rgb[y : y + 20, x : x + 30] == second).all()
    assert boxes[2].tolist() == [x, y + 10.5, x + 20, y + 19.5]
    assert rgb.shape == (60, x + 30, 3)
    assert (rgb[:, 50:x] == scene.rgb.reshape(-1, 3).mean(0).round()).all()


@pytest.mark.parametrize("multiple", [1, 32])
def test_what_each_box_on_the_strip_shows_is_the_exemplar(multiple):
    scene, other = noise(45, 70), noise(90, 120, seed=1)
    rng = np.random.default_rng(2)
    corners = [(int(x), int(y)) for x, y in rng.integers(0, 60, (9, 2))]
    boxes = [(x, y, x + int(w), y + int(h)) for (x, y), (w, h) in zip(corners, rng.integers(3, 30, (9, 2)))]
    rgb, placed = beside(scene, [exemplar(other, *box) for box in boxes], multiple)
    assert rgb.shape[0] % multiple == rgb.shape[1] % multiple == 0
    assert (rgb[:45, :70] == scene.rgb).all()
    for (x0, y0, x1, y1), (a0, b0, a1, b1) in zip(boxes, placed.astype(int).tolist()):
        assert a0 >= 70 + GAP
        assert (rgb[b0:b1, a0:a1] == other.rgb[y0:y1, x0:x1]).all()


def test_pieces_that_fit_below_each_other_do_not_make_the_picture_taller():
    scene, other = noise(60, 50), noise(40, 40, seed=1)
    rgb, boxes = beside(scene, [exemplar(other, 10, 10, 20, 20)] * 5)
    assert rgb.shape == (60, 50 + 3 * (GAP + 20), 3)  # two of 20 px in a column
    assert boxes[:, :2].tolist() == [[63, 5], [63, 33], [91, 5], [91, 33], [119, 5]]


def test_the_strip_and_its_objects_are_cut_off_the_map_and_the_count(tmp_path):
    scene = spotted(48, 64, [(8, 12), (40, 32), (56, 4)])
    other = spotted(40, 40, [(8, 8), (24, 20)])
    foreign = [exemplar(other, 8, 8, 12, 12), exemplar(other, 24, 20, 28, 24)]
    found = ModelDensity(script(tmp_path, Red())).density(scene, foreign)
    own = ModelDensity(script(tmp_path, Red())).density(scene, [exemplar(scene, 8, 12, 12, 16)])
    assert found.count == pytest.approx(1.1 * 48, rel=1e-5)
    assert found.map.shape == (48, 64)
    assert found.map == pytest.approx(own.map, abs=1e-5)


@pytest.mark.parametrize("options", [{"size": 128}, {"multiple": 32}, {}], ids=["squeezed", "filled up", "as it is"])
def test_nothing_is_counted_on_the_strip_whatever_the_size(tmp_path, options):
    scene, other = noise(48, 64), spotted(40, 40, [(8, 8), (24, 20)])
    foreign = [exemplar(other, 8, 8, 12, 12)]
    model = ModelDensity(script(tmp_path, Blocks()), **options)
    assert model.density(scene, foreign).count == pytest.approx(0, abs=1e-6)


def test_a_mass_of_the_whole_image_is_cut_in_proportion(tmp_path):
    """A cell that lies half on the strip counts half."""

    class One(nn.Module):
        def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
            return torch.ones(1, 1, 1, 1)

    scene, other = noise(48, 64), noise(40, 40, seed=1)
    foreign = [exemplar(other, 8, 8, 16, 16)]
    width = beside(scene, foreign)[0].shape[1]
    found = ModelDensity(script(tmp_path, One())).density(scene, foreign)
    assert found.count == pytest.approx(64 / width)
    assert found.map == pytest.approx(np.full((48, 64), found.count / (48 * 64)))


@pytest.mark.parametrize(
    ("kind", "said"), [(0, r"gives \(1, 2, 8, 8\), accepted: a map"), (1, "not finite"), (2, r"gives \(8,\)")]
)
def test_what_is_no_map_is_refused(tmp_path, kind, said):
    scene = noise(20, 20)
    path = script(tmp_path, Wrong(kind))
    with pytest.raises(SegmenterError, match=said) as error:
        ModelDensity(path).density(scene, [exemplar(scene, 1, 1, 5, 5)])
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_two_maps_are_refused(tmp_path):
    scene = noise(20, 20)
    with pytest.raises(SegmenterError, match="gives tuple, accepted"):
        ModelDensity(script(tmp_path, Pair())).density(scene, [exemplar(scene, 1, 1, 5, 5)])
    path = onnx_file(tmp_path, [*GREY, ("Identity", ["boxes"], ["second"], {})], outputs=2)
    with pytest.raises(SegmenterError, match="gives tuple, accepted"):
        ModelDensity(path).density(scene, [exemplar(scene, 1, 1, 5, 5)])


def test_a_model_that_fails_is_told_in_one_line(tmp_path):
    scene = noise(20, 30)
    with pytest.raises(
        SegmenterError, match=r"fails on an image of \(1, 3, 20, 30\) and boxes of \(1, 3, 4\)"
    ) as error:
        ModelDensity(script(tmp_path, Wrong(3))).density(scene, [exemplar(scene, 1, 1, 5, 5)])
    assert "\n" not in str(error.value)


def test_no_exemplar_is_a_mistake_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="no exemplars"):
        ModelDensity(script(tmp_path, Places())).density(noise(20, 20), [])


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".onnx"])
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path, suffix):
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason="of the extra 'persense'")
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"no model at all")
    with pytest.raises(SegmenterError, match=r"TorchScript|ONNX") as error:
        ModelDensity(path)
    assert "\n" not in str(error.value)


def test_a_state_dict_is_no_torch_script_file(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(SegmenterError, match="no TorchScript file"):
        ModelDensity(tmp_path / "weights.pth")


def test_a_missing_file_and_another_suffix_are_refused(tmp_path):
    with pytest.raises(SegmenterError, match=r"no such file, expected a density model \(\.pt, \.pth or \.onnx\)"):
        ModelDensity(tmp_path / "none.pt")
    (tmp_path / "model.bin").touch()
    with pytest.raises(SegmenterError, match=r"suffix is '\.bin', accepted: \.pt, \.pth, \.onnx"):
        ModelDensity(tmp_path / "model.bin")


@pytest.mark.parametrize(
    "options", [{"size": -1}, {"exemplars": -1}, {"scale": 0.0}, {"multiple": 0}, {"size": 64, "multiple": 32}]
)
def test_an_option_that_makes_no_sense_is_refused(tmp_path, options):
    with pytest.raises(SegmenterError, match=r"density model: .* accepted: "):
        ModelDensity(tmp_path / "unread.pt", **options)


def test_an_onnx_model_of_one_input_is_refused(tmp_path):
    path = onnx_file(tmp_path, GREY, inputs=("image",))
    with pytest.raises(SegmenterError, match=r"takes 1 inputs \(image\), accepted: image and boxes"):
        ModelDensity(path)


def test_a_missing_onnxruntime_is_told(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SegmenterError, match=r"needs the package onnxruntime.*pip install 'gigaseg\[persense\]'"):
        ModelDensity(tmp_path / "model.onnx")


def test_a_model_is_named_by_its_file_and_content(tmp_path):
    one, two = script(tmp_path, Places(), "one.pt"), script(tmp_path, Red(), "two.pt")
    names = [ModelDensity(path).name for path in (one, two)]
    assert names[0].startswith("model one.pt ")
    assert names[0].split()[2] != names[1].split()[2]
    assert len(names[0].split()[2]) == 16
    assert ModelDensity(one).needs_weights
    assert ModelDensity(one).deterministic
    assert not ModelDensity(one, deterministic=False).deterministic
