"""Figures of PanNuke's protocol and of CoNSeP's table, from predictions made by hand."""

import json
from dataclasses import dataclass, replace
from math import isnan, nan

import numpy as np
import pytest

from gigaseg.cli import main
from gigaseg.errors import FormatError
from gigaseg.metrics.pannuke import CLASSES, score_pannuke
from gigaseg.train import parts
from gigaseg.train.cfrsam.protocol import protocol_figures
from gigaseg.train.data import Sample, load
from gigaseg.train.layouts import read_layout
from gigaseg.train.methods import METHODS
from published_cfrsam import TISSUES, pannuke_fold, write_consep, write_pannuke


@dataclass(frozen=True)
class Found:
    """A prediction, as a segmenter with classes gives it."""

    labels: np.ndarray
    class_index: np.ndarray
    scores: np.ndarray


def drawn(*boxes, side=64):
    labels = np.zeros((side, side), np.int32)
    for number, (y, x, h, w) in enumerate(boxes, 1):
        labels[y : y + h, x : x + w] = number
    return labels


def made(labels, kinds=None, group="", classes=()):
    """A sample of which the first class's map is its labels where there are no classes."""
    kinds = kinds if kinds is not None else ["neoplastic"] * int(labels.max())
    numbers = np.array(["", *kinds])
    maps = {name: np.where(numbers[labels] == name, labels, 0) for name in CLASSES}
    image = np.zeros((*labels.shape, 3), np.uint8)
    return Sample("s", group, image, labels, nan, image[0, 0], tuple(kinds), lambda: maps)


def found(labels, kinds=None, scores=None):
    count = int(labels.max())
    kinds = kinds if kinds is not None else ["neoplastic"] * count
    return Found(labels, np.array([CLASSES.index(k) for k in kinds], int), np.array(scores or [1.0] * count))


def truths(samples):
    return [found(sample.labels, sample.classes) for sample in samples]


def values(measured):
    return {name: figure.value for name, figure in measured.figures.items()}


NOTHING, SQUARE = (), ((5, 5, 10, 10),)
VECTORS = {
    "one of two shifted": (
        ((5, 5, 10, 10), (30, 30, 10, 10)), ((5, 5, 10, 10), (30, 35, 10, 10)), 0.4999995, 0.5, 0.999999, 0.6,
    ),
    "IoU exactly a half": (SQUARE, ((5, 5, 10, 5),), 0, 0, 0, 0.5),
    "two by one": (((5, 5, 10, 10), (5, 15, 10, 10)), ((5, 5, 10, 20),), 0, 0, 0, 0.5),
    "nothing found": (SQUARE, NOTHING, 0, 0, 0, 0),
    "nothing to find": (NOTHING, SQUARE, nan, nan, nan, 0),
    "neither": (NOTHING, NOTHING, nan, nan, nan, nan),
    "identical": (
        ((5, 5, 10, 10), (30, 30, 10, 10), (50, 5, 9, 9)), ((5, 5, 10, 10), (30, 30, 10, 10), (50, 5, 9, 9)),
        0.9999997, 1, 0.9999997, 1,
    ),
}  # fmt: skip
"""Truth, prediction, PQ, DQ, SQ, AJI, computed by hand."""


@pytest.mark.parametrize("name", VECTORS)
def test_figures_of_an_image_are_those_computed_by_hand(name):
    truth, prediction, pq, dq, sq, aji = VECTORS[name]
    measured = protocol_figures([made(drawn(*truth), group="Breast")], [found(drawn(*prediction))], CLASSES)
    (row,) = measured.rows
    expected = {"pq": pq, "dq": dq, "sq": sq, "aji": aji, "pannuke_bpq": pq, "pannuke_mpq": pq}
    assert {key: row[key] for key in expected} == pytest.approx(expected, abs=1e-7, nan_ok=True)
    assert measured.figures["pannuke_bpq/Breast"].value == pytest.approx(pq, abs=1e-7, nan_ok=True)


@pytest.fixture
def fold(tmp_path):
    """Samples of PanNuke: five classes, two, none, and two nuclei that cross."""
    return load(read_layout("pannuke", write_pannuke(tmp_path, (4, 0, 0))), classes=CLASSES)


def test_a_perfect_prediction_is_perfect_but_for_what_lies_under_others(fold):
    figures = values(protocol_figures(fold[:3], truths(fold[:3]), CLASSES))
    for name in ("pannuke_bpq", "pannuke_mpq", "pq", "dq", "sq", *(f"pannuke_pq_{name}" for name in CLASSES)):
        assert figures[name] == pytest.approx(1, abs=1e-6), name
    for name in ("aji", "pixel_dice", "detection_f1_hungarian", "detection_recall_greedy"):
        assert figures[name] == 1, name
    for name in CLASSES:
        for kind in ("f1", "precision", "recall"):
            assert figures[f"classification_{kind}_hungarian_{name}"] == 1
            assert figures[f"classification_{kind}_greedy_{name}"] == 1
    assert figures["pannuke_false_positives_per_mm2"] == 0
    assert {f"pannuke_bpq/{tissue}" for tissue in TISSUES} <= set(figures)
    crossing = values(protocol_figures(fold[3:], truths(fold[3:]), CLASSES))
    assert crossing["pannuke_bpq"] == pytest.approx(1, abs=1e-6)
    # of the two neoplastic nuclei one half is hidden: IoU exactly a half, no pair
    assert crossing["pannuke_pq_neoplastic"] == pytest.approx(0.5, abs=1e-6)


