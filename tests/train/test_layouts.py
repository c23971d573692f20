"""Data sets are found in our plain folder and in the published layouts; bad files are named."""

import numpy as np
import pytest
from PIL import Image

from gigaseg.errors import FormatError
from gigaseg.train.data import consecutive, load, read_labels, read_rgb
from gigaseg.train.layouts import read_layout


def test_the_plain_folder_gives_images_labels_groups_and_splits(folder):
    entries = read_layout("plain", folder)
    assert [(e.name, e.group, e.split) for e in entries][:2] == [("s0", "a", "train"), ("s1", "b", "train")]
    first = load(entries)[0]
    assert first.image.shape == (96, 96, 3)
    assert first.labels.max() == len(np.unique(first.labels)) - 1
    assert first.background.tolist() == pytest.approx([20, 20, 20], abs=2)
    assert 14 < first.diameter < 18.5  # radius 9, some of it covered


def test_without_an_index_every_image_is_taken(folder):
    (folder / "index.tsv").unlink()
    assert [(e.name, e.split) for e in read_layout("plain", folder)] == [(f"s{i}", "") for i in range(5)]


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: (f / "images" / "s1.webp").unlink(), "s1"),
        (lambda f: (f / "labels" / "s2.png").unlink(), "s2.webp"),
        (lambda f: (f / "labels" / "s2.png").write_bytes(b"no picture"), "s2.png"),
        (lambda f: (f / "images" / "s0.webp").write_bytes(b""), "s0.webp"),
        (lambda f: Image.new("RGB", (96, 96)).save(f / "labels" / "s0.png"), "s0.png"),
        (lambda f: Image.new("I;16", (90, 96)).save(f / "labels" / "s0.png"), "s0.webp: 96 × 96 px"),
        (lambda f: (f / "index.tsv").write_text("name\nx\n"), "no column image"),
        (lambda f: (f / "index.tsv").write_text(""), "no column image"),
        (lambda f: (f / "images").rename(f / "pictures"), "images: no such folder"),
    ],
)
def test_a_bad_file_is_named_in_one_line(folder, harm, told):
    harm(folder)
    with pytest.raises(FormatError) as caught:
        load(read_layout("plain", folder))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def classes_of(folder, rows):
    (folder / "classes.tsv").write_text("image\tinstance\tclass\n" + "".join(f"{row}\n" for row in rows))
    return load(read_layout("plain", folder), classes=("round", "long"))


def numbered(folder):
    """Label images with the ids 7, 300 and 5, from left to right."""
    labels = np.zeros((96, 96), np.uint16)
    for x, number in ((0, 7), (30, 300), (60, 5)):
        labels[:20, x : x + 20] = number
    for path in (folder / "labels").iterdir():
        Image.fromarray(labels).save(path)
    return [f"s{i}\t{number}\t{name}" for i in range(5) for number, name in ((300, "long"), (5, "round"), (7, "long"))]


def test_classes_follow_their_instances_when_these_are_numbered_anew(folder):
    rows = numbered(folder)
    first = classes_of(folder, rows)[0]
    assert first.labels[0, [0, 30, 60]].tolist() == [2, 3, 1]
    assert first.classes == ("round", "long", "long")
    assert load(read_layout("plain", folder), classes=("cell",))[0].classes is None  # one class needs no table


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda rows: rows[:-1], r"classes\.tsv: instance 7 of image 's4' has no class, accepted: round, long"),
        (
            lambda rows: [*rows[:3], "s1\t300\tlarge", *rows[4:]],
            r"classes\.tsv: instance 300 of image 's1' has class 'large', accepted: round, long",
        ),
        (lambda rows: [*rows, "s0\tx\tlong"], r"classes\.tsv: instance of image 's0' is 'x', accepted: a whole number"),
        (lambda rows: [*rows, "s0\t5\tlong"], r"classes\.tsv: instance 5 of image 's0' has two classes, accepted: one"),
    ],
)
def test_an_instance_without_a_known_class_is_named_in_one_line(folder, harm, told):
    with pytest.raises(FormatError, match=told):
        classes_of(folder, harm(numbered(folder)))


