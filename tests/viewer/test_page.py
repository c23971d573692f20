"""The page in a real browser, at a real server."""

import functools
import http.server
import io
import json
import re
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from browser import complaints, requests
from gigaseg.cli import main
from gigaseg.errors import FormatError
from gigaseg.instances.table import read_instances
from gigaseg.viewer.cohort import ResultsFolder
from gigaseg.viewer.folder import write_folder

GREEN, RED = (0, 200, 83), (255, 82, 82)
"""Colours of the class and of prompts."""

READY = "window.page && page.ready && page.osd.world.getItemAt(0).getFullyLoaded() && page.marks.complete(page.view())"


def until(browser, what, seconds=60):
    end = time.monotonic() + seconds
    while not (found := browser.execute_script(f"return {what}")):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.03)
    return found


def look_at(browser, address, slide="a", hash=""):
    browser.get("about:blank")
    browser.get(f"{address}?slide={slide}{hash}")
    until(browser, READY)


def settled(browser):
    """Waits until what was asked for is drawn, also where drawing waits until the view rests."""
    until(browser, READY)
    time.sleep(0.6)


def shown(browser):
    return int(browser.find_element(By.ID, "shown-count").get_attribute("data-shown"))


def values(browser):
    """The table of measurements as it stands, column -> value as the browser holds it."""
    cells = "document.querySelectorAll('#values td[data-column]')"
    return dict(browser.execute_script(f"return [...{cells}].map((e) => [e.dataset.column, e.dataset.value])"))


def around(browser, places):
    """(n, 9, 3) RGB of 3 × 3 px about places of the slide, level-0 px, as it is on the screen."""
    picture = np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")).astype(int)
    corners = [np.floor(on_screen(browser, *place)).astype(int) - 1 for place in places]
    return np.array([picture[y : y + 3, x : x + 3].reshape(9, 3) for x, y in corners])


def off(pixels, color):
    """How far the nearest of the pixels about each place is from a colour."""
    return np.abs(pixels - np.array(color)).max(axis=2).min(axis=1)


@pytest.fixture(scope="module")
def tables(cohort):
    found, _ = read_instances(cohort / "a" / "instances.parquet", stitched=True)
    return found, pq.read_table(cohort / "a" / "measurements.parquet").to_pandas()


def on_screen(browser, x, y):
    """CSS px of a place of the slide, level-0 px."""
    view = browser.execute_script("return page.view()")
    return (x - view["x"]) * view["scale"], (y - view["y"]) * view["scale"]


def test_it_loads_without_a_complaint_or_a_foreign_request(browser, address, tables):
    look_at(browser, address)
    assert browser.title == "a – gigaseg"
    assert shown(browser) == len(tables[1])
    assert all(url.startswith((address, "about:")) for url in requests(browser))
    assert [line for line in complaints(browser) if "GPU stall" not in line] == []