def test_figures_are_those_of_the_whole_arrays(fold):
    """`gigaseg.metrics.pannuke.score_pannuke` reads the published arrays."""
    _, masks, tissues = pannuke_fold(4, 100)
    rng = np.random.default_rng(0)
    predictions, arrays = [], np.zeros_like(masks)
    for i, sample in enumerate(fold):
        kinds = rng.integers(0, 5, int(sample.labels.max()))
        labels = np.roll(sample.labels, 1, axis=1) if i % 2 else sample.labels
        predictions.append(Found(labels, kinds, np.ones(len(kinds))))
        for number, kind in enumerate(kinds, 1):
            arrays[i, ..., kind] += number * (labels == number)
    scores = score_pannuke(masks, arrays, tissues)
    figures = values(protocol_figures(fold, predictions, CLASSES))
    assert 0.1 < scores.mpq < 0.9
    expected = {"pannuke_bpq": scores.bpq, "pannuke_mpq": scores.mpq, "pannuke_mpq_sd": scores.mpq_sd}
    expected |= {f"pannuke_mpq/{tissue}": value for tissue, value in scores.tissue_mpq.items()}
    expected |= {f"pannuke_pq_{name}": value for name, value in scores.class_pq.items()}
    assert {name: figures[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_tissues_count_once_and_intervals_hold_the_figures():
    """Tissue means 1 and 1/3; the mean over images would be a half."""
    truth, half = drawn(*VECTORS["one of two shifted"][0]), drawn(*VECTORS["one of two shifted"][1])
    empty = drawn()
    samples = [made(truth, group="a"), made(empty, group="a"), *(made(truth, group="b") for _ in range(3))]
    measured = protocol_figures(samples, [found(x) for x in (truth, half, empty, half, half)], CLASSES)
    assert [round(row["pannuke_bpq"], 4) for row in measured.rows] == [1, pytest.approx(nan, nan_ok=True), 0, 0.5, 0.5]
    figures = measured.figures
    assert figures["pannuke_bpq"].value == pytest.approx(2 / 3, abs=1e-6)
    assert figures["pannuke_bpq_sd"].value == pytest.approx(np.std([1, 1 / 3], ddof=1), abs=1e-6)
    assert figures["pq"].value == pytest.approx(0.5, abs=1e-6)
    assert (figures["pannuke_bpq"].images, figures["pannuke_bpq"].over) == (4, "groups")
    assert figures["pannuke_bpq"].low < 2 / 3 < figures["pannuke_bpq"].high
    assert figures["pannuke_bpq/a"].value == pytest.approx(1, abs=1e-6)
    area = 64 * 64 * (0.25e-3) ** 2  # two nuclei on an image without any, which PQ does not see
    assert figures["pannuke_false_positives_per_mm2"].value == pytest.approx(2 / area)
    assert figures["pannuke_false_positives_per_mm2"].images == 1


def test_a_wrong_class_costs_mpq_and_f1_but_not_bpq():
    labels = drawn((5, 5, 8, 8), (30, 30, 8, 8))
    sample = made(labels, ["neoplastic", "inflammatory"], "Skin")
    prediction = found(labels, ["neoplastic", "epithelial"])
    figures = values(protocol_figures([sample, sample], [prediction, prediction], CLASSES))
    assert figures["pannuke_bpq"] == pytest.approx(1, abs=1e-6)
    assert figures["pannuke_mpq"] == pytest.approx(0.5, abs=1e-6)
    assert figures["pannuke_pq_inflammatory"] == 0
    assert isnan(figures["pannuke_pq_epithelial"]), "no truth of that class: left out, whatever is predicted"
    assert isnan(figures["classification_f1_hungarian_dead"]), "absent from both sides"
    assert figures["classification_f1_hungarian_inflammatory"] == 0
    assert figures["classification_f1_hungarian_epithelial"] == 0
    assert figures["detection_f1_hungarian"] == 1


def test_detection_and_classes_are_pooled_over_the_images():
    """Of 4 truths and 3 predictions 2 are pairs, 1 of them of the right class; image means would differ."""
    truth = [drawn((5, 5, 8, 8), (30, 30, 8, 8), (50, 50, 8, 8)), drawn((5, 5, 8, 8))]
    guess = [drawn((5, 5, 8, 8)), drawn((5, 5, 8, 8), (50, 50, 8, 8))]
    samples = [made(truth[0], ["neoplastic"] * 3, "a"), made(truth[1], ["dead"], "a")]
    predictions = [found(guess[0], ["neoplastic"]), found(guess[1], ["neoplastic", "dead"])]
    figures = values(protocol_figures(samples, predictions, CLASSES))
    kinds = ("precision", "recall", "f1")
    assert [figures[f"detection_{k}_hungarian"] for k in kinds] == pytest.approx([2 / 3, 2 / 4, 4 / 7])
    # neoplastic: TP 1, FP_c 1 (a pair whose truth is dead), FN_d 2; dead: FN_c 1, FP_d 1
    assert [figures[f"classification_{k}_hungarian_neoplastic"] for k in kinds] == pytest.approx([1 / 3, 1 / 3, 2 / 6])
    assert [figures[f"classification_{k}_hungarian_dead"] for k in kinds] == [0, 0, 0]
    # each class alone: the dead nucleus at (5, 5) is missed, and the one predicted is elsewhere
    assert [figures[f"classification_{k}_greedy_neoplastic"] for k in kinds] == pytest.approx([1 / 2, 1 / 3, 2 / 5])


def test_without_classes_there_is_binary_pq_alone(tmp_path):
    samples = load(read_layout("pannuke", write_pannuke(tmp_path, (3, 0, 0))))
    predictions = [Found(s.labels, np.zeros(s.labels.max(), int), np.ones(s.labels.max())) for s in samples]
    measured = protocol_figures(samples, predictions, ("nucleus",))
    assert measured.figures["pannuke_bpq"].value == pytest.approx(1, abs=1e-6)
    assert "pannuke_mpq" not in measured.figures
    assert "pannuke_mpq" not in measured.rows[0]
    with pytest.raises(FormatError, match="fold1_0000: its objects have no classes, accepted: neoplastic, inflam"):
        protocol_figures(samples, predictions, CLASSES)
    with pytest.raises(FormatError, match="2 predictions for 3 images, expected one an image"):
        protocol_figures(samples, predictions[:2], ("nucleus",))


def test_conseps_table_has_its_seven_figures_and_none_of_pannukes(tmp_path):
    classes = ("miscellaneous", "inflammatory", "epithelial", "spindle")
    samples = load(read_layout("consep", write_consep(tmp_path)), classes=classes)
    predictions = [Found(s.labels, np.array([classes.index(k) for k in s.classes]), np.ones(9)) for s in samples]
    figures = values(protocol_figures(samples, predictions, classes))
    table = ["pixel_dice", "aji", "dq", "sq", "pq", "detection_f1_hungarian"]
    table += [f"classification_f1_hungarian_{name}" for name in classes]
    assert [figures[name] for name in table] == pytest.approx([1] * len(table), abs=1e-6)
    assert not any(name.startswith("pannuke") for name in figures)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Measures a fold by the command line, of a model that knows the truth but for a class."""

    def measure(split, out, wrong):
        def evaluate(checkpoint, samples, device, precision):
            known = [replace(one, class_index=np.where(one.class_index == wrong, 0, one.class_index)) for one in
                     truths(samples)]  # fmt: skip
            return protocol_figures(samples, known, CLASSES)

        data = tmp_path / "PanNuke"
        if not data.exists():
            write_pannuke(data, (6, 4, 5))
        out.mkdir()
        (out / "best.safetensors").write_bytes(out.name.encode())
        card = {"method": "sam", "seed": 0, "classes": list(CLASSES)}
        monkeypatch.setattr(parts, "read_state", lambda path: ({}, card))
        monkeypatch.setitem(METHODS, "sam", replace(METHODS["sam"], evaluate=evaluate))
        words = ["train", "sam", "--layout=pannuke", f"--split={split}", f"--data={data}", f"--out={out}"]
        assert main([*words, "--evaluate=test", "--device=cpu"]) == 0
        return out / "test.json"

    return measure


def test_measuring_a_part_tells_what_is_no_mean_over_images_too(tmp_path, run):
    report = json.loads(run("pannuke-321", tmp_path / "run", 1).read_text())
    assert [row["image"][:5] for row in report["per_image"]] == ["fold1"] * 6
    figures = report["figures"]
    assert figures["pannuke_mpq"]["over"] == "groups"
    assert figures["pannuke_mpq"]["value"] < figures["pannuke_bpq"]["value"] == pytest.approx(1, abs=1e-6)
    assert figures["detection_f1_hungarian"]["over"] == "pooled"
    assert figures["truth_objects"]["over"] == "total"
    assert figures["pixel_dice"]["over"] == "mean"
    table = (tmp_path / "run" / "test.tsv").read_text().splitlines()
    assert len(table) == 7
    assert "pannuke_mpq" in table[0]


def test_the_three_folds_are_combined(tmp_path, run, capsys):
    names = ("pannuke-123", "pannuke-213", "pannuke-321")
    reports = [str(run(name, tmp_path / name, wrong)) for wrong, name in enumerate(names)]
    capsys.readouterr()
    assert main(["average", *reports, "--out", str(tmp_path / "mean.json")]) == 0
    figures = json.loads((tmp_path / "mean.json").read_text())["figures"]
    assert figures["pannuke_bpq"]["value"] == pytest.approx(1, abs=1e-6)
    values = figures["pannuke_mpq"]["values"]
    assert values[0] > values[1]
    assert figures["pannuke_mpq"]["value"] == pytest.approx(np.mean(values))
    assert "pannuke_mpq/Breast" in capsys.readouterr().out