def test_an_unknown_layout_lists_the_known_ones(folder):
    with pytest.raises(FormatError, match=r"unknown layout 'plane'; accepted: plain, dsb2018.*did you mean 'plain'"):
        read_layout("plane", folder)


def test_the_data_science_bowl_layout_joins_the_masks_of_an_image(tmp_path):
    case = tmp_path / "stage1_train" / "00ab"
    for part in ("images", "masks"):
        (case / part).mkdir(parents=True)
    Image.new("RGBA", (7, 5), (10, 20, 30, 255)).save(case / "images" / "00ab.png")
    first, second = np.zeros((5, 7), np.uint8), np.zeros((5, 7), np.uint8)
    first[1:3, 1:4] = 255
    second[3:5, 5:7] = 255
    Image.fromarray(first).save(case / "masks" / "a.png")
    Image.fromarray(second).save(case / "masks" / "b.png")
    (found,) = load(read_layout("dsb2018", tmp_path))
    assert found.name == "00ab"
    assert found.image[0, 0].tolist() == [10, 20, 30]
    assert np.array_equal(found.labels, (first > 0) + 2 * (second > 0))
    Image.fromarray(first[:4]).save(case / "masks" / "b.png")
    with pytest.raises(FormatError, match=r"b\.png: 7 × 4 px, but its image has 7 × 5 px"):
        load(read_layout("dsb2018", tmp_path / "stage1_train"))


MONUSEG = """<Annotations MicronsPerPixel="0.252"><Annotation Id="1"><Regions>
<Region Id="1"><Vertices><Vertex X="1" Y="1"/><Vertex X="5" Y="1"/><Vertex X="5" Y="4"/><Vertex X="1" Y="4"/></Vertices>
</Region><Region Id="2"><Vertices><Vertex X="4" Y="3"/><Vertex X="9" Y="3"/><Vertex X="9" Y="6"/><Vertex X="4" Y="6"/>
</Vertices></Region></Regions></Annotation></Annotations>"""


def test_the_monuseg_layout_fills_the_outlines_pixel_corners_at_integers(tmp_path):
    for part in ("Tissue Images", "Annotations"):
        (tmp_path / part).mkdir()
    name = "TCGA-A7-A13E-01Z-00-DX1"
    Image.new("RGB", (10, 8)).save(tmp_path / "Tissue Images" / f"{name}.tif")
    (tmp_path / "Annotations" / f"{name}.xml").write_text(MONUSEG)
    (entry,) = read_layout("monuseg", tmp_path)
    assert entry.group == "TCGA-A7-A13E"
    expected = np.zeros((8, 10), np.int32)
    expected[1:4, 1:5] = 1
    expected[3:6, 4:9] = 2
    assert np.array_equal(load([entry])[0].labels, expected)
    (tmp_path / "Annotations" / f"{name}.xml").write_text(MONUSEG[:200])
    with pytest.raises(FormatError, match=f"{name}.xml: cannot be read as an XML of outlines"):
        load([entry])


def test_pictures_of_other_kinds_become_rgb_and_labels_keep_16_bits(tmp_path):
    Image.new("L", (4, 3), 7).save(tmp_path / "grey.png")
    assert read_rgb(tmp_path / "grey.png").tolist() == np.full((3, 4, 3), 7).tolist()
    Image.fromarray(np.full((3, 4), 65535, np.uint16)).save(tmp_path / "deep.png")
    assert read_rgb(tmp_path / "deep.png").min() == 255
    assert read_labels(tmp_path / "deep.png").max() == 65535


def test_ids_are_made_consecutive_in_their_order():
    assert consecutive(np.array([[0, 7], [3, 7]])).tolist() == [[0, 2], [1, 2]]
    assert consecutive(np.array([[9, 7]])).tolist() == [[2, 1]]
