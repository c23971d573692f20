import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from gigaseg.errors import FormatError
from gigaseg.files import write_failure, write_json
from gigaseg.measure.aggregate import aggregate
from gigaseg.report.cohort import report
from gigaseg.report.pictures import embed
from gigaseg.report.runs import read_costs
from gigaseg.report.tables import cell, number, table

EVIL = "<script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>"


class Page(HTMLParser):
    """Tags and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if "style" not in self.open and data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def count(self, tag):
        return sum(found == tag for found, _ in self.tags)

    def text(self, tag):
        return [text for within, text in self.texts if within == tag]


def write_summary(folder, slide, instances, density):
    write_json(
        folder / "summary.json",
        {
            "format": "gigaseg/summary/1", "status": "ok", "slide": slide, "version": "0.1.0", "unit": "um",
            "segmenter": "watershed", "checkpoint": "ab12" * 16, "instances": instances, "mean_score": 0.5,
            "foreground_mm2": instances / density, "density_per_mm2": density, "flags": ["no foreground"],
            "classes": {"nucleus": {"instances": instances, "fraction": 1.0}},
            "measurements": {"area_um2": {"mean": 31.25, "sd": 2.5, "q50": 30.5}},
        },
    )  # fmt: skip


def write_picture(path, slide, size=(1640, 1200)):
    text = PngImagePlugin.PngInfo()
    text.add_text("gigaseg", json.dumps({"slide": slide}))
    Image.fromarray(np.full((size[1], size[0], 3), 200, np.uint8)).save(path, pnginfo=text)


def write_run(folder, step, shard, seconds, memory):
    name = step if shard is None else f"{step}-{shard:03d}"
    write_json(
        folder / "run" / f"{name}.json",
        {
            "format": "gigaseg/run/1", "slide": folder.name, "step": step, "shard": shard, "seconds": seconds,
            "cpu_seconds": seconds / 2, "peak_memory_mb": memory, "machine": "node7 a CPU", "cores": 4,
            "started": "2026-01-01T00:00:00+00:00", "version": "0.1.0", "digest": "d",
        },
    )  # fmt: skip


@pytest.fixture
def results(tmp_path):
    """Two slides that are done and one that failed with a reason that tries to be HTML."""
    slides = {"a": (1200, 3000.0), "b": (50, 250.0)}
    for name, (instances, density) in slides.items():
        folder = tmp_path / name
        folder.mkdir()
        write_summary(folder, name, instances, density)
        write_picture(folder / "overview.png", name)
        write_run(folder, "inspect", None, 2.0, 200.0)
        write_run(folder, "segment", 0, 70.0, 3000.0)
        write_run(folder, "segment", 1, 50.0, 2500.0)
    (tmp_path / "c").mkdir()
    for file in ("summary.json", "overview.png"):
        write_failure(tmp_path / "c" / file, "inspect", f"c.svs: {EVIL}")
    summaries = [(name, tmp_path / name / "summary.json") for name in "abc"]
    aggregate(summaries, tmp_path / "cohort.tsv", tmp_path / "cohort.parquet", labels={"a": {"group": "007"}})
    return tmp_path


def page_of(results, config=None, **options):
    out = results / "report.html"
    folders = [results / name for name in "abc"]
    report(
        results / "cohort.tsv",
        [folder / "summary.json" for folder in folders],
        [folder / "overview.png" for folder in folders],
        sorted(results.glob("*/run/*.json")),
        config or {},
        out,
        **options,
    )
    text = out.read_text(encoding="utf-8")
    return Page(text), text


def test_page_has_every_slide_the_failed_one_with_its_reason(results):
    page, _ = page_of(results)
    assert page.text("h1") == ["gigaseg report"]
    assert page.text("strong") == ["2", "1", "1,250", "4 min 04 s"]
    assert page.text("th").count("c") == 1
    assert page.text("td")[:2] == ["inspect", f"c.svs: {EVIL}"]
    assert f"failed at inspect: c.svs: {EVIL}" in page.text("p")
    for text in ("1,200", "3,000", "250", "007", "31.25", "30.5", "no foreground"):
        assert text in page.text("td")


def test_nothing_of_a_user_becomes_markup(results):
    plain, _ = page_of(results)
    page, text = page_of(results, {EVIL: [EVIL, {"key": EVIL}]}, title=EVIL)
    assert page.count("script") == plain.count("script") == 1
    assert page.count("img") == plain.count("img") == 2
    assert EVIL not in text
    assert page.text("h1") == [EVIL]


def test_page_asks_nothing_of_the_network(results):
    page, text = page_of(results)
    for _, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,"))
    assert "url(" not in text
    assert "@import" not in text


def test_policy_allows_the_own_script_only(results):
    page, text = page_of(results)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL).group(1)
    expected = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{expected}'" in policy
    assert policy.startswith("default-src 'none'")


def test_pictures_are_small_jpegs_with_a_text_for_those_who_cannot_see_them(results):
    page, _ = page_of(results)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    for slide, attributes in zip("ab", images, strict=True):
        raw = base64.b64decode(attributes["src"].partition(",")[2])
        picture = Image.open(io.BytesIO(raw))
        assert picture.format == "JPEG"
        assert (
            (str(picture.width), str(picture.height)) == (attributes["width"], attributes["height"]) == ("900", "659")
        )
        assert attributes["alt"].startswith(f"Slide {slide} ")


def test_tables_have_captions_and_heads_that_readers_and_scripts_find(results):
    page, _ = page_of(results)
    assert page.count("caption") == page.count("table")
    heads = [attributes for tag, attributes in page.tags if tag == "th"]
    assert {attributes["scope"] for attributes in heads} == {"col", "row"}
    cells = [attributes for tag, attributes in page.tags if tag == "td" and "data-value" in attributes]
    assert "1200.0" in {attributes["data-value"] for attributes in cells}


def test_configuration_versions_and_checkpoint_are_told(results):
    page, text = page_of(results, {"presets": {"nuclei": {"tiles": {"tile": 512}}}})
    [config] = page.text("pre")
    assert config.splitlines() == ["presets:", "  nuclei:", "    tiles:", "      tile: 512"]
    assert "ab12" * 16 in page.text("code")
    assert "gigaseg 0.1.0" in text


def test_cohort_of_failed_slides_only_and_without_records_gives_a_page(results):
    for name in "ab":
        write_failure(results / name / "summary.json", "grid", "no tissue")
        write_failure(results / name / "overview.png", "grid", "no tissue")
        for path in (results / name / "run").iterdir():
            path.unlink()
    summaries = [(name, results / name / "summary.json") for name in "abc"]
    aggregate(summaries, results / "cohort.tsv", results / "cohort.parquet")
    page, _ = page_of(results)
    assert "No slide was finished." in page.text("p")
    assert page.text("strong") == ["0", "3", "0"]


def test_what_became_of_prompts_is_told_where_there_are_some(results):
    page, _ = page_of(results)
    assert not [text for text in page.text("caption") if "Prompts" in text]
    summary = json.loads((results / "a" / "summary.json").read_text())
    counts = {"objects": 1234, "instances": 1200, "empty": 0, "below_min_score": 0, "lost_to_others": 34}
    write_json(results / "a" / "summary.json", {**summary, "prompts": {**counts, "file": {"off_slide": 77}}})
    page, _ = page_of(results)
    assert [text for text in page.text("caption") if "Prompts" in text]
    assert {"Lost to others", "File off slide"} <= set(page.text("button"))
    assert {"1,234", "34", "77"} <= set(page.text("td"))


def test_unknown_columns_of_the_cohort_are_shown(results):
    path = results / "cohort.tsv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([f"{head}\tscanner_power", *(f"{row}\t40" for row in rows)]) + "\n")
    page, _ = page_of(results)
    assert "Scanner power" in page.text("button")
    assert page.text("td").count("40") == 2


def test_missing_cohort_is_told(tmp_path):
    with pytest.raises(FormatError, match=r"cohort.tsv: cannot be read"):
        report(tmp_path / "cohort.tsv", [], [], [], {}, tmp_path / "report.html")


def test_costs_are_summed_by_step_in_the_order_of_the_data(results):
    costs = read_costs(sorted(results.glob("*/run/*.json")))
    assert [step.step for step in costs.steps] == ["inspect", "segment"]
    segment = costs.steps[1]
    assert (segment.jobs, segment.seconds, segment.cpu_seconds) == (4, 240.0, 120.0)
    assert (segment.median_seconds, segment.longest_seconds, segment.peak_memory_mb) == (60.0, 70.0, 3000.0)
    assert costs.seconds == {"a": 122.0, "b": 122.0}
    assert costs.machines == {"node7 a CPU (4 cores)": 6}


def test_damaged_run_record_is_counted_and_left_out(results):
    (results / "a" / "run" / "inspect.json").write_text("{")
    write_json(results / "b" / "run" / "inspect.json", {"format": "gigaseg/run/1", "slide": "b"})
    costs = read_costs(sorted(results.glob("*/run/*.json")))
    assert costs.unread == 2
    assert [step.step for step in costs.steps] == ["segment"]


def test_picture_without_a_name_takes_that_of_its_folder_and_a_damaged_one_says_so(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
    plain, damaged = tmp_path / "a" / "deep" / "overview.png", tmp_path / "b" / "deep" / "overview.png"
    Image.new("RGB", (40, 30)).save(plain)
    damaged.write_bytes(plain.read_bytes()[:60])
    first, second = embed([plain, damaged], {"a", "b"})
    assert (first.slide, first.width, first.height) == ("a", 40, 30)
    assert second.slide == "b"
    assert second.reason.startswith("the picture cannot be read")


def test_many_pictures_are_embedded_smaller(tmp_path):
    path = tmp_path / "overview.png"
    write_picture(path, "a", (1000, 500))
    assert [embed([path] * n, {"a"})[0].width for n in (20, 21, 101)] == [900, 600, 400]


def test_words_that_look_like_numbers_stay_words():
    [row] = table(
        "", [{"slide": "007", "group": "1e3", "instances": "1200", "x": "nan"}], ["slide", "group", "instances", "x"]
    ).rows
    assert [(entry.text, entry.value) for entry in row] == [
        ("007", None),
        ("1e3", None),
        ("1,200", 1200.0),
        ("nan", None),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1234567.0, "1,234,567"), (1234.5678, "1,235"), (0.00012346, "0.0001235"), (-3.5, "-3.5")],
)
def test_numbers_have_four_digits(value, text):
    assert number(value) == text
    assert cell(str(value)).value == value


def test_report_and_overview_load_no_torch():
    code = (
        "import sys, gigaseg.report.cohort, gigaseg.report.overview, gigaseg.export.export, gigaseg.export.gpkg;"
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("low", "high"), [(0.13, 0.13 + 3e-17), (5.0, 5.0), (0.0, 0.0), (-2.0, -2.0 + 1e-15), (1e9, 1e9 + 1e-6)]
)
def test_an_axis_for_values_that_hardly_differ_has_ticks_that_do(low, high):
    from gigaseg.report.charts import _Axis

    axis = _Axis.around(low, high)
    assert len({axis.text(tick) for tick in axis.ticks}) == len(axis.ticks)
    assert 0 <= axis(low) <= axis(high) <= 1
