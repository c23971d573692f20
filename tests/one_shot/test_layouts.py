"""Layouts of one-shot data sets: what was written comes back, and what is wrong is told in one line."""

import json
import re
import shutil
from itertools import islice, pairwise

import numpy as np
import pytest
from PIL import Image

from gigaseg.errors import ConfigError, FormatError
from gigaseg.one_shot.base import read_mask_file
from gigaseg.one_shot.folds import COCO_20I, LVIS_92I, fold_classes
from gigaseg.one_shot.layouts import LAYOUTS, Choice, read_episodes
from gigaseg.testing.one_shot import COCO_GAPS, write_coco_20i, write_lvis_92i, write_persense_d


def read(folder, layout, **settings):
    return list(read_episodes(folder, Choice(layout, **settings)))


def pair(episode):
    return episode.group, episode.support.image, episode.query.image


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_masks_come_back_pixel_for_pixel(copies, layout):
    folder, truth = copies[layout]
    seen = set()
    for episode in read(folder, layout, **({} if layout == "persense-d" else {"episodes": 30})):
        for shown in (episode.support, episode.query):
            rgb, mask = shown.read()
            np.testing.assert_array_equal(mask, truth[shown.image][episode.group])
            np.testing.assert_array_equal(rgb, np.asarray(Image.open(shown.image)))
            assert mask.any()
            seen.add(shown.image)
        assert episode.support.image != episode.query.image
    assert len(seen) >= 0.8 * len(truth)


def test_the_same_seed_writes_the_same_files(tmp_path):
    for write in (write_persense_d, write_coco_20i, write_lvis_92i):
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            write(tmp_path / name, seed=seed)
        files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*") if path.is_file()]
        assert files
        same = [[(tmp_path / x / f).read_bytes() == (tmp_path / "a" / f).read_bytes() for f in files] for x in "bc"]
        assert all(same[0])
        assert not all(same[1])
        for name in "abc":
            shutil.rmtree(tmp_path / name)


def test_dense_images_are_dense_and_a_support_shows_one_object(copies):
    _, truth = copies["persense-d"]
    areas = {path: mask.sum() for path, masks in truth.items() for mask in masks.values()}
    shown = [area for path, area in areas.items() if path.stem == "00"]
    sought = [area for path, area in areas.items() if path.stem != "00"]
    assert max(shown) < 200
    assert min(sought) > 600


# PerSense-D


def test_image_00_shows_all_others_of_its_class(copies):
    episodes = read(copies["persense-d"][0], "persense-d")
    assert [e.name for e in episodes] == [f"{c}/{n:02}" for c in ("beads", "coins", "pills") for n in (1, 2, 3)]
    assert {e.support.image.name for e in episodes} == {"00.jpg"}
    assert {e.fold for e in episodes} == {None}
    for one, other in pairwise(episodes):
        assert (one.support is other.support) == (one.group == other.group)


@pytest.mark.parametrize("masks", ["Annotations", "Masks"])
def test_masks_may_be_in_a_tree_of_their_own(tmp_path, copies, masks):
    truth = write_persense_d(tmp_path, masks=masks)
    png = tmp_path / "Images" / "coins" / "02.png"  # an image may be a PNG there
    Image.open(png.with_suffix(".jpg")).save(png)
    png.with_suffix(".jpg").unlink()
    episodes = read(tmp_path, "persense-d")
    assert [e.name for e in episodes] == [e.name for e in read(copies["persense-d"][0], "persense-d")]
    for episode in episodes:
        known = truth[episode.query.image.with_suffix(".jpg")][episode.group]
        np.testing.assert_array_equal(episode.query.read()[1], known)


def test_as_published_the_last_query_and_names_with_00_are_left_out(tmp_path):
    write_persense_d(tmp_path, ["coins", "x00y"], queries=3)
    for number in (100, 101):
        for suffix in ("jpg", "png"):
            shutil.copy(tmp_path / f"Images/coins/01.{suffix}", tmp_path / f"Images/coins/{number}.{suffix}")
    coins = ["coins/01", "coins/02", "coins/03", "coins/100", "coins/101"]
    assert [e.name for e in read(tmp_path, "persense-d")] == [*coins, "x00y/01", "x00y/02", "x00y/03"]
    assert [e.name for e in read(tmp_path, "persense-d", as_published=True)] == coins[:3]


