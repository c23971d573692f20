"""The layouts of DenseSAM's data sets, each on a small copy made here."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.io import savemat

from gigaseg.cli import main
from gigaseg.errors import ConfigError, FormatError
from gigaseg.train.data import load
from gigaseg.train.densesam.conic import CLASSES, parts
from gigaseg.train.layouts import LAYOUTS, read_layout
from gigaseg.train.splits import split
from published import write_monuseg
from published_densesam import (
    SOURCES,
    write_conic,
    write_cpm15,
    write_cpm17,
    write_inria,
    write_massachusetts,
    write_whu,
)
from training import discs

PATIENTS = ("TCGA-A7-A13E-01Z-00-DX1", "TCGA-B0-5711-01Z-00-DX1")


def counted(entries, name="own"):
    return {part: len(found) for part, found in split(entries, name).items()}


def objects(mask):
    """Components that touch by sides or corners."""
    return ndimage.label(mask, np.ones((3, 3)))[1]


def test_conic_is_its_patches_with_their_classes_and_the_images_that_they_are_of(tmp_path):
    entries = read_layout("conic", write_conic(tmp_path))
    assert [entry.name for entry in entries[:2]] == ["consep_1-0000", "consep_2-0001"]
    assert [entry.whole for entry in entries] == [entry.patient for entry in entries] == list(SOURCES) * 3
    assert {entry.group for entry in entries} == {"consep", "crag", "glas"}
    for seed, sample in enumerate(load(entries, workers=2, classes=CLASSES)):
        image, labels = discs(seed, side=48, count=3)
        assert np.array_equal(sample.image, image)
        assert np.array_equal(sample.labels > 0, labels > 0)
        assert sample.classes == tuple(CLASSES[number - 1] for number in np.unique(labels)[1:])


def test_a_nucleus_of_class_0_has_none_and_one_of_class_7_is_told(tmp_path):
    write_conic(tmp_path, count=2)
    labels = np.load(tmp_path / "labels.npy")
    labels[0, ..., 1] = 0
    labels[1, ..., 1] *= 7
    np.save(tmp_path / "labels.npy", labels)
    first, second = read_layout("conic", tmp_path)
    assert load([first, second])[0].classes is None
    with pytest.raises(FormatError, match=r"labels\.npy: instance 1 of image 'consep_1-0000' has no class"):
        load([first], classes=CLASSES)
    with pytest.raises(FormatError, match=r"instance 1 of patch 1 has class 7, accepted: 1 to 6 \(neutrophil, epi"):
        load([second], classes=CLASSES)


def test_conic_is_divided_as_the_published_code_divides_it():
    """The first indices of each part as scikit-learn 1.9.1 draws them from 4981 patches, states being 42."""
    found = np.array(parts(4981))
    assert Counter(found.tolist()) == {"train": 3486, "val": 997, "test": 498}
    assert np.flatnonzero(found == "test")[:5].tolist() == [8, 12, 26, 31, 32]
    assert np.flatnonzero(found == "val")[:5].tolist() == [14, 17, 19, 23, 29]
    assert set(found[[4260, 1658, 1151, 3975, 647]]) == {"train"}
    assert set(found[[166, 2197, 1519, 1654, 2986]]) == {"val"}
    assert set(found[[577, 3552, 2817, 1427, 1626]]) == {"test"}
    assert Counter(parts(37)) == {"train": 25, "val": 8, "test": 4}


def test_conic_without_its_table_has_numbered_patches_and_no_patients(tmp_path):
    entries = read_layout("conic", write_conic(tmp_path, table=False))
    assert (entries[11].name, entries[11].whole, entries[11].patient, entries[11].group) == ("patch-0011", "", "", "")
    assert counted(entries) == Counter(parts(12))


def test_a_patch_is_read_from_the_mapped_array_alone(tmp_path):
    entries = read_layout("conic", write_conic(tmp_path))
    pixels = entries[3].pixels()
    assert pixels.base is None  # a copy, that keeps no map open
    assert pixels.shape == (48, 48, 3)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: (f / "images.npy").unlink(), "images.npy: cannot be read as an array"),
        (lambda f: cut(f / "labels.npy"), "labels.npy: cannot be read as an array"),
        (lambda f: (f / "labels.npy").write_bytes(b"no array"), "labels.npy: cannot be read as an array"),
        (
            lambda f: np.save(f / "images.npy", np.zeros((12, 8, 8, 3))),
            "images.npy: is [12, 8, 8, 3] of float64, expected (n, y, x, 3) of uint8",
        ),
        (
            lambda f: np.save(f / "labels.npy", np.zeros((12, 48, 48), int)),
            "labels.npy: is [12, 48, 48] of int64, expected (n, y, x, 2) of whole numbers",
        ),
        (
            lambda f: np.save(f / "labels.npy", np.zeros((11, 48, 48, 2), int)),
            "labels.npy: is [11, 48, 48, 2], expected [12, 48, 48, 2], as many patches as",
        ),
        (lambda f: (f / "patch_info.csv").write_text("name\na-1\n"), "no column patch_info; found: name"),
        (lambda f: (f / "patch_info.csv").write_text(""), "no column patch_info; found: "),
        (
            lambda f: (f / "patch_info.csv").write_text("patch_info\na_1-0\na_1-0\n"),
            "names 1 patches in 2 rows, expected one for each of 12 patches",
        ),
        (lambda f: (f / "patch_info.csv").write_bytes(b"\xff\xfe\x00"), "patch_info.csv: cannot be read"),
    ],
)
def test_a_wrong_file_of_conic_is_named_in_one_line(tmp_path, harm, told):
    harm(write_conic(tmp_path))
    with pytest.raises(FormatError) as caught:
        read_layout("conic", tmp_path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cpm17_is_its_images_in_two_parts_and_cpm15_in_none(tmp_path):
    entries = read_layout("cpm17", write_cpm17(tmp_path / "17"))
    assert counted(entries) == {"train": 3, "val": 0, "test": 2}
    assert [entry.name for entry in entries if entry.split == "test"] == ["test-image_00", "test-image_01"]
    for seed, sample in enumerate(load(entries[:3])):
        image, labels = discs(seed, side=50, count=3)
        assert np.array_equal(sample.image, image)
        assert np.array_equal(sample.labels > 0, labels > 0)
    alone = read_layout("cpm15", write_cpm15(tmp_path / "15"))
    assert [(entry.name, entry.split) for entry in alone] == [("image_00", ""), ("image_01", "")]
    with pytest.raises(ConfigError, match="image 'image_00' has no split"):
        split(alone)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: (f / "test" / "Labels" / "image_01.mat").unlink(), "image_01.png: has no counterpart; expected"),
        (lambda f: (f / "test").rename(f / "tset"), "Images: no such folder; expected files .png in it"),
        (lambda f: [p.unlink() for p in (f / "train" / "Labels").iterdir()], "Labels: holds no file .mat"),
        (lambda f: cut(f / "train" / "Labels" / "image_00.mat"), "image_00.mat: cannot be read as a MAT file"),
        (
            lambda f: savemat(f / "train" / "Labels" / "image_00.mat", {"x": 1}),
            "has the variables x; expected inst_map",
        ),
        (
            lambda f: savemat(f / "train" / "Labels" / "image_00.mat", {"inst_map": np.full((50, 50), 0.5)}),
            "inst_map is [50, 50] of float64, expected (y, x) of whole ids",
        ),
        (
            lambda f: savemat(f / "train" / "Labels" / "image_00.mat", {"inst_map": np.ones((9, 9, 2))}),
            "inst_map is [9, 9, 2] of float64",
        ),
        (
            lambda f: savemat(f / "train" / "Labels" / "image_00.mat", {"inst_map": np.ones((40, 50))}),
            "image_00.png: 50 × 50 px, but its label image has 50 × 40 px",
        ),
    ],
)
@pytest.mark.parametrize("layout", ["cpm17", "cpm17-tiles"])
def test_a_wrong_file_of_cpm17_is_named_in_one_line(tmp_path, layout, harm, told):
    harm(write_cpm17(tmp_path, train=1))
    with pytest.raises(FormatError) as caught:
        load(read_layout(layout, tmp_path))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cpm17_in_tiles_is_scaled_to_1024_px_and_quartered(tmp_path):
    write_cpm17(tmp_path, train=1, test=1, side=64)
    image, labels = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.int32)
    image[:, 32:] = 160
    labels[:, 30:34] = 1
    labels[60:, 60:] = 2
    Image.fromarray(image).save(tmp_path / "train" / "Images" / "image_00.png")
    savemat(tmp_path / "train" / "Labels" / "image_00.mat", {"inst_map": labels})
    entries = read_layout("cpm17-tiles", tmp_path)
    assert counted(entries) == {"train": 4, "val": 0, "test": 4}
    found = {sample.name: sample for sample in load(entries[:4], workers=2)}
    assert list(found) == [f"train-image_00-{place}" for place in ("00", "01", "10", "11")]
    left, right = found["train-image_00-00"], found["train-image_00-11"]
    assert left.image.shape == (512, 512, 3)
    # a nearest label is a block of 16 px, a bilinear edge a ramp of 16 px that is centred on it
    assert np.array_equal(left.labels, np.repeat(np.arange(512)[None] >= 480, 512, 0))
    assert np.unique(right.labels, return_counts=True)[1].tolist() == [512**2 - 32 * 512 - 64**2, 32 * 512, 64**2]
    assert left.image[0, 504:, 0].tolist() == [5, 15, 25, 35, 45, 55, 65, 75]
    assert right.image[0, :8, 0].tolist() == [85, 95, 105, 115, 125, 135, 145, 155]
    assert (left.image[:, :504].max(), right.image[:, 8:].min()) == (0, 160)


def test_tiles_of_an_image_are_not_divided_where_images_are_held_out(tmp_path):
    write_cpm17(tmp_path, train=10, test=1)
    divided = split(read_layout("cpm17-tiles", tmp_path), "own-val-20")
    assert {part: len(found) for part, found in divided.items()} == {"train": 32, "val": 8, "test": 4}
    assert len({entry.whole for entry in divided["val"]}) == 2


def test_monuseg_in_tiles_is_filled_at_its_own_size_and_scaled(tmp_path):
    write_monuseg(tmp_path, PATIENTS, side=64)
    entries = read_layout("monuseg-tiles", tmp_path)
    assert len({entry.name for entry in entries}) == 32
    assert {entry.group for entry in entries} == {"TCGA-A7-A13E", "TCGA-B0-5711"}
    found = load(entries[:16], workers=2)
    (whole, _) = load(read_layout("monuseg", tmp_path))
    large = np.repeat(np.repeat(whole.labels, 16, 0), 16, 1)
    for place, sample in enumerate(found):
        y, x = (256 * k for k in divmod(place, 4))
        assert sample.name == f"{PATIENTS[0]}-{y // 256}{x // 256}"
        assert sample.image.shape == (256, 256, 3)
        assert np.array_equal(sample.labels > 0, large[y : y + 256, x : x + 256] > 0)
    listed = tmp_path / "split.tsv"
    listed.write_text(f"image\tsplit\n{PATIENTS[0]}\ttrain\n{PATIENTS[1]}\tval\n")
    assert counted(entries, str(listed)) == {"train": 16, "val": 16, "test": 0}


def test_whu_is_its_three_parts_and_an_instance_what_touches(tmp_path):
    write_whu(tmp_path)
    mask = np.zeros((64, 64), np.uint8)
    mask[2:5, 2:5] = mask[5:8, 5:8] = mask[9:12, 9:12] = 255  # the first two touch by their corners
    Image.fromarray(mask).save(tmp_path / "val" / "label" / "0.tif")
    entries = read_layout("whu", tmp_path)
    assert counted(entries) == {"train": 3, "val": 2, "test": 2}
    assert len({entry.name for entry in entries}) == 7
    samples = {sample.name: sample for sample in load(entries)}
    val = samples["val-0"]
    assert val.labels.max() == 2
    assert val.labels[3, 3] == val.labels[6, 6] != val.labels[10, 10]
    assert samples["train-2"].labels.max() == objects(discs(2, side=64, count=3)[1] > 0)


def test_inria_is_cut_into_tiles_of_512_px_of_the_mirrored_image(tmp_path):
    entries = read_layout("inria", write_inria(tmp_path))
    assert counted(entries) == {"train": 8, "val": 16, "test": 0}
    assert {entry.group for entry in entries} == {"austin", "tyrol-w"}
    assert {entry.whole for entry in entries if entry.split == "train"} == {"austin6", "tyrol-w6"}
    found = load(entries[:4], workers=2)
    assert [sample.name for sample in found] == [f"austin1-{place}" for place in ("00", "01", "10", "11")]
    rows = [np.concatenate([found[2 * row + col].image for col in range(2)], 1) for row in range(2)]
    padded = np.concatenate(rows)
    with Image.open(entries[0].image) as picture:
        image = np.asarray(picture)
    assert padded.shape == (1024, 1024, 3)
    assert np.array_equal(padded[212:812, 212:812], image)
    assert np.array_equal(padded[:212, 212:812], image[212:0:-1])
    assert np.array_equal(padded[212:812, 812:], image[:, -2:-214:-1])
    for sample in found:
        assert sample.labels.max() == objects(sample.labels > 0)
    labels = np.concatenate([found[0].labels, found[1].labels], 1)[212:, 212:512]
    _, ids = discs(1, side=300, count=3)
    assert np.array_equal(labels > 0, ids > 0)


def test_inria_buildings_are_the_tiles_that_show_some(tmp_path):
    write_inria(tmp_path, cities=("austin",), numbers=(5, 6))
    with_all, with_some = (read_layout(name, tmp_path) for name in ("inria", "inria-buildings"))
    shown = [sample.name for sample in load(with_all) if sample.labels.any()]
    assert [entry.name for entry in with_some] == shown
    assert 2 <= len(shown) < len(with_all) == 8
    assert all(sample.labels.any() for sample in load(with_some))


def test_more_than_ten_tiles_a_side_have_names_of_their_own(tmp_path):
    write_inria(tmp_path, cities=("austin",), numbers=(1,), side=512 * 2)
    for path in tmp_path.glob("train/*/*.tif"):
        Image.new("L", (512 * 11 - 4, 512)).save(path)
    entries = read_layout("inria", tmp_path)
    assert [entry.name for entry in entries] == [f"austin1-00{col:02d}" for col in range(11)]


def test_massachusetts_is_cut_into_nine_and_its_buildings_are_red(tmp_path):
    entries = read_layout("massachusetts", write_massachusetts(tmp_path))
    assert counted(entries) == {"train": 18, "val": 9, "test": 9}
    assert counted(read_layout("massachusetts", tmp_path / "tiff")) == counted(entries)
    _, labels = discs(0, side=90, count=3)
    for sample in load(entries[:9]):
        row, col = (30 * int(digit) for digit in sample.name[-2:])
        assert sample.name.startswith("train-22670915_15-")
        assert np.array_equal(sample.labels > 0, labels[row : row + 30, col : col + 30] > 0)
        assert sample.labels.max() == objects(sample.labels > 0)


@pytest.mark.parametrize(
    ("layout", "write", "harm", "told"),
    [
        ("whu", write_whu, lambda f: (f / "test" / "label" / "1.tif").unlink(), "1.tif: has no counterpart; expected"),
        ("whu", write_whu, lambda f: (f / "val").rename(f / "valid"), "image: no such folder; expected files .tif or"),
        (
            "whu",
            write_whu,
            lambda f: Image.new("L", (64, 64), 1).save(f / "train" / "label" / "0.tif"),
            "0.tif: has the value 1, accepted: 255 on buildings and 0 elsewhere",
        ),
        ("whu", write_whu, lambda f: cut(f / "train" / "image" / "0.tif"), "0.tif: cannot be read as an image"),
        (
            "whu",
            write_whu,
            lambda f: Image.new("L", (60, 64)).save(f / "train" / "label" / "0.tif"),
            "0.tif: 64 × 64 px, but its label image has 60 × 64 px",
        ),
        ("inria", write_inria, lambda f: (f / "train" / "gt" / "austin6.tif").unlink(), "austin6.tif: has no counter"),
        (
            "inria",
            write_inria,
            lambda f: [path.rename(path.with_name("6.tif")) for path in sorted(f.glob("train/*/austin6.tif"))],
            "6.tif: name is '6', accepted: a city and a number, such as austin1.tif",
        ),
        (
            "inria",
            write_inria,
            lambda f: (f / "train" / "images" / "austin6.tif").write_bytes(b"II*"),
            "austin6.tif: cannot be read as an image",
        ),
        ("inria-buildings", write_inria, lambda f: cut(f / "train" / "gt" / "austin5.tif"), "austin5.tif: cannot be"),
        (
            "inria-buildings",
            write_inria,
            lambda f: Image.new("L", (600, 600), 7).save(f / "train" / "gt" / "austin1.tif"),
            "austin1.tif: has the value 7",
        ),
        (
            "massachusetts",
            write_massachusetts,
            lambda f: (f / "tiff" / "val_labels").rename(f / "labels"),
            "val_labels: no such folder",
        ),
        (
            "massachusetts",
            write_massachusetts,
            lambda f: Image.new("RGB", (90, 90), (9, 0, 0)).save(f / "tiff" / "val_labels" / "22670915_15.tif"),
            "22670915_15.tif: has the value 9",
        ),
    ],
)
def test_a_wrong_file_of_buildings_is_named_in_one_line(tmp_path, layout, write, harm, told):
    harm(write(tmp_path))
    with pytest.raises(FormatError) as caught:
        load(read_layout(layout, tmp_path))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_help_names_every_layout(capsys):
    with pytest.raises(SystemExit):
        main(["train", "sam", "--help"])
    told = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
    listed = told.partition("--layout LAYOUT plain")[2].partition(" (default")[0]
    assert sorted(f"plain{listed}".split(", ")) == sorted(LAYOUTS)
