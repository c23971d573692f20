"""Scores of segmenters whose answers are known, on small copies of the data sets."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from gigaseg import __version__
from gigaseg.errors import FormatError
from gigaseg.metrics.one_shot import ClassTotals
from gigaseg.one_shot.evaluate import one_shot, score
from gigaseg.one_shot.layouts import LAYOUTS, Choice, read_episodes
from gigaseg.one_shot.report import Cost, OneShotReport
from gigaseg.testing.one_shot import write_persense_d
from one_shot_stand_ins import Blind, Knowing


def choice(layout, **settings):
    return Choice(layout, **settings, **({} if layout == "persense-d" else {"episodes": 12}))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_who_knows_all_has_one_and_who_finds_nothing_has_zero(copies, layout):
    folder, truth = copies[layout]
    perfect = one_shot(folder, choice(layout), lambda: Knowing(truth))
    assert perfect.miou == 1
    assert {one.iou for one in perfect.totals.values()} == {1}
    assert perfect.skipped == 0
    nothing = one_shot(folder, choice(layout), Blind)
    assert nothing.miou == 0
    assert nothing.cost.images == perfect.cost.images == {"persense-d": 9, "coco-20i": 48, "lvis-92i": 120}[layout]
    unions = [one.union for one in nothing.totals.values()]
    assert unions == [one.union for one in perfect.totals.values()]
    assert min(unions) > 0


class Halving(Knowing):
    """Misses the upper half of each query."""

    def foreground(self, support_rgb, support_mask, query_rgb):
        found = super().foreground(support_rgb, support_mask, query_rgb).copy()
        found[: len(found) // 2] = False
        return found


def test_what_is_reported_is_what_the_masks_say(tmp_path, copies):
    folder, truth = copies["coco-20i"]
    wanted = choice("coco-20i", seed=5)
    out = tmp_path / "scores.json"
    settings = {"checkpoint": "vit_b", "options": {"shots": "1"}}
    report = one_shot(folder, wanted, lambda: Halving(truth), out=out, settings=settings, machine={"device": "cpu"})
    sums = {}
    for episode in read_episodes(folder, wanted):
        mask = truth[episode.query.image][episode.group]
        of = sums.setdefault((episode.fold, episode.group), np.zeros(3, int))
        of += (mask[len(mask) // 2 :].sum(), mask.sum(), 1)
    content = json.loads(out.read_text())
    assert content["format"] == "gigaseg/one-shot/1"
    assert (content["layout"], content["seed"], content["episodes"], content["fold"]) == ("coco-20i", 5, 12, None)
    assert (content["version"], content["data"]) == (__version__, str(folder))
    assert (content["settings"], content["machine"]) == (settings, {"device": "cpu"})
    assert content["back_ends"] == {"all": "the truth"}
    assert (content["images"], content["skipped"]) == (48, 0)
    classes = {
        (row["fold"], row["class"]): [row[k] for k in ("intersection", "union", "images")] for row in content["classes"]
    }
    assert classes == {key: of.tolist() for key, of in sums.items()}
    ious = {key: of[0] / of[1] for key, of in sums.items()}
    assert [row["iou"] for row in content["classes"]] == pytest.approx(list(ious.values()))
    folds = [np.mean([iou for (fold, _), iou in ious.items() if fold == number]) for number in range(4)]
    assert [row["miou"] for row in content["folds"]] == pytest.approx(folds)
    assert [row["classes"] for row in content["folds"]] == [2] * 4
    assert content["miou"] == pytest.approx(np.mean(folds)) == pytest.approx(report.miou)
    assert content["cost"]["points"] == {"median": 24.5, "mean": 24.5}
    for name in ("seconds_wall", "seconds_cpu"):
        assert 0 <= content["cost"][name]["median"] < 1


def test_the_mean_over_folds_is_not_the_mean_over_classes():
    totals = {(0, "a"): ClassTotals(1, 1, 1), (0, "b"): ClassTotals(0, 1, 1), (1, "c"): ClassTotals(1, 1, 1)}
    report = OneShotReport("d", Choice("coco-20i"), totals, 0, Cost([1.0], [2.0], [3]), {}, {}, {}, "0")
    assert {number: one.value for number, one in report.folds.items()} == {0: 0.5, 1: 1}
    assert report.miou == 0.75
    assert report.to_dict()["episodes"] == 1000


def test_the_table_has_the_papers_figures_beside(copies):
    folder, truth = copies["coco-20i"]
    lines = one_shot(folder, choice("coco-20i"), lambda: Knowing(truth)).table().splitlines()
    assert lines[0] == f"coco-20i, {folder}: 48 queries of 8 classes; a part of the protocol, or another"
    assert [line.split() for line in lines if line.startswith("mIoU")] == [
        *(
            ["mIoU", "fold", f"{i},", "%", "12", "100.00", paper]
            for i, paper in enumerate(("47.8", "49.3", "48.9", "50.1"))
        ),
        ["mIoU,", "%", "48", "100.00", "49.0"],
    ]
    assert lines[-1].startswith("paper: other weights and another machine")
    folder, truth = copies["persense-d"]
    text = one_shot(folder, choice("persense-d"), lambda: Knowing(truth)).table()
    assert text.splitlines()[0] == f"persense-d, {folder}: 9 queries of 3 classes"
    assert re.search(r"^IoU coins, % +3 +100\.00$", text, re.MULTILINE)
    assert re.search(r"^mIoU, % +9 +100\.00  71\.61 CounTR, 70\.96 DSALVANet$", text, re.MULTILINE)
    assert re.search(r"^s an image, mean +\d+\.\d\d  2\.7$", text, re.MULTILINE)
    folder, truth = copies["lvis-92i"]
    text = one_shot(folder, choice("lvis-92i"), lambda: Knowing(truth)).table()
    assert re.search(r"^mIoU, % +120 +100\.00  25\.7$", text, re.MULTILINE)
    assert len([line for line in text.splitlines() if line.startswith("mIoU fold")]) == 10


def test_consecutive_queries_of_a_support_are_given_the_same_arrays(copies):
    folder, truth = copies["persense-d"]
    segmenter = Knowing(truth)
    one_shot(folder, Choice("persense-d"), lambda: segmenter)
    assert len({(id(rgb), id(mask)) for rgb, mask in segmenter.supports}) == 3
    first = segmenter.supports[:3]
    assert all(rgb is first[0][0] and mask is first[0][1] for rgb, mask in first)


def test_an_empty_support_mask_is_left_out_and_counted(tmp_path):
    truth = write_persense_d(tmp_path, ["beads", "coins"])
    Image.new("RGB", (160, 120)).save(tmp_path / "Images/coins/00.png")
    report = one_shot(tmp_path, Choice("persense-d"), lambda: Knowing(truth))
    assert (report.skipped, report.cost.images, report.miou) == (3, 3, 1)
    assert (report.folds[None].classes, report.folds[None].skipped) == (1, 1)
    assert report.to_dict()["classes"][1] == {
        "fold": None, "class": "coins", "intersection": 0, "union": 0, "images": 0, "iou": None,
    }  # fmt: skip
    assert "3 left out, their support masks are empty" in report.table()
    Image.new("RGB", (160, 120)).save(tmp_path / "Images/beads/00.png")
    with pytest.raises(FormatError, match=r"no query can be scored \(6 of empty support masks, 2 classes\)"):
        one_shot(tmp_path, Choice("persense-d"), lambda: Knowing(truth), out=tmp_path / "scores.json")
    assert not (tmp_path / "scores.json").exists()


def test_a_wrong_folder_is_told_before_the_segmenter_is_opened(tmp_path):
    def never():
        raise AssertionError

    with pytest.raises(FormatError, match="Images: no such folder"):
        one_shot(tmp_path, Choice("persense-d"), never)


def test_a_foreground_of_another_shape_is_a_bug_and_told_as_one(copies):
    class Wrong(Blind):
        def foreground(self, support_rgb, support_mask, query_rgb):
            return np.zeros((2, 2), bool)

    with pytest.raises(ValueError, match=r"foreground gave bool \(2, 2\), expected bool \(120, 160\)"):
        score(read_episodes(copies["persense-d"][0], Choice("persense-d")), Wrong())
