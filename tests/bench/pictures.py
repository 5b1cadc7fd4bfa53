"""Pictures of a sweep for the README: ``python -m tests.bench.pictures STORE SWEEP``.

Shows TensorBoard in Chromium (``apt-get install chromium chromium-driver``), and the live table. The sweep of those in
the README is ``python -m upop_ray.sweep experiments/builtin_clip.yaml store=STORE``.
"""

import argparse
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from upop_ray.reporting.live import live_table
from upop_ray.reporting.points import read_points
from upop_ray.reporting.progress import read_progress
from upop_ray.store import Store, SweepPaths

#: seconds that TensorBoard may take to start, and that a page may take to draw
_START, _DRAW = 120.0, 15.0
#: of a picture: fewer colours than a PNG's palette has, which nobody sees in charts
_COLOURS = 64
#: pages are made of elements within elements' own documents
_ALL = """
const all = root => [...root.querySelectorAll('*')].flatMap(e => e.shadowRoot ? [e, ...all(e.shadowRoot)] : [e]);
"""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pictures", description=__doc__)
    parser.add_argument("store")
    parser.add_argument("sweep")
    parser.add_argument("pictures", nargs="*", choices=[*_BOARD, "terminal", []], help="which (default: all)")
    parser.add_argument("--to", type=Path, default=Path(".github/pictures"))
    options = parser.parse_args()
    store = Store(options.store)
    options.to.mkdir(parents=True, exist_ok=True)
    wanted = options.pictures or [*_BOARD, "terminal"]
    if "terminal" in wanted:
        terminal(store, options.sweep, options.to / "terminal.png")
    if set(wanted) & set(_BOARD):
        with tensorboard(store.path(SweepPaths(options.sweep).tensorboard)) as address:
            for name in set(wanted) & set(_BOARD):
                _BOARD[name](address, options.to / f"{name}.png")
    for picture in sorted(options.to.glob("*.png")):
        print(f"{picture} {picture.stat().st_size / 1000:.0f} kB")


def curves(address: str, to: Path) -> None:
    """The curves over each other, and their values."""
    with browser((1180, 700)) as driver:
        driver.get(f"{address}?smoothing=0&runFilter=curves&tagFilter=curve%20by#timeseries")
        time.sleep(_DRAW)
        # the lowest points would be cut off
        _click(driver, "label", "Ignore outliers in chart scaling")
        _click(driver, "button", "Settings")
        save(driver, to)


def hparams(address: str, to: Path) -> None:
    """The HParams page."""
    with browser((1240, 720)) as driver:
        driver.get(f"{address}#hparams")
        time.sleep(_DRAW)
        _click(driver, "paper-tab", "PARALLEL COORDINATES VIEW")
        save(driver, to)


def kept(address: str, to: Path) -> None:
    """What two points keep of each layer."""
    with browser((1180, 520)) as driver:
        driver.get(f"{address}?runFilter=upop-0.(5|75)&tagFilter=share%20of%20each#timeseries")
        time.sleep(_DRAW)
        _click(driver, "button", "Settings")
        save(driver, to)


def terminal(store: Store, sweep: str, to: Path) -> None:
    """The live table at this moment."""
    rows, progress = read_points(store, sweep), read_progress(store, sweep)
    assert progress is not None
    console = Console(record=True, width=100, height=24, file=io.StringIO(), force_terminal=True)
    console.print(live_table(sweep, rows, progress, progress.updated))
    with tempfile.TemporaryDirectory() as folder, browser((800, 250)) as driver:
        page = Path(folder) / "terminal.html"
        page.write_text(console.export_html(theme=MONOKAI, inline_styles=True))
        driver.get(page.as_uri())
        save(driver, to)


_BOARD = {"curves": curves, "hparams": hparams, "kept": kept}


@contextmanager
def tensorboard(folder: str) -> Iterator[str]:
    """TensorBoard on a folder; gives its address."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://localhost:{port}/"
    try:
        _wait_for(address + "data/runs")
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait_for(address: str) -> None:
    """Wait until something answers that there are runs."""
    deadline = time.monotonic() + _START
    while True:
        try:
            if b"curves" in urlopen(address).read():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"{address}: no runs within {_START:.0f} s")
        time.sleep(1)


@contextmanager
def browser(size: tuple[int, int]) -> Iterator[webdriver.Chrome]:
    """Chromium without a window."""
    program, driver_program = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver_program is None:
        sys.exit("Chromium is missing; apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options=options, service=Service(driver_program))
    try:
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False},
        )
        yield driver
    finally:
        driver.quit()


def save(driver: webdriver.Chrome, to: Path) -> None:
    """Save what the browser shows, in few colours."""
    time.sleep(_DRAW / 3)
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(to, optimize=True)


def _click(driver: webdriver.Chrome, selector: str, text: str) -> None:
    """Click the first element of a kind that has a text."""
    found = driver.execute_script(
        _ALL + "const e = all(document).find(e => e.matches(arguments[0]) && e.textContent.trim() === arguments[1]);"
        "if (e) e.click(); return Boolean(e);",
        selector,
        text,
    )
    if not found:
        raise LookupError(f"TensorBoard has no {text!r} on this page")


if __name__ == "__main__":
    main()
