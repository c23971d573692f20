"""A real browser for pages that gigaseg makes: Chromium without a window, by Selenium.

Tests take the fixture `browser`. What a page asked of the network and what it complained about is told by `requests`
and `complaints`.
"""

import json
import shutil
from contextlib import contextmanager

import pytest

PROGRAMS = (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))


@contextmanager
def chromium():
    """A Selenium driver of a headless Chromium; the test is skipped where chromium or its driver are not installed."""
    program, service = (next(filter(None, map(shutil.which, names)), None) for names in PROGRAMS)
    if not (program and service):
        pytest.skip("no chromium with chromedriver on PATH (Debian: chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "disable-gpu",
        "enable-unsafe-swiftshader",
        "hide-scrollbars",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(service))
    driver.set_page_load_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()


def reset(driver, width=1400, height=1000):
    """An empty page in a window of so many px, and empty logs."""
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    driver.get("about:blank")
    driver.set_window_size(width, height)
    requests(driver)
    complaints(driver)


def requests(driver):
    """The addresses that pages asked for since the last call, data URIs left out."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith(("data:", "blob:"))]


def complaints(driver):
    """What pages wrote to the console since the last call as warnings and errors."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]
