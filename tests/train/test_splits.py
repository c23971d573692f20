"""Splits: the data set's own, the papers', and the committed files."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from gigaseg.errors import ConfigError, FormatError
from gigaseg.train.data import Entry
from gigaseg.train.layouts import read_layout
from gigaseg.train.splits import split

COMMITTED = Path(__file__).parents[2] / "splits"


def entries(names, **keys):
    return [Entry(name, Path(name), lambda shape: None, **keys) for name in names]


def rows(name):
    with (COMMITTED / name).open() as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_the_own_split_is_the_index(folder):
    parts = split(read_layout("plain", folder))
    assert {part: [e.name for e in found] for part, found in parts.items()} == {
        "train": ["s0", "s1", "s2"],
        "val": ["s3", "s4"],
        "test": [],
    }


def test_a_data_set_without_a_split_says_what_else_there_is():
    with pytest.raises(ConfigError, match=r"image 'a' has no split.*random-80-10-10"):
        split(entries(["a", "b"]))


def test_670_images_are_divided_as_in_the_papers_and_by_seed_alone():
    found = entries([f"{i:03d}" for i in range(670)])
    parts = split(found, "random-80-10-10", seed=3)
    assert {part: len(names) for part, names in parts.items()} == {"train": 536, "val": 67, "test": 67}
    again = split(found[::-1], "random-80-10-10", seed=3)
    assert {e.name for e in parts["test"]} == {e.name for e in again["test"]}
    other = split(found, "random-80-10-10", seed=4)
    assert {e.name for e in parts["test"]} != {e.name for e in other["test"]}


def test_the_committed_monuseg_split_keeps_patients_apart_and_has_six_organs():
    listed = rows("monuseg_24_6.tsv")
    assert Counter(row["split"] for row in listed) == {"train": 24, "val": 6}
    assert len({row["patient"] for row in listed}) == 30
    assert len({row["organ"] for row in listed if row["split"] == "val"}) == 6
    parts = split(entries([row["image"] for row in listed]), str(COMMITTED / "monuseg_24_6.tsv"))
    assert len(parts["train"]) == 24


def test_the_committed_folds_are_stratified_by_modality():
    listed = rows("dsb2018_folds.tsv")
    assert len(listed) == len({row["image"] for row in listed}) == 598
    count = Counter((row["modality"], row["fold"]) for row in listed)
    for modality in ("fluorescence", "purple", "brightfield"):
        sizes = [count[modality, str(fold)] for fold in range(5)]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) > 0


def test_a_fold_validates_and_the_others_train():
    listed = rows("dsb2018_folds.tsv")
    path = str(COMMITTED / "dsb2018_folds.tsv")
    parts = split(entries([row["image"] for row in listed]), path, fold=2)
    assert {e.name for e in parts["val"]} == {row["image"] for row in listed if row["fold"] == "2"}
    assert len(parts["train"]) + len(parts["val"]) == 598
    with pytest.raises(ConfigError, match=r"--fold is None, accepted with .*: 0, 1, 2, 3, 4"):
        split(entries(["a"]), path)


def test_a_file_that_misses_an_image_or_leaves_nothing_to_train_on_is_told(tmp_path):
    path = tmp_path / "split.tsv"
    path.write_text("image\tsplit\na\tval\n")
    with pytest.raises(FormatError, match=r"split\.tsv: image 'b' has split 'None'"):
        split(entries(["a", "b"]), str(path))
    with pytest.raises(ConfigError, match="leaves no image to train on; found: 0 train, 1 val"):
        split(entries(["a"]), str(path))
    with pytest.raises(ConfigError, match=r"accepted: own, own-val-20, own-val-15, .*pannuke-321, all, or a TSV file"):
        split(entries(["a"]), "nonsense")


def test_85_per_cent_train_and_15_validate():
    parts = split(entries([f"{i:02d}" for i in range(30)]), "random-85-15")
    assert {part: len(names) for part, names in parts.items()} == {"train": 25, "val": 5, "test": 0}


def test_at_least_15_per_cent_of_the_training_images_are_held_out():
    found = entries([f"{i:02d}" for i in range(32)], split="train") + entries(["t"], split="test")
    parts = split(found, "own-val-15")
    assert {part: len(names) for part, names in parts.items()} == {"train": 27, "val": 5, "test": 1}
    with pytest.raises(ConfigError, match="--split is own-val-15, but the data set has a validation part of its own"):
        split(entries(["a"], split="train") + entries(["b"], split="val"), "own-val-15")