def test_masks_are_what_is_not_black_whatever_the_file_keeps(tmp_path):
    wanted = np.array([[0, 1, 0], [2, 255, 0]]) > 0
    grey = np.array([[0, 1, 0], [2, 255, 0]], np.uint8)
    colour = np.zeros((2, 3, 3), np.uint8)
    colour[..., 2] = grey
    palette = Image.fromarray(grey > 0).convert("P")
    alpha = np.dstack([colour, np.full((2, 3), 255, np.uint8)])
    pictures = (grey, colour, alpha, grey.astype(np.uint16) * 257, grey > 0)
    for number, picture in enumerate([*map(Image.fromarray, pictures), palette]):
        path = tmp_path / f"{number}.png"
        picture.save(path)
        np.testing.assert_array_equal(read_mask_file(path, (2, 3)), wanted, err_msg=picture.mode)
    with pytest.raises(FormatError, match=r"0\.png: mask is 3 × 2 px, expected 2 × 3 px, as its image is"):
        read_mask_file(tmp_path / "0.png", (3, 2))


def remove(*names):
    return lambda coins: [(coins / name).unlink() for name in names]


def keep(*stems):
    return lambda coins: [path.unlink() for path in coins.iterdir() if path.stem not in stems]


BROKEN = {
    "no images": (lambda coins: shutil.rmtree(coins.parent), r"Images: no such folder; expected Images/CLASS/NN"),
    "no class": (shutil.rmtree, r"Images: holds no folder of a class; expected CLASS/00\.jpg, CLASS/01"),
    "no mask": (remove("02.png"), r"coins/02\.jpg: has no mask, expected .*coins/02\.png"),
    "no image": (remove("02.jpg"), r"coins/02\.png: is a mask without an image, expected .*coins/02\.jpg"),
    "no support": (
        remove("00.jpg", "00.png"),
        r"coins: no support image; found 01\.jpg, 02\.jpg, 03\.jpg, expected 00\.jpg among them",
    ),
    "empty": (keep(), "coins: no support image; found no image, expected 00"),
    "support alone": (keep("00"), "coins: holds 00 alone, expected images to seek in too"),
    "twice": (
        lambda coins: shutil.copy(coins / "02.jpg", coins / "02.jpeg"),
        r"02\.jpg: has the name of 02\.jpeg, expected one image a name",
    ),
}
"""What is done to the folder of a class of PerSense-D, and what is told."""


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_copy_of_persense_d_is_told_before_anything_is_scored(tmp_path, name):
    harm, told = BROKEN[name]
    write_persense_d(tmp_path, ["coins"])
    harm(tmp_path / "Images" / "coins")
    with pytest.raises(FormatError, match=told) as caught:
        read_episodes(tmp_path, Choice("persense-d"))
    assert "\n" not in str(caught.value)


def test_damaged_images_are_told_when_they_are_read(tmp_path):
    write_persense_d(tmp_path, ["coins"], queries=2)
    (tmp_path / "Images/coins/01.jpg").write_bytes(b"nothing")
    (tmp_path / "Images/coins/02.png").write_bytes(b"\x89PNG")
    first, second = read(tmp_path, "persense-d")
    with pytest.raises(FormatError, match=r"01\.jpg: cannot be read as an image"):
        first.query.read()
    with pytest.raises(FormatError, match=r"02\.png: cannot be read as a mask"):
        second.query.read()


# COCO-20i and LVIS-92i


def test_folds_are_those_of_the_protocol():
    categories = [n for n in range(1, 91) if n not in COCO_GAPS]
    folds = [fold_classes(categories, fold, 4) for fold in range(4)]
    assert [len(fold) for fold in folds] == [20] * 4
    assert sorted(n for fold in folds for n in fold) == categories
    # person, airplane, boat, parking meter; bicycle and so on: each fourth class
    assert folds[0][:4] == [1, 5, 9, 14]
    assert folds[1][:3] == [2, 6, 10]
    assert folds[3][-1] == 90
    lvis = [fold_classes(range(925), fold, 10) for fold in range(10)]
    assert [len(fold) for fold in lvis] == [92] * 10
    assert lvis[3][:2] == [3, 13]
    assert max(map(max, lvis)) == 919, "what remains is in no fold"
    assert (COCO_20I.folds, COCO_20I.episodes, LVIS_92I.folds, LVIS_92I.episodes) == (4, 1000, 10, 2300)


