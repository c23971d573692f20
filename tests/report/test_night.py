"""The report of a night: states of slides, and what changed."""

import json
from datetime import date

import pytest

from gigaseg.files import write_failure
from gigaseg.measure.measure import SUMMARY_FORMAT
from gigaseg.report.night import Expected, night

DAY = date(2026, 11, 29)


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def done(results, name, instances=5, digest="m"):
    summary = {"format": SUMMARY_FORMAT, "digest": digest, "instances": instances}
    (results / name).mkdir(parents=True, exist_ok=True)
    (results / name / "summary.json").write_text(json.dumps(summary))


def failed(results, name, reason, digest="m"):
    write_failure(results / name / "summary.json", "grid", reason)
    (results / name / "run").mkdir()
    (results / name / "run" / "measure.json").write_text(json.dumps({"digest": digest}))


def run(results, *names, inspect="i", measure="m", day=DAY, **more):
    page = night(results, [Expected(name, inspect, measure) for name in names], today=day, **more)
    record = json.loads(page.with_suffix(".json").read_text())["slides"]
    return {name: slide["state"] for name, slide in record.items()}, page.read_text(), page.name


def test_every_way_a_slide_can_end(results):
    done(results, "good")
    done(results, "stale", digest="older")
    failed(results, "bad", "bad.svs: no such <file>")
    failed(results, "mended", "it was cut short", digest="older")
    log = results / "broken" / "log" / "segment.log"
    log.parent.mkdir(parents=True)
    log.write_text("read 3 tiles\nTraceback (most recent call last):\n  File x\nMemoryError: 3 GB\nwarning: later\n")
    states, page, name = run(
        results, "good", "stale", "bad", "mended", "broken", "never", bad_rows=[("../x", "slides.tsv line 2: no")],
        waiting=["copied"], broken={"broken": ("segment", log)}, message="report broke",
    )  # fmt: skip
    assert states == {
        "../x": "failed", "good": "ok", "stale": "unfinished", "bad": "failed", "mended": "unfinished",
        "broken": "broken", "never": "unfinished", "copied": "waiting",
    }  # fmt: skip
    assert name == "2026-11-29.html"
    for words in ("bad.svs: no such &lt;file&gt;", "MemoryError: 3 GB", "report broke", "slides.tsv line 2: no"):
        assert words in page
    assert "<file>" not in page
    assert page.count(">copied<") == 1, "what waits is not yet new"
    assert [line for line in run(results, "copied")[1].splitlines() if ">copied<" in line], "now it is"


def test_a_second_run_of_a_day_gets_its_own_page_and_is_compared_with_the_first(results):
    done(results, "a")
    run(results, "a")
    done(results, "a", instances=1234)
    done(results, "b")
    _, page, name = run(results, "a", "b")
    assert name == "2026-11-29-2.html"
    assert "5 instances, now 1,234" in page
    assert "Compared with 2026-11-29." in page
    for number in range(3, 12):
        assert run(results, "a", "b")[2] == f"2026-11-29-{number}.html"
    _, page, _ = run(results, "b", day=date(2026, 11, 30))
    assert "Compared with 2026-11-29-11." in page
    assert "No longer in the cohort" in page


def test_a_replaced_file_another_configuration_and_a_repair_are_told_apart(results):
    for name in ("a", "b"):
        done(results, name)
    failed(results, "c", "cut short")
    run(results, "a", "b", "c")
    done(results, "c")
    assert "failed, now ok" in run(results, "a", "b", "c")[1]
    assert "its file was replaced" in run(results, "a", "b", "c", inspect="j")[1]
    for name in "abc":
        done(results, name, digest="n")
    assert "configuration or side files changed" in run(results, "a", "b", "c", inspect="j", measure="n")[1]
    page = run(results, "a", "b", "c", inspect="j", measure="n")[1]
    assert "Nothing changed." in page


def test_a_slide_that_waits_for_a_night_is_not_new_after_it(results):
    done(results, "a")
    run(results, "a")
    states, page, _ = run(results, waiting=["a"])
    assert states == {"a": "waiting"}
    assert "ok, now waiting" in page
    _, page, _ = run(results, "a", inspect="j")
    assert "waiting, now ok; its file was replaced" in page
    assert "<h2>New</h2>" not in page


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("x\nbash: gigaseg: command not found\n", "bash: gigaseg: command not found"),
        ("gigaseg segment: disk: No space left on device\n", "gigaseg segment: disk: No space left on device"),
        ("2026-11-29 INFO 3 tiles\n", "killed before it could say why"),
    ],
)
def test_a_broken_job_is_told_with_the_end_of_its_log(results, tmp_path, log, reason):
    (tmp_path / "log").write_text(log)
    assert reason in run(results, "a", broken={"a": ("segment", tmp_path / "log")})[1]


def test_a_damaged_record_of_a_night_costs_only_the_comparison(results):
    done(results, "a")
    run(results, "a")
    (results / "nights" / "2026-11-29.json").write_text("{")
    states, page, _ = run(results, "a", day=date(2026, 11, 30))
    assert states == {"a": "ok"}
    assert "The first night." in page