def test_pointing_at_an_instance_shows_its_measurements(browser, address, tables):
    found, measured = tables
    look_at(browser, address)
    order = np.argsort(-shapely.area(found.geometry))
    for row in [*order[:3], order[len(order) // 2]]:
        field = browser.find_element(By.ID, "go-to")
        field.clear()
        field.send_keys(str(row + 1), Keys.ENTER)
        settled(browser)
        until(browser, "page.marks.outlined(page.view())")
        point = found.geometry[row].representative_point()
        x, y = on_screen(browser, point.x, point.y)
        stage = browser.find_element(By.ID, "stage")
        middle = stage.size["width"] / 2, stage.size["height"] / 2
        actions = ActionChains(browser, duration=0)
        actions.move_to_element_with_offset(stage, int(x - middle[0]) + 60, int(y - middle[1]))
        actions.move_to_element_with_offset(stage, round(x - middle[0]), round(y - middle[1])).perform()
        until(browser, f"page.under === {row} && page._shown === {row}")
        until(browser, f"document.querySelector('#values td[data-column=instance]').dataset.value === '{row + 1}'")
        told = values(browser)
        truth = measured.iloc[row]
        assert told.pop("class") == truth["class"]
        assert told.pop("region") == (truth["region"] if isinstance(truth["region"], str) else "–")
        assert float(told.pop("score")) == found.score[row]
        assert int(told.pop("members")) == found.members[row]
        assert int(told.pop("cut")) == found.cut[row]
        assert {name: float(value) for name, value in told.items()} == {name: truth[name] for name in told}
        assert set(told) == set(measured.columns) - {"class", "region"}


def test_going_to_an_instance_shows_it_outlined_in_its_colour(browser, address, tables):
    found, _ = tables
    row = int(np.argmax(shapely.area(found.geometry)))
    look_at(browser, address, hash=f"#instance={row + 1}&at=10,10,4")
    browser.execute_script(f"page.instance({row}); page.pin(null)")
    settled(browser)
    view = browser.execute_script("return page.view()")
    middle = np.array(found.geometry[row].bounds).reshape(2, 2).mean(0)
    assert np.hypot(view["x"] + view["width"] / 2 - middle[0], view["y"] + view["height"] / 2 - middle[1]) < 2
    ring = shapely.get_coordinates(shapely.get_exterior_ring(found.geometry[row]))
    edges = (ring[:-1] + ring[1:]) / 2
    assert off(around(browser, edges), GREEN).max() < 40
    inside = found.geometry[row].buffer(-3).representative_point()
    assert off(around(browser, [(inside.x, inside.y)]), GREEN) > 60
    browser.find_element(By.ID, "layer-instances").click()
    settled(browser)
    assert off(around(browser, edges), GREEN).min() > 60


def test_a_filter_counts_what_the_table_counts(browser, address, tables):
    _, measured = tables
    look_at(browser, address)
    Select(browser.find_element(By.ID, "add-filter")).select_by_value("area_um2")
    low, high = browser.find_elements(By.CSS_SELECTOR, "#filter-area_um2 input")
    for field, value in ((low, "30"), (high, "55.5")):
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(value, Keys.ENTER)
    seen = measured["area_um2"].between(30, 55.5)
    until(browser, f"document.getElementById('shown-count').dataset.shown === '{seen.sum()}'")
    Select(browser.find_element(By.ID, "add-filter")).select_by_value("eccentricity")
    low = browser.find_element(By.CSS_SELECTOR, "#filter-eccentricity input")
    low.send_keys(Keys.CONTROL, "a")
    low.send_keys("0.7", Keys.ENTER)
    seen &= measured["eccentricity"] >= 0.7
    until(browser, f"document.getElementById('shown-count').dataset.shown === '{seen.sum()}'")
    settled(browser)
    link = browser.current_url
    browser.find_element(By.CSS_SELECTOR, "#filter-area_um2 button").click()
    until(
        browser, f"document.getElementById('shown-count').dataset.shown === '{(measured['eccentricity'] >= 0.7).sum()}'"
    )
    browser.get("about:blank")
    browser.get(link)
    until(browser, READY)
    assert shown(browser) == seen.sum()
    assert browser.execute_script("return page._at({x: -1e6, y: 0})") is None


def test_classes_and_regions_can_be_hidden(browser, address, tables):
    _, measured = tables
    look_at(browser, address)
    Select(browser.find_element(By.ID, "colour-by")).select_by_value("region")
    box = until(browser, "document.querySelector('#legend input')")
    box.click()
    outside = measured["region"].isna().sum()
    until(browser, f"document.getElementById('shown-count').dataset.shown === '{outside}'")
    settled(browser)
    link = browser.current_url
    browser.find_elements(By.CSS_SELECTOR, "#legend input")[1].click()
    until(browser, "page.look.shown === 0")
    browser.get("about:blank")
    browser.get(link)
    until(browser, READY)
    assert shown(browser) == outside


@pytest.mark.parametrize("instance", ["0", "-3", "2.5", "99999999", "x"])
def test_a_link_to_no_instance_shows_the_slide(browser, address, instance):
    look_at(browser, address, hash=f"#instance={instance}&colour=nothing&layers=instances,nothing&filter=nothing:1:2")
    assert values(browser) == {}
    assert not browser.find_element(By.ID, "notice").is_displayed()


def test_a_link_leads_to_the_same_place_with_the_same_look(browser, address):
    look_at(browser, address)
    browser.execute_script("page.goTo({x: 700, y: 500, scale: 1.5}, true)")
    Select(browser.find_element(By.ID, "colour-by")).select_by_value("eccentricity")
    for layer in ("density", "grid", "seams", "joined", "prompts"):
        browser.find_element(By.ID, f"layer-{layer}").click()
    browser.execute_script("page.pin(41)")
    settled(browser)
    link, view = browser.current_url, browser.execute_script("return page.view()")
    browser.get("about:blank")
    browser.get(link)
    until(browser, READY)
    again = browser.execute_script("return page.view()")
    assert [again[key] for key in ("x", "y", "scale")] == pytest.approx(
        [view[key] for key in ("x", "y", "scale")], abs=0.3
    )
    state = browser.execute_script(
        "return [page.look.colourBy, page.look.joined, page.pinned,"
        " Object.keys(page.layers).filter((name) => page.layers[name]).sort(), page.drawing.prompts.label.length]"
    )
    assert state == [
        "eccentricity", True, 41, ["density", "grid", "instances", "joined", "prompts", "regions", "seams"], 4,
    ]  # fmt: skip


def test_density_tiles_and_prompts_are_drawn_where_they_are(browser, address, tables, cohort):
    found, _ = tables
    look_at(browser, address, hash="#at=700,500,1&layers=")
    scale = browser.execute_script("return page.pack.meta.grid.scale[0]")
    prompts = np.array([[500, 400], [520, 410], [600, 320]]) * scale  # the last on the left side of the box
    assert off(around(browser, prompts), RED).min() > 40
    browser.find_element(By.ID, "layer-prompts").click()
    settled(browser)
    assert off(around(browser, prompts), RED).max() < 40
    browser.find_element(By.ID, "layer-prompts").click()
    browser.find_element(By.ID, "layer-density").click()
    settled(browser)
    centres = shapely.get_coordinates(shapely.centroid(found.geometry))
    counts, _, _ = np.histogram2d(*centres.T, bins=(14, 10), range=((0, 1400), (0, 1000)))
    told = browser.find_element(By.CSS_SELECTOR, "label:has(#layer-density) .many").text
    number, unit = re.fullmatch(r"up to ([\d,.]+) per (.+)", told).groups()
    assert unit == "mm²"
    top = float(number.replace(",", ""))
    assert counts.max() / (100 * 100 * 0.25e-6) < top < 6 * counts.max() / (100 * 100 * 0.25e-6)


def test_the_scale_bar_is_as_long_as_it_says(browser, address):
    look_at(browser, address)
    for scale in (0.5, 2.0):
        browser.execute_script(f"page.goTo({{x: 700, y: 500, scale: {scale}}}, true)")
        settled(browser)
        number, unit = browser.find_element(By.ID, "scale-text").text.split()
        length = float(number) * {"µm": 1, "mm": 1000}[unit]
        bar = browser.find_element(By.ID, "scale-bar").size["width"]
        actual = browser.execute_script("return page.view().scale")
        assert bar == pytest.approx(length / 0.5 * actual, abs=1.5)


def test_several_slides_are_a_list_with_what_failed(browser, address):
    browser.get(address)
    until(browser, "document.querySelectorAll('#slides li').length === 3")
    items = [item.text for item in browser.find_elements(By.CSS_SELECTOR, "#slides li")]
    assert items[0].startswith("a\n")
    assert "failed at inspect" in items[2]
    browser.find_element(By.CSS_SELECTOR, "#slides li:nth-child(2) a").click()
    until(browser, READY)
    assert browser.find_element(By.ID, "slide-name").text == "b"
    browser.get(f"{address}?slide=broken")
    assert "broken.tif" in until(browser, "document.getElementById('notice').textContent")


def test_a_slide_whose_file_is_gone_is_shown_without_its_picture(browser, cohort, address):
    slide = cohort.parent / "b.tif"
    away = slide.rename(slide.with_suffix(".away"))
    try:
        browser.get(f"{address}?slide=b")
        until(browser, "window.page && page.ready")
        assert "b.tif: no such file" in browser.find_element(By.ID, "notice").text
        assert shown(browser) == pq.read_metadata(cohort / "b" / "instances.parquet").num_rows
    finally:
        away.rename(slide)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_the_folder_shows_the_same_from_any_web_server(browser, cohort, tables, tmp_path):
    out = tmp_path / "viewer"
    assert main(["view", str(cohort), "--out", str(out)]) == 0
    assert json.loads((out / "data" / "slides.json").read_text())["slides"][2]["state"] == "failed"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(out)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        look_at(browser, f"http://127.0.0.1:{server.server_port}/", hash="#at=700,500,1.5&instance=7")
        assert shown(browser) == len(tables[1])
        until(browser, "page.osd.world.getItemAt(0).getFullyLoaded() && document.querySelector('#values td')")
        assert float(values(browser)["area_um2"]) == tables[1]["area_um2"][6]
        failed = [url for url in requests(browser) if "127.0.0.1" not in url and not url.startswith("about:")]
        assert not failed
    finally:
        server.shutdown()


def test_only_a_folder_of_its_own_kind_is_replaced(cohort, tmp_path):
    out = tmp_path / "viewer"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    results = ResultsFolder(cohort / "b")
    with pytest.raises(FormatError, match="no viewer"):
        write_folder(results, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    write_folder(results, tmp_path / "other")
    (tmp_path / "other" / "stale").touch()
    write_folder(results, tmp_path / "other")
    assert not (tmp_path / "other" / "stale").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