def test_coco_draws_the_classes_of_each_fold(copies):
    folder, _ = copies["coco-20i"]
    episodes = read(folder, "coco-20i", episodes=40)
    assert len(episodes) == 160
    groups = {fold: {e.group for e in episodes if e.fold == fold} for fold in range(4)}
    assert groups == {fold: {f"class {fold + 1}", f"class {fold + 5}"} for fold in range(4)}
    counts = [sum(e.group == f"class {n}" for e in episodes) for n in (1, 5)]
    assert min(counts) > 8


def test_lvis_takes_classes_in_two_images_and_each_in_turn(copies, tmp_path):
    folder, truth = copies["lvis-92i"]
    episodes = read(folder, "lvis-92i", episodes=6)
    assert len(episodes) == 60
    # 21 classes are in two images: two a fold, and the last one is in none; 22 is in one image, 23 in none
    assert sum("class_22" in masks for masks in truth.values()) == 1
    assert [e.group for e in episodes[:6]] == ["class_1", "class_11"] * 3
    assert [e.group for e in episodes[-6:]] == ["class_10", "class_20"] * 3
    assert {e.query.image.parent.name for e in episodes} == {"val2017", "train2017"}
    moved = shutil.copytree(folder, tmp_path / "lvis")
    for name, place in (("val2017", "coco"), ("train2017", "coco"), ("lvis_v1_val.json", "annotations")):
        (moved / place).mkdir(exist_ok=True)
        (moved / name).rename(moved / place / name)
    assert [e.name for e in read(moved, "lvis-92i", episodes=6)] == [e.name for e in episodes]


@pytest.mark.parametrize("layout", ["coco-20i", "lvis-92i"])
def test_the_same_seed_draws_the_same_pairs_of_a_fold(copies, layout):
    folder, _ = copies[layout]
    pairs = [pair(e) for e in read(folder, layout, episodes=12, seed=3)]
    assert pairs == [pair(e) for e in read(folder, layout, episodes=12, seed=3)]
    assert pairs != [pair(e) for e in read(folder, layout, episodes=12, seed=4)]
    assert pairs[24:36] == [pair(e) for e in read(folder, layout, episodes=12, seed=3, fold=2)]
    assert pairs[24:30] == [pair(e) for e in read(folder, layout, episodes=6, seed=3, fold=2)]


def test_without_a_number_there_are_as_many_pairs_as_in_the_protocol(copies):
    assert len(read(copies["coco-20i"][0], "coco-20i", fold=0)) == 1000
    episodes = read_episodes(copies["lvis-92i"][0], Choice("lvis-92i", fold=9))
    assert sum(1 for _ in episodes) == 2300


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_limit_is_of_each_class(copies, layout):
    episodes = read(copies[layout][0], layout, limit=2)
    counts = {}
    for episode in episodes:
        counts[episode.group] = counts.get(episode.group, 0) + 1
    assert set(counts.values()) == {2}
    assert len(counts) == {"persense-d": 3, "coco-20i": 8, "lvis-92i": 20}[layout]


def test_episodes_are_made_one_at_a_time(copies):
    episodes = read_episodes(copies["coco-20i"][0], Choice("coco-20i"))
    assert not isinstance(episodes, list)
    assert len(list(islice(episodes, 2))) == 2


def drop(name, key=None, value=None):
    """Change of an annotation file: a list, or a field of its third record."""

    def change(content):
        if key is None:
            del content[name]
        elif value is None:
            del content[name][2][key]
        else:
            content[name][2][key] = value

    return change


