"""The slides of a folder: which are taken, what they are called, which wait."""

import json
import os
import time
from pathlib import Path

import pytest

from gigaseg.errors import ConfigError
from gigaseg.incoming import find_slides
from gigaseg.plan import make_plan
from gigaseg.sheet import read_sheet


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "incoming"


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"slide")


def found(folder, settle=0.0):
    return find_slides(folder, folder.parent / "results", settle, "nuclei")


def names(folder):
    return {row.slide: row.path.relative_to(folder).as_posix() for row in found(folder).rows}


def test_slides_of_all_sub_folders_are_taken_and_other_files_are_not(folder):
    put(folder, "a.svs", "deep/er/b.NDPI", "c.ome.tif", "notes.txt", ".a.svs.Xy12Z", ".hidden/d.svs", "e.svs.part")
    (folder / "gone.svs").symlink_to("nowhere")
    assert names(folder) == {"a": "a.svs", "b": "deep/er/b.NDPI", "c": "c.ome.tif"}


def test_files_that_belong_to_a_slide_are_no_slides_of_their_own(folder):
    put(folder, "m.mrxs", "m/Data0000.dat", "v.vms", "v_1.jpg", "v_map.jpg", "patient/1.dcm", "patient/2.dcm")
    put(folder, "r.tif", "r.tif.ovr", "r.tfw")
    assert names(folder) == {"m": "m.mrxs", "v": "v.vms", "patient": "patient/1.dcm", "r": "r.tif"}


def test_names_are_fit_and_differ_whatever_the_files_are_called(folder):
    put(folder, "a.svs", "A.tif", "x/a.svs", "-rf.svs", "ä ö'$(id).svs", "log.tif", "-.tif", "report.html.tif")
    taken = names(folder)
    assert set(taken) == {"A", "a-2", "a-3", "rf", "______id_", "log-2", "slide", "report.html-2"}
    assert len(set(taken.values())) == 8


def test_a_name_stays_with_its_slide_whatever_comes_and_goes(folder):
    put(folder, "b/a.svs")
    first = found(folder)
    first.save(folder.parent / "results")
    put(folder, "a/a.svs")
    assert names(folder) == {"a": "b/a.svs", "a-2": "a/a.svs"}
    found(folder).save(folder.parent / "results")
    (folder / "b" / "a.svs").unlink()
    put(folder, "c/a.svs")
    assert names(folder) == {"a-2": "a/a.svs", "a-3": "c/a.svs"}, "the results of `a` are kept for what they are"


def test_a_slide_that_changed_just_now_waits_until_it_has_settled(folder):
    put(folder, "old.svs", "new.svs", "m.mrxs", "m/Data0000.dat")
    assert found(folder, settle=1).waiting == ["m", "new", "old"]
    assert found(folder, settle=0).waiting == []


def test_a_copy_that_preserves_times_waits_too(folder):
    put(folder, "a.svs")
    os.utime(folder / "a.svs", (1, 1))
    assert found(folder, settle=1).waiting == ["a"], "its inode has just changed"


def test_a_growing_slide_waits_and_is_taken_once_it_is_still(folder):
    put(folder, "a.svs")
    settle = 0.02  # minutes
    end = time.monotonic() + 3
    while time.monotonic() < end:
        with (folder / "a.svs").open("ab") as stream:
            stream.write(b"more")
        assert found(folder, settle).waiting == ["a"]
        time.sleep(0.3)
    time.sleep(settle * 60 + 0.1)
    assert found(folder, settle).waiting == []


def test_a_file_from_the_future_is_taken_when_it_is_no_copy_under_way(folder, monkeypatch):
    put(folder, "a.svs")
    day_before = time.time() - 86400  # the clock was set back
    monkeypatch.setattr("gigaseg.incoming.time.time", lambda: day_before)
    assert found(folder, settle=10).waiting == []


def test_slides_whose_names_begin_alike_are_all_taken(folder):
    put(folder, "case1.vms", "case1_0.jpg", "case10.vms", "case11.svs")
    assert set(names(folder)) == {"case1", "case10", "case11"}


def test_a_slide_that_was_taken_as_it_is_does_not_wait_again(folder):
    put(folder, "a.svs")
    found(folder).save(folder.parent / "results")
    (folder / "a.svs").chmod(0o600)
    assert found(folder, settle=1).waiting == [], "only its inode has changed"
    put(folder, "a.svs")
    assert found(folder, settle=1).waiting == ["a"]


def test_a_path_that_no_table_can_hold_is_a_slide_that_fails_and_not_one_that_is_forgotten(folder):
    put(folder, "a\tb.svs", "c\u3000d.svs", "e\nf.svs")
    rows = {row.slide: str(row.path) for row in found(folder).rows}
    assert rows == {
        "a_b": f"{folder}/a\\tb.svs", "c_d": f"{folder}/c\u3000d.svs", "e_f": f"{folder}/e\\nf.svs",
    }  # fmt: skip


def test_a_sub_folder_that_cannot_be_read_is_no_smaller_cohort(folder, monkeypatch):
    put(folder, "a.svs", "b/c.svs")

    def listing(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", listing)
    with pytest.raises(ConfigError, match=r"which cannot be read .*Permission denied"):
        found(folder)


@pytest.mark.parametrize(("make", "words"), [(False, "no such folder"), (True, "where no slide is (not mounted?)")])
def test_a_folder_that_is_not_mounted_is_a_mistake_and_not_an_empty_cohort(folder, make, words):
    if make:
        folder.mkdir()
    with pytest.raises(ConfigError) as caught:
        found(folder)
    assert str(caught.value).startswith(f"slides_dir is '{folder}'")
    assert words in str(caught.value)


def test_damaged_names_are_told_and_do_not_rename_finished_slides(folder):
    put(folder, "a.svs")
    results = folder.parent / "results"
    results.mkdir()
    (results / ".names.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        found(folder)


def test_the_sheet_that_is_kept_gives_the_jobs_the_same_plan(folder):
    put(folder, "a b.svs", "ü.tif")
    config = {"slides_dir": str(folder), "results": str(folder.parent / "results"), "settle_minutes": 0}
    plan = make_plan(config)
    plan.found.save(Path(config["results"]))
    put(folder, "came later.svs")
    job = make_plan(config, settled=True)
    assert {name: slide.digests for name, slide in job.slides.items()} == {
        name: slide.digests for name, slide in plan.slides.items()
    }
    assert job.digests == plan.digests
    assert job.sheet == plan.sheet
    assert [row.path for row in read_sheet(plan.sheet, ["nuclei"])[0]] == [row.path for row in plan.found.rows]
    kept = json.loads((folder.parent / "results" / ".names.json").read_text())
    assert {name for name, _ in kept.values()} == {"a_b", "_"}
    assert len(make_plan(config).slides) == 3
