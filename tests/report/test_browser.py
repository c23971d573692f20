"""The report as people see it: a cohort of twelve slides, one of them odd and one failed, in a real browser."""

import json

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser import complaints, requests
from gigaseg.files import write_failure, write_json
from gigaseg.measure.aggregate import aggregate
from gigaseg.report.cohort import report
from gigaseg.report.outliers import LEAST, find_outliers

QUANTILES = {"q5": 0.6, "q25": 0.85, "q50": 1.0, "q75": 1.2, "q95": 1.7}
SLIDES = [f"case-{number:02d}" for number in range(1, 13)]
ODD = "case-07"


def summary(slide, place):
    """Two classes; the nuclei of `ODD` are three times as large as those of the others."""
    size = (60 if slide == ODD else 20) * (1 + 0.01 * place)
    measurements = {
        "area_um2": {"mean": 1.1 * size, "sd": 5.0, **{q: f * size for q, f in QUANTILES.items()}},
        "eccentricity": {"mean": 0.6, "sd": 0.1, **{q: 0.6 * f for q, f in QUANTILES.items()}},
        "solidity": {"mean": 0.9, "sd": 0.1, **{q: 0.5 * f for q, f in QUANTILES.items()}},
    }
    instances = 1000 + 50 * place
    shares = {"tumour": 0.6 + 0.005 * place, "stroma": 0.4 - 0.005 * place}
    return {
        "format": "gigaseg/summary/1", "status": "ok", "slide": slide, "version": "0.1.0", "unit": "um",
        "segmenter": "centersam", "checkpoint": None, "instances": instances, "mean_score": 0.5,
        "working_pixel_size": [0.3, 0.3], "foreground_mm2": 2.0, "density_per_mm2": instances / 2, "flags": [],
        "classes": {
            label: {
                "instances": round(share * instances), "fraction": share,
                "density_per_mm2": share * instances / 2, "measurements": measurements,
            }
            for label, share in shares.items()
        },
        "measurements": measurements, "seams": {"unmatched": 2},
    }  # fmt: skip


@pytest.fixture
def page(tmp_path):
    """The report's file."""
    from gigaseg.files import sha256_file
    from gigaseg.sam.downloads import shipped

    results = tmp_path / "results"
    sha256 = sha256_file(shipped()["centersam-v2"])
    for place, slide in enumerate(SLIDES):
        folder = results / slide
        folder.mkdir(parents=True)
        write_json(folder / "summary.json", summary(slide, place) | {"checkpoint": sha256})
        text = PngImagePlugin.PngInfo()
        text.add_text("gigaseg", json.dumps({"slide": slide}))
        Image.fromarray(np.full((300, 400, 3), 180 + 5 * place, np.uint8)).save(folder / "overview.png", pnginfo=text)
        for step, seconds, memory in (("inspect", 2, 200), ("segment", 60 * (place + 1), 3000), ("stitch", 20, 900)):
            run = {"slide": slide, "step": step, "seconds": seconds, "cpu_seconds": seconds, "peak_memory_mb": memory}
            run |= {"format": "gigaseg/run/1", "machine": "node7 a CPU", "cores": 8, "version": "0.1.0"}
            write_json(folder / "run" / f"{step}.json", run)
    for file in ("summary.json", "overview.png"):
        write_failure(results / "bad" / file, "inspect", "bad.svs: the file ends before its first directory")
    names = [*SLIDES, "bad"]
    pooled = results / "cohort_measurements.tsv"
    aggregate([(name, results / name / "summary.json") for name in names], results / "cohort.tsv",
              results / "cohort.parquet", labels={name: {"preset": "nuclei"} for name in names})  # fmt: skip
    pooled.write_text(
        "preset\tgroup\tregion\tclass\tmeasurement\tslides\tn\tmean\tq5\tq25\tq50\tq75\tq95\n"
        "nuclei\t\t\t\tarea_um2\t12\t15300\t24\t12\t17\t21\t25\t60\n"
    )
    out = results / "report.html"
    folders = [results / name for name in names]
    config = {"presets": {"nuclei": {"segmenter": {"name": "centersam", "options": {"nms": 0.4}}}}}
    report(
        results / "cohort.tsv", [folder / "summary.json" for folder in folders],
        [folder / "overview.png" for folder in folders], sorted(results.glob("*/run/*.json")), config, out,
        pooled=pooled,
    )  # fmt: skip
    return out


