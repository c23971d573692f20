"""The layout of GlaS, on a small copy made here."""

import numpy as np
import pytest
from PIL import Image

from gigaseg.errors import ConfigError, FormatError
from gigaseg.train.data import load
from gigaseg.train.layouts import read_layout
from gigaseg.train.splits import split
from published import IMAGES, write_glas
from training import discs


@pytest.fixture
def folder(tmp_path):
    return write_glas(tmp_path / "glas")


def test_glas_is_its_images_with_their_glands_grades_and_parts(folder):
    entries = read_layout("glas", folder)
    assert {entry.name: (int(entry.patient), entry.group) for entry in entries} == IMAGES
    parts = split(entries)
    assert {part: len(found) for part, found in parts.items()} == {"train": 5, "val": 0, "test": 3}
    for sample in load(parts["test"]):
        image, labels = (a[:48] for a in discs(list(IMAGES).index(sample.name), side=64, count=3))
        assert np.array_equal(sample.image, image)
        assert np.array_equal(sample.labels > 0, labels > 0)
        assert sample.labels.max() == len(np.unique(labels)) - 1  # 1, 2, 9 are 1, 2, 3


def test_without_the_table_there_are_parts_and_no_grades(folder):
    (folder / "Grade.csv").unlink()
    entries = read_layout("glas", folder)
    assert {(entry.group, entry.patient) for entry in entries} == {("", "")}
    parts = split(entries, "own-val-20")
    assert {part: len(found) for part, found in parts.items()} == {"train": 4, "val": 1, "test": 3}


@pytest.mark.parametrize("seed", range(8))
def test_a_fifth_of_each_grade_is_held_out_by_whole_patients(folder, seed):
    parts = split(read_layout("glas", folder), "own-val-20", seed=seed)
    assert [entry.name for entry in parts["test"]] == ["testA_1", "testA_2", "testB_1"]
    patients = {part: {entry.patient for entry in parts[part]} for part in ("train", "val")}
    assert not patients["train"] & patients["val"]
    assert {entry.group for entry in parts["val"]} == {"benign", "malignant"}
    assert len(parts["train"]) + len(parts["val"]) == 5
    again = split(read_layout("glas", folder)[::-1], "own-val-20", seed=seed)
    assert {entry.name for entry in again["val"]} == {entry.name for entry in parts["val"]}


def test_a_data_set_that_states_a_validation_part_keeps_it(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / part / "a.png")
    (tmp_path / "index.tsv").write_text("image\tsplit\na\tval\n")
    with pytest.raises(ConfigError, match="has a validation part of its own; accepted: own"):
        split(read_layout("plain", tmp_path), "own-val-20")


def rows(folder, change):
    path = folder / "Grade.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: (f / "train_2_anno.bmp").unlink(), "train_2.bmp: has no counterpart; expected train_2.bmp and"),
        (lambda f: (f / "testA_1.bmp").unlink(), "testA_1_anno.bmp: has no counterpart"),
        (lambda f: [path.unlink() for path in f.glob("*.bmp")], "glas: no train_N.bmp, testA_N.bmp or testB_N.bmp"),
        (lambda f: rows(f, lambda r: r[:-1]), "Grade.csv: no row of image 'testB_1'"),
        (
            lambda f: rows(f, lambda r: ["name, grade (GlaS)", *r[1:]]),
            "no column patient ID; found: name, grade (GlaS)",
        ),
        (lambda f: rows(f, lambda r: [*r[:-1], "testB_1,7, unsure, x"]), "grade of 'testB_1' is 'unsure', accepted"),
        (lambda f: rows(f, lambda r: []), "no column name, patient ID, grade (GlaS)"),
        (lambda f: (f / "Grade.csv").write_bytes(b"\xff\xfe\x00"), "Grade.csv: cannot be read"),
        (lambda f: (f / "train_1_anno.bmp").write_bytes(b"no picture"), "train_1_anno.bmp: cannot be read"),
        (lambda f: Image.new("L", (9, 9)).save(f / "train_1_anno.bmp"), "train_1.bmp: 64 × 48 px, but its label image"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(folder, harm, told):
    harm(folder)
    with pytest.raises(FormatError) as caught:
        load(read_layout("glas", folder))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
