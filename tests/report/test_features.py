"""The analysis of features: maps, figures and picture of an image or a region of a slide."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from gigaseg.cli import main
from gigaseg.geometry import Bounds
from gigaseg.report.features import Truth, _separation, token_at
from samples import write_random_sam


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a random model: patches of 8 px, four blocks, the second and the fourth global."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_random_sam(path)
    return path


@pytest.fixture
def image(tmp_path):
    """200 x 100 px, dark with a bright square at x 120..168, y 16..48; and its labels."""
    pixels = np.full((100, 200, 3), 40, np.uint8)
    pixels[16:48, 120:168] = (220, 180, 60)
    labels = np.zeros((100, 200), np.uint16)
    labels[16:48, 120:168] = 9
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(labels).save(tmp_path / "labels.png")
    return tmp_path / "a.png"


def analyse(image, checkpoint, *options):
    out = image.parent / "out"
    code = main(["analyse-features", str(image), "--out", str(out), "--checkpoint", str(checkpoint), *options])
    return code, out


def test_a_point_belongs_to_the_token_that_holds_it_in_pictures_that_are_not_square():
    bounds, grid = Bounds(100, 50, 300, 150), (4, 8)  # tokens of 25 x 25 px
    xy = np.array([[100, 50], [124.9, 74.9], [125, 50], [100, 75], [299.9, 149.9], [200, 100]])
    assert token_at(xy, bounds, grid).tolist() == [[0, 0], [0, 0], [0, 1], [1, 0], [3, 7], [2, 4]]


def test_pixels_are_counted_by_token():
    labels = np.zeros((6, 9), int)
    labels[:, 2:5] = 3  # two of its columns in the second token, one in the first
    labels[0, 8] = 700
    truth = Truth.from_labels(labels, (2, 3))
    assert truth.inside.tolist() == [[3, 6, 1], [3, 6, 0]]
    assert truth.outside.tolist() == [[6, 3, 8], [6, 3, 9]]
    assert truth.edge.tolist() == [[3, 3, 1], [3, 3, 0]]  # columns 2 and 4: where the picture ends is no rim
    assert truth.tokens.tolist() == [[0, 1], [0, 2]]
    assert Truth.from_labels(np.zeros((6, 9), int), (2, 3)).tokens.shape == (0, 2)


def test_touching_objects_have_a_rim_between_them():
    labels = np.repeat([[1, 1, 1, 2, 2, 2]], 3, axis=0)
    assert Truth.from_labels(labels, (1, 6)).edge.tolist() == [[0, 0, 3, 3, 0, 0]]


def test_figures_of_a_layer_that_tells_all_and_of_one_that_tells_nothing():
    labels = np.zeros((4, 8), int)
    labels[:, 4:] = [1, 1, 2, 2]
    truth = Truth.from_labels(labels, (4, 8))
    perfect = np.where(labels > 0, 1.0, 0.25).astype(np.float32)
    even = np.ones((4, 8), np.float32)
    found = _separation(even, iter([perfect, perfect]), truth)
    assert [found[key] for key in ("similarity_inside", "similarity_outside", "auc_global", "auc_local")] == [
        1.0, 0.25, 1.0, 0.5,
    ]  # fmt: skip
    one_of_two = np.where(labels == 1, 1.0, 0.0).astype(np.float32)
    assert _separation(-perfect, iter([perfect, one_of_two]), truth)["auc_global"] == pytest.approx((1 + 0.75) / 2)
    assert _separation(-perfect, iter([perfect]), truth)["auc_local"] == 0
    nothing = Truth.from_labels(np.zeros((4, 8), int), (4, 8))
    assert np.isnan(list(_separation(even, iter([]), nothing).values())).all()


def test_an_image_becomes_maps_figures_and_a_picture(image, checkpoint, capsys):
    options = ["--point", "130", "20", "--point", "3", "90", "--labels", str(image.with_name("labels.png"))]
    code, out = analyse(image, checkpoint, "--layers", "neck", "2", "patch", *options)
    assert code == 0
    table = capsys.readouterr().out
    assert (out / "features.tsv").read_text() == table
    heading, *rows = (line.split("\t") for line in table.splitlines())
    assert [row[:2] for row in rows] == [["patch", "64"], ["2", "64"], ["neck", "32"]]
    patch = dict(zip(heading, rows[0]))
    assert float(patch["auc_global"]) > 0.95
    assert float(patch["similarity_inside"]) > float(patch["similarity_outside"])
    with np.load(out / "features.npz") as maps:
        # 200 x 100 px at 128: 16 x 8 tokens
        assert {name: maps[name].shape for name in maps if "_" in name} == {
            "local_patch": (8, 16), "global_patch": (2, 8, 16), "local_2": (8, 16), "global_2": (2, 8, 16),
            "local_neck": (8, 16), "global_neck": (2, 8, 16),
        }  # fmt: skip
        assert maps["local_2"].dtype == np.float32
        assert maps["points"].tolist() == [[130, 20], [3, 90]]
        assert maps["tokens"].tolist() == [[1, 10], [7, 0]]
        for index, (row, column) in enumerate(maps["tokens"]):
            assert maps["global_2"][index, row, column] == pytest.approx(1, abs=1e-6)
        assert json.loads(str(maps["about"]))["input"] == [128, 64]
    with Image.open(out / "features.png") as picture:
        assert json.loads(picture.info["gigaseg"])["region"] == [0, 0, 200, 100]
        assert picture.height > 4 * 160


def test_two_runs_write_the_same_bytes(image, checkpoint):
    written = []
    for _ in range(2):
        _, out = analyse(image, checkpoint)
        written.append([(out / f"features.{suffix}").read_bytes() for suffix in ("png", "npz", "tsv")])
    assert written[0] == written[1]


def test_by_default_the_point_is_the_middle_or_the_object_nearest_to_it(image, checkpoint):
    _, out = analyse(image, checkpoint, "--layers", "patch")
    with np.load(out / "features.npz") as maps:
        assert maps["points"].tolist() == [[100, 50]]
    _, out = analyse(image, checkpoint, "--layers", "patch", "--labels", str(image.with_name("labels.png")))
    with np.load(out / "features.npz") as maps:
        (x, y) = maps["points"][0]
        assert 120 <= x < 168
        assert 16 <= y < 48


def test_a_region_is_analysed_as_if_it_were_the_image(image, checkpoint):
    part = image.with_name("part.png")
    Image.fromarray(np.asarray(Image.open(image))[10:60, 100:180]).save(part)
    labels = image.with_name("labels.png")
    cut = image.with_name("cut.png")
    Image.fromarray(np.asarray(Image.open(labels))[10:60, 100:180]).save(cut)
    region = ["--region", "100", "10", "80", "50"]
    cases = [
        (image, [*region, "--point", "125", "20", "--labels", str(labels)]),
        (image, [*region, "--point", "125", "20", "--labels", str(cut)]),
        (part, ["--point", "25", "10", "--labels", str(cut)]),
    ]
    found = []
    for path, options in cases:
        _, out = analyse(path, checkpoint, "--size", "80", *options)
        with np.load(out / "features.npz") as maps:
            arrays = {name: maps[name] for name in maps if name not in ("points", "about")}
        found.append((arrays, (out / "features.tsv").read_text()))
    for arrays, table in found[1:]:
        assert table == found[0][1]
        assert arrays.keys() == found[0][0].keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, found[0][0][name])


def test_a_region_of_a_real_slide(data, checkpoint, tmp_path, capsys):
    code, out = analyse_slide(data, checkpoint, tmp_path, "--region", "400", "800", "300", "200", "--size", "96")
    assert code == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    with np.load(out / "features.npz") as maps:
        assert maps["local_3"].shape == (8, 12)
        assert maps["local_3"].std() > 0
        assert maps["points"].tolist() == [[550, 900]]


def analyse_slide(data, checkpoint, tmp_path, *options):
    slide = data / "slides" / "CMU-1-Small-Region.svs"
    out = tmp_path / "out"
    return main(["analyse-features", str(slide), "--out", str(out), "--checkpoint", str(checkpoint), *options]), out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--point", "200", "5"], "--point is 200 5, accepted: x from 0 to below 200, y from 0 to below 100"),
        (["--region", "0", "0", "50", "50", "--point", "60", "5"], "--point is 60 5, accepted: x from 0 to below 50"),
        (["--point", "nan", "5"], "--point is nan 5, accepted"),
        (["--region", "190", "0", "20", "20"], "--region is 190 0 20 20, accepted: x, y, width, height inside"),
        (["--layers", "2", "7"], "--layers: unknown layer '7'; accepted: patch, 0, 1, 2, 3, neck"),
        (["--size", "100"], "input size is 100 px, accepted: positive multiples of 8 px"),
        (["--labels", "other.png"], "other.png: has 30 x 20 px, expected 200 x 100"),
        (["--labels", "none.png"], "none.png: no such file"),
        (["--device", "cuda:77"], "device is 'cuda:77'"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(image, checkpoint, capsys, monkeypatch, options, told):
    monkeypatch.chdir(image.parent)
    Image.fromarray(np.zeros((20, 30), np.uint8)).save("other.png")
    code, out = analyse(image, checkpoint, *options)
    assert code == 2
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("gigaseg ")]
    assert told in line
    assert captured.out == ""
    assert not out.exists()
