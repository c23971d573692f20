"""PanNuke and CoNSeP, each on a small copy made here."""

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from gigaseg.errors import ConfigError, FormatError
from gigaseg.metrics.pannuke import CLASSES, FOLDS
from gigaseg.train.cfrsam.layouts import CONSEP, CONSEP_TYPES
from gigaseg.train.data import load
from gigaseg.train.layouts import read_layout
from gigaseg.train.splits import split
from published_cfrsam import TISSUES, pannuke_fold, write_consep, write_pannuke
from training import discs


@pytest.mark.parametrize(
    "spelling",
    [
        "Fold {0}/{kind}/fold{0}",
        "fold_{0}/Fold {0}/{kind}/fold{0}",
        "fold{0}/{kind}",
        "fold-{0}",
        "{kind}/fold{0}",
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_pannuke_is_its_folds_however_their_folders_are_spelt(tmp_path, spelling, dtype):
    entries = read_layout("pannuke", write_pannuke(tmp_path, (4, 1, 2), spelling=spelling, dtype=dtype))
    assert [entry.name for entry in entries[3:6]] == ["fold1_0003", "fold2_0000", "fold3_0000"]
    assert [entry.group for entry in entries[:4]] == [*TISSUES, TISSUES[0]]
    images = pannuke_fold(4, 100)[0]
    for sample, image in zip(load(entries[:4], workers=2, classes=CLASSES), images):
        assert np.array_equal(sample.image, image.astype(np.uint8))


def test_pannuke_has_a_class_an_instance_and_later_channels_on_top(tmp_path):
    every, two, none, crossing = load(read_layout("pannuke", write_pannuke(tmp_path, (4, 0, 0)))[:4], classes=CLASSES)
    assert every.classes == CLASSES
    assert every.labels[[2, 2, 20, 20, 36], [2, 20, 2, 20, 20]].tolist() == [1, 2, 3, 4, 5]
    assert two.classes == ("neoplastic", "epithelial")
    assert none.classes == ()
    assert not none.labels.any()
    assert crossing.classes == ("neoplastic", "neoplastic", "inflammatory")
    assert crossing.labels[2, 14:26].tolist() == [0, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3]
    maps = crossing.class_maps()  # where the neoplastic nucleus lies below, its own map still has it
    assert tuple(maps) == CLASSES
    assert maps["neoplastic"][2, 14:26].tolist() == [0, *[99] * 10, 0]
    assert set(np.unique(maps["inflammatory"])) == {0, 4}


@pytest.mark.parametrize("folds", FOLDS)
def test_pannukes_splits_are_its_folds(tmp_path, folds):
    entries = read_layout("pannuke", write_pannuke(tmp_path, (4, 1, 2)))
    parts = split(entries, "pannuke-" + "".join(map(str, folds)))
    assert [{entry.whole for entry in found} for found in parts.values()] == [{f"fold{k}"} for k in folds]
    table = tmp_path / "own.tsv"  # a file may name folds as well
    table.write_text("image\tsplit\nfold1\ttest\nfold2\ttrain\nfold3\tval\n")
    assert [len(found) for found in split(entries, str(table)).values()] == [1, 2, 4]
    with pytest.raises(ConfigError, match=r"image 'fold1_0000' has no split.*pannuke-123, pannuke-213, pannuke-321"):
        split(entries)


def test_a_split_by_folds_needs_folds(tmp_path):
    with pytest.raises(ConfigError, match="--split is pannuke-123, but image 'train_1' is of no fold"):
        split(read_layout("consep", write_consep(tmp_path, 1, 1)), "pannuke-123")


def _saved(name, change):
    def harm(folder):
        path = next(folder.glob(f"Fold 1/**/{name}.npy"))
        np.save(path, change(np.load(path)))

    return harm


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: next(f.glob("Fold 1/**/masks.npy")).unlink(), "images.npy: its fold has no masks.npy; expected"),
        (lambda f: next(f.glob("Fold 1/**/types.npy")).unlink(), "images.npy: its fold has no types.npy; expected"),
        (lambda f: next(f.glob("Fold 1/**/images.npy")).write_bytes(b"PK"), "images.npy: cannot be read as an array"),
        (_saved("masks", lambda a: a[:1]), r"masks.npy: is \[1, 48, 48, 6\], expected \[2, 48, 48, 6\], as many as"),
        (_saved("masks", lambda a: a[..., :5]), r"masks.npy: is \[2, 48, 48, 5\] of float64, expected \(n, y, x, 6\)"),
        (_saved("masks", lambda a: a + 0.5), "masks.npy: image 0 has values that are no ids, expected whole numbers"),
        (_saved("images", lambda a: a / 255), "images.npy: image 0 has values of 0.* to 0.*, expected 0 to 255"),
        (_saved("images", lambda a: a * 9), "images.npy: image 0 has values of .*, expected 0 to 255"),
        (_saved("types", lambda a: a[:1]), "types.npy: is .1. of <U6, expected 2 names of tissues"),
    ],
)
def test_what_is_wrong_with_pannuke_is_told_in_one_line(tmp_path, harm, told):
    harm(write_pannuke(tmp_path, (2, 0, 0)))
    with pytest.raises(FormatError, match=told) as caught:
        load(read_layout("pannuke", tmp_path), classes=CLASSES)
    assert "\n" not in str(caught.value)


def test_a_folder_without_folds_is_no_pannuke(tmp_path):
    with pytest.raises(FormatError, match=r"no fold of PanNuke; expected 'Fold 1/images/fold1/images.npy'"):
        read_layout("pannuke", tmp_path / "none")


@pytest.mark.parametrize(("layout", "names"), [("consep", CONSEP), ("consep-types", CONSEP_TYPES)])
def test_consep_has_its_types_or_the_four_classes_that_papers_merge_them_into(tmp_path, layout, names):
    entries = read_layout(layout, write_consep(tmp_path))
    assert [(entry.name, entry.split) for entry in entries][2:4] == [("train_3", "train"), ("test_1", "test")]
    for seed, sample in enumerate(load(entries[:3], classes=tuple(dict.fromkeys(names)))):
        ids = np.unique(discs(seed, side=64, count=7, radius=5)[1])[1:]
        assert sample.classes == tuple(names[number - 1] for number in ids)
    assert {part: len(found) for part, found in split(entries).items()} == {"train": 3, "val": 0, "test": 2}


def test_a_type_that_consep_does_not_have_is_told_and_its_map_serves_as_well(tmp_path):
    path = write_consep(tmp_path, 1, 1) / "Train" / "Labels" / "train_1.mat"
    stored = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    first = tuple(dict.fromkeys(CONSEP))
    expected = load(read_layout("consep", tmp_path)[:1], classes=first)[0].classes
    del stored["inst_type"]
    savemat(path, stored)
    assert load(read_layout("consep", tmp_path)[:1], classes=first)[0].classes == expected
    savemat(path, {**stored, "type_map": stored["type_map"] + 7})
    with pytest.raises(FormatError, match=r"train_1\.mat: instance 1 has type 8, accepted: 1 to 7"):
        load(read_layout("consep", tmp_path)[:1], classes=first)
    del stored["type_map"]
    savemat(path, stored)
    with pytest.raises(FormatError, match=r"train_1\.mat: states no types, expected inst_type or type_map"):
        load(read_layout("consep", tmp_path)[:1], classes=first)