def column(browser, table, place):
    return [row.find_elements(By.XPATH, "./*")[place].text for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")]


def test_the_page_is_complete_asks_for_nothing_and_complains_of_nothing(browser, page):
    browser.get(page.as_uri())
    assert complaints(browser) == []
    assert requests(browser) == [page.as_uri()]
    for width in (1400, 700):
        browser.set_window_size(width, 1000)
        inner, outer = browser.execute_script("return [document.body.scrollWidth, window.innerWidth]")
        assert inner <= outer, "no part of the page lies beside the window"
    drawings = browser.find_elements(By.CSS_SELECTOR, "#measurements .figure svg")
    assert all(drawing.get_attribute("aria-label") for drawing in drawings)
    assert browser.execute_script("return [...document.images].every(image => image.naturalWidth > 0)")
    links = browser.find_elements(By.CSS_SELECTOR, "a[href^='#']")
    targets = {link.get_attribute("href").partition("#")[2] for link in links}
    assert all(browser.find_elements(By.ID, target) for target in targets)
    assert f"picture-{ODD}" in targets


def test_tables_are_sorted_by_click_and_by_key(browser, page):
    browser.get(page.as_uri())
    table = browser.find_element(By.CSS_SELECTOR, "#slides table")
    heads = table.find_elements(By.CSS_SELECTOR, "thead th")
    place = [head.text for head in heads].index("Instances")
    order = [f"{1000 + 50 * number:,}" for number in range(12)]
    assert column(browser, table, place) == order
    button = heads[place].find_element(By.TAG_NAME, "button")
    button.click()
    assert heads[place].get_attribute("aria-sort") == "ascending"
    button.click()
    assert column(browser, table, place) == order[::-1], "1,050 comes after 1,500: by number, not by text"
    assert heads[place].get_attribute("aria-sort") == "descending"
    heads[0].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert column(browser, table, 0) == SLIDES
    assert heads[place].get_attribute("aria-sort") is None


def test_an_odd_slide_is_flagged_in_the_tables_and_in_the_drawing_of_its_measure(browser, page):
    browser.get(page.as_uri())
    [row] = browser.find_elements(By.CSS_SELECTOR, "#outliers tbody tr")
    cells = [cell.text for cell in row.find_elements(By.XPATH, "./*")]
    assert cells[:2] == [ODD, "Area µm² median"]
    assert float(cells[2]) == pytest.approx(60 * 1.06, rel=0.01)
    assert float(cells[3]) == pytest.approx(20 * 1.06, rel=0.02)
    slides = browser.find_element(By.CSS_SELECTOR, "#slides table")
    place = [head.text for head in slides.find_elements(By.CSS_SELECTOR, "thead th")].index("Outlier in")
    assert column(browser, slides, place) == ["high area µm² median" if name == ODD else "" for name in SLIDES]
    marked = browser.find_elements(By.CSS_SELECTOR, "#measurements svg .name.odd")
    assert [name.text for name in marked] == [f"▲ {ODD}"]


def test_failed_slides_methods_weights_and_costs_are_told(browser, page):
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "bad.svs: the file ends before its first directory" in text
    assert "CenterSAM: Fully Automatic Prompt for Dense Nucleus Segmentation" in text
    assert "default 0.5; 0..1, IoU of two masks above which" in text, "an option that the preset sets"
    for words in ("centersam-v2.safetensors", "CC0-1.0", "small-v1, sha256 bbbf2330", "Figures on its validation"):
        assert words in text
    assert "snakemake" in text
    costs = browser.find_elements(By.CSS_SELECTOR, "#costs table")
    assert [table.find_element(By.TAG_NAME, "caption").text.partition(",")[0] for table in costs] == [
        "Run time and memory by step",
        "Run time by slide and step",
        "Peak memory by slide and step",
    ]
    assert column(browser, costs[1], 2)[:2] == ["1 min 00 s", "2 min 00 s"]
    assert column(browser, costs[2], 4)[0] == "2.9 GB"


def test_outliers_need_eight_slides_of_a_preset_and_a_difference_that_matters():
    alike = [summary(slide, place) for place, slide in enumerate(SLIDES)]
    presets = dict.fromkeys(SLIDES, "nuclei")
    [odd] = find_outliers(alike, presets)
    assert (odd.slide, odd.measure, odd.preset) == (ODD, "area_um2_median", "nuclei")
    # by hand: the logarithms differ from their median by up to 0.055, their MAD is some 0.03
    assert 0.6745 * np.log(3) / 0.04 < odd.z < 0.6745 * np.log(3) / 0.02
    assert find_outliers(alike[3 : 3 + LEAST - 1], presets) == []
    assert [found.slide for found in find_outliers(alike[3 : 3 + LEAST], presets)] == [ODD]
    assert find_outliers(alike, {slide: "ab"[place % 2] for place, slide in enumerate(SLIDES)}) == []
    same = [summary(slide, 0) for slide in SLIDES if slide != ODD]
    same[0]["seams"] = {"unmatched": 3}
    assert find_outliers(same, presets) == [], "one seam more of a thousand instances is no oddity"
