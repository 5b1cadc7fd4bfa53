"""The page of a report in Chromium: without a network, wide and narrow, light and dark."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.reporting.results import Made, Template, write_sweep
from upop_ray import report
from upop_ray.store import Store

pytestmark = pytest.mark.slow
_DRAWN = [{"retrain.learning_rate": 10 ** (-4 + draw / 4)} for draw in range(8)]
POINTS = [
    *(Made("upop", ratio, seed, 60 - 10 * ratio - seed) for ratio in (0.3, 0.4, 0.5, 0.75) for seed in (0, 1)),
    *(Made("mask", 0.5, 0, 50.0 + draw, draw=draw, drawn=drawn) for draw, drawn in enumerate(_DRAWN)),
    Made("random", 0.5, 0, None, state="failed", cause="a long line of a cause " * 20),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, real: Template) -> str:
    store = Store(str(tmp_path_factory.mktemp("browser")))
    write_sweep(store, real, "a_sweep_with_quite_a_long_name", POINTS)
    assert report.main([store.uri]) == 0
    return f"file://{store.path('report/report.html')}"


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.fail("Chromium is missing; apt-get install chromium chromium-driver, or leave out tests marked slow")
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(programs[1])))
    try:
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", _NO_NETWORK)
        yield driver
    finally:
        driver.quit()


_NO_NETWORK = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}


def opened(browser: webdriver.Chrome, page: str, width: int, scheme: str) -> None:
    metrics: dict[str, Any] = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page)
    drawn = "return [...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('svg.marks'))"
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(drawn))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_legible_and_says_nothing_in_the_console(
    browser: webdriver.Chrome, page: str, width: int, scheme: str
) -> None:
    opened(browser, page, width, scheme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for chart in browser.find_elements(By.CSS_SELECTOR, ".chart svg.marks"):
        assert 200 < chart.size["width"] <= width
    colours = browser.execute_script(
        "const found = getComputedStyle(document.body); return [found.color, found.backgroundColor]"
        ".map((text) => text.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 765)"
    )
    # letters and paper are far apart, and the paper is as was asked
    assert abs(colours[0] - colours[1]) > 0.7 and (colours[1] > 0.5) == (scheme == "light")
    label = browser.find_element(By.CSS_SELECTOR, ".chart .role-axis-label text").get_attribute("fill")
    assert label == {"light": "#5a626c", "dark": "#a0a9b3"}[scheme]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_point_tells_what_it_is(browser: webdriver.Chrome, page: str, width: int) -> None:
    opened(browser, page, width, "light")
    chart = browser.find_element(By.CSS_SELECTOR, ".chart")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    point = chart.find_elements(By.CSS_SELECTOR, ".mark-symbol.role-mark path")[-1]
    ActionChains(browser).move_to_element(point).perform()
    tip = WebDriverWait(browser, 10).until(
        lambda driver: driver.find_element(By.CSS_SELECTOR, "#vg-tooltip-element.visible")
    )
    assert all(word in tip.text for word in ("curve", "ratio asked", "removed", "dense", "60.00", "seeds"))


def test_the_slider_goes_through_the_search(browser: webdriver.Chrome, page: str) -> None:
    opened(browser, page, 1280, "light")
    cells = "return JSON.stringify([...document.querySelectorAll('.chart')].map((chart) => [...chart.querySelectorAll("
    cells += "'.mark-text.role-mark text')].map((text) => text.textContent)).filter((texts) => texts.length).at(-1))"
    after = set(json.loads(browser.execute_script(cells)))
    move = "const input = document.querySelector('.vega-bind input[type=range]'); input.value = 0;"
    browser.execute_script(move + "input.dispatchEvent(new Event('input'))")
    # at its beginning everything is kept
    WebDriverWait(browser, 10).until(lambda driver: set(json.loads(driver.execute_script(cells))) == {"100%"})
    assert after != {"100%"}


def test_points_are_sorted_by_a_click(browser: webdriver.Chrome, page: str) -> None:
    opened(browser, page, 1280, "light")
    column = "return [...document.querySelectorAll('.sortable tbody tr')].map((row) => row.cells[%d].textContent)"
    heads = [head.text for head in browser.find_elements(By.CSS_SELECTOR, ".sortable th")]
    place = (
        heads.index("validation r_mean".upper()) if "VALIDATION R_MEAN" in heads else heads.index("validation r_mean")
    )
    head = browser.find_elements(By.CSS_SELECTOR, ".sortable th button")[place]
    browser.execute_script("arguments[0].click()", head)
    values = [float(text) for text in browser.execute_script(column % place)]
    assert values == sorted(values) and len(set(values)) > 3