CHANGES = {
    "no annotations": (
        drop("annotations"),
        r"no annotations; found: categories, images, expected images, annotations and",
    ),
    "no images": (drop("images"), "no images; found: annotations, categories"),
    "no id": (drop("images", "id"), r"images\[2\]: id is missing, accepted: a whole number"),
    "no name": (drop("images", "file_name"), r"images\[2\]: has neither file_name nor coco_url, expected one"),
    "category": (
        drop("annotations", "category_id", "x"),
        r"annotations\[2\]: category_id is 'x', accepted: a whole number",
    ),
    "unknown category": (
        drop("annotations", "category_id", 12),
        "category_id 12 of an annotation is not among its categ",
    ),
    "unknown image": (drop("annotations", "image_id", 999), "image_id 999 of an annotation is not among its images"),
    "79 categories": (lambda content: content["categories"].pop(), "has 79 categories, expected 80"),
    "no class in two images": (
        lambda content: content.update(annotations=content["annotations"][:1]),
        "fold 0 has no class in two images, expected one or more",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_wrong_annotation_file_is_told_in_one_line(tmp_path, name):
    change, told = CHANGES[name]
    write_coco_20i(tmp_path)
    path = tmp_path / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1))
    with pytest.raises(FormatError, match=rf"{re.escape(path.name)}: {told}") as caught:
        read_episodes(tmp_path, Choice("coco-20i"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", '{"images": [', '{"images": [1]}', '{"images" 3}', "{"])
def test_what_is_no_annotation_file_is_told(tmp_path, text):
    path = tmp_path / "annotations" / "instances_val2014.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(FormatError, match=r"instances_val2014\.json: cannot be read as annotations") as caught:
        read_episodes(tmp_path, Choice("coco-20i"))
    assert "\n" not in str(caught.value)


def test_missing_files_are_told_before_anything_is_scored(tmp_path):
    with pytest.raises(FormatError, match=r"holds no annotations/instances_val2014\.json; expected annot"):
        read_episodes(tmp_path, Choice("coco-20i"))
    with pytest.raises(
        FormatError, match=r"holds no lvis_v1_val\.json; expected lvis_v1_val\.json or annotations/lvis"
    ):
        read_episodes(tmp_path, Choice("lvis-92i"))
    write_coco_20i(tmp_path)
    (tmp_path / "val2014" / "COCO_val2014_000000000005.jpg").unlink()
    with pytest.raises(FormatError, match=r"0005\.jpg: no such file, expected the image that instances_val2014\.json"):
        read_episodes(tmp_path, Choice("coco-20i"))


def test_a_wrong_outline_names_its_annotation(tmp_path):
    write_lvis_92i(tmp_path)
    path = tmp_path / "lvis_v1_val.json"
    content = json.loads(path.read_text())
    for record in content["annotations"]:
        record["segmentation"] = {"size": [1, 1], "counts": [1]}
    path.write_text(json.dumps(content))
    episode = next(read_episodes(tmp_path, Choice("lvis-92i")))
    with pytest.raises(FormatError, match=r"lvis_v1_val\.json: annotation \d+: size is \[1, 1\], expected \[96, "):
        episode.query.read()


SETTINGS = {
    "layout": ({"layout": "coco"}, r"unknown layout 'coco'; accepted: persense-d, coco-20i, lvis-92i \(did you mean"),
    "episodes": ({"layout": "coco-20i", "episodes": 0}, "--episodes is 0, accepted: 1 or more"),
    "limit": ({"layout": "coco-20i", "limit": 0}, "--limit is 0, accepted: 1 or more"),
    "seed": ({"layout": "coco-20i", "seed": -1}, "--seed is -1, accepted: 0 or more"),
    "fold": (
        {"layout": "persense-d", "fold": 0},
        "--fold is for coco-20i and lvis-92i; persense-d has all its queries",
    ),
    "pairs": ({"layout": "persense-d", "episodes": 9}, "--episodes is for coco-20i and lvis-92i"),
    "published": ({"layout": "lvis-92i", "as_published": True}, "--as-published is for persense-d, not for lvis-92i"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_do_not_fit_are_told(name):
    settings, told = SETTINGS[name]
    with pytest.raises(ConfigError, match=told):
        Choice(**settings)


def test_a_fold_that_is_not_there_is_told(copies):
    with pytest.raises(ConfigError, match=r"--fold is 4, accepted: 0 \.\. 3"):
        read_episodes(copies["coco-20i"][0], Choice("coco-20i", fold=4))
