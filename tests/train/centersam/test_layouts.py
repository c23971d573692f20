"""The layouts of the published protocols, each on a small copy made here."""

import numpy as np
import pytest
from PIL import Image

from gigaseg.errors import FormatError
from gigaseg.train.data import load
from gigaseg.train.layouts import read_layout
from gigaseg.train.splits import split

REGION = '<Region Id="{0}"><Vertices>{1}</Vertices></Region>'
NAMES = ("TCGA-A7-A13E-01Z-00-DX1", "TCGA-B0-5711-01Z-00-DX1")


def rectangle(number, x0, y0, x1, y1):
    corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    return REGION.format(number, "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners))


@pytest.fixture
def monuseg(tmp_path):
    """Two images of 31 x 34 px with two nuclei; the second lies over the border of two crops."""
    for part in ("Tissue Images", "Annotations"):
        (tmp_path / part).mkdir()
    for seed, name in enumerate(NAMES):
        pixels = np.random.default_rng(seed).integers(0, 255, (31, 34, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "Tissue Images" / f"{name}.tif")
        regions = rectangle(1, 2, 2, 6, 5) + rectangle(2, 8, 12, 15, 16)
        text = f"<Annotations><Annotation><Regions>{regions}</Regions></Annotation></Annotations>"
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    return tmp_path


def test_monuseg_is_cut_into_nine_crops_without_the_last_row_and_column(monuseg):
    entries = read_layout("monuseg-crops", monuseg)
    assert len({entry.name for entry in entries}) == len(entries) == 18
    whole = load(read_layout("monuseg", monuseg))
    crops = {sample.name: sample for sample in load(entries, workers=2)}
    for sample in whole:
        for row in range(3):
            for col in range(3):
                crop = crops[f"{sample.name}-{row}{col}"]
                place = (slice(10 * row, 10 * row + 10), slice(11 * col, 11 * col + 11))
                assert np.array_equal(crop.image, sample.image[place])
                assert np.array_equal(crop.labels > 0, sample.labels[place] > 0)
    first, second = crops[f"{NAMES[0]}-10"], crops[f"{NAMES[0]}-11"]
    assert (first.labels.max(), (first.labels > 0).sum()) == (1, 12)
    assert (second.labels.max(), (second.labels > 0).sum()) == (1, 16)
    assert first.group == "TCGA-A7-A13E"


def test_a_split_of_images_holds_for_their_crops(monuseg):
    path = monuseg / "split.tsv"
    path.write_text(f"image\tsplit\n{NAMES[0]}\ttrain\n{NAMES[1]}\tval\n")
    parts = split(read_layout("monuseg-crops", monuseg), str(path))
    assert {part: len(found) for part, found in parts.items()} == {"train": 9, "val": 9, "test": 0}
    assert all(entry.name.startswith(NAMES[1]) for entry in parts["val"])
    path.write_text(f"image\tsplit\n{NAMES[0]}\ttrain\n")
    with pytest.raises(FormatError, match=f"image '{NAMES[1]}-00' has split 'None'"):
        split(read_layout("monuseg-crops", monuseg), str(path))


def archive(path, count, side, seed=0, **others):
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 4000, (count, side, side, 2)).astype(np.float32)
    labels = np.zeros((count, side, side, 2), np.int32)
    labels[:, 1:5, 1:4, 0] = 7
    labels[:, 2:4, 2:4, 1] = 40 + np.arange(count)[:, None, None]
    np.savez_compressed(path, X=images, y=labels, **others)
    return images, labels


def test_tissuenet_is_its_nuclear_channels_in_its_official_parts(tmp_path):
    images, labels = archive(tmp_path / "tissuenet_v1.0_train.npz", 3, 8, tissue_list=np.array(["gi", "skin", "gi"]))
    archive(tmp_path / "tissuenet_v1.0_val.npz", 2, 6, 1)
    archive(tmp_path / "tissuenet_v1.0_test.npz", 1, 6, 2)
    parts = split(read_layout("tissuenet", tmp_path))
    assert {part: len(found) for part, found in parts.items()} == {"train": 3, "val": 2, "test": 1}
    found = load(parts["train"])
    assert [sample.group for sample in found] == ["gi", "skin", "gi"]
    assert found[2].name == "tissuenet_v1.0_train-00002"
    for sample, image, label in zip(found, images, labels, strict=True):
        assert sample.image.shape == (8, 8, 3)
        assert (sample.image == sample.image[..., :1]).all()
        assert (sample.image.min(), sample.image.max()) == (0, 255)
        order = image[..., 0].ravel().argsort()
        assert (np.diff(sample.image[..., 0].ravel()[order].astype(int)) >= 0).all()
        assert np.array_equal(sample.labels, label[..., 1] > 0)


def test_an_image_without_signal_becomes_black(tmp_path):
    empty = np.zeros((1, 4, 4, 2), np.float32)
    np.savez(tmp_path / "val.npz", X=empty, y=empty.astype(np.int32))
    (sample,) = load(read_layout("tissuenet", tmp_path))
    assert sample.image.max() == sample.labels.max() == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"X": np.zeros((2, 4, 4, 2))}, r"train\.npz: y cannot be read"),
        ({"X": np.zeros((2, 4, 4)), "y": np.zeros((2, 4, 4, 2))}, r"X is \[2, 4, 4\] and y \[2, 4, 4, 2\], expected"),
        ({"X": np.zeros((2, 4, 4, 2)), "y": np.zeros((1, 4, 4, 2))}, r"train\.npz: X is \[2, 4, 4, 2\] and y"),
    ],
)
def test_an_archive_of_other_content_is_told_in_one_line(tmp_path, content, told):
    np.savez(tmp_path / "train.npz", **content)
    with pytest.raises(FormatError, match=told):
        read_layout("tissuenet", tmp_path)


def test_a_damaged_archive_or_none_is_told_in_one_line(tmp_path):
    with pytest.raises(FormatError, match="expected the TissueNet layout"):
        read_layout("tissuenet", tmp_path)
    path = tmp_path / "train.npz"
    archive(path, 1, 16)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"train\.npz: X cannot be read"):
        read_layout("tissuenet", tmp_path)
    path.write_bytes(whole)
    archive(tmp_path / "training.npz", 1, 16)
    with pytest.raises(FormatError, match="2 archives are of the part 'train', expected one"):
        read_layout("tissuenet", tmp_path)
