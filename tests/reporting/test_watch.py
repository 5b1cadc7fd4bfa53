"""Watching a sweep by its store: lines in a pipe, a table in a terminal that may change its size, Ctrl-C to leave."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reporting.results import Made, Template, write_sweep
from upop_ray.errors import StoreError
from upop_ray.reporting.progress import Running, SweepProgress
from upop_ray.reporting.watch import Watcher, latest_sweep, watch
from upop_ray.store import PointPaths, Store, SweepPaths
from upop_ray.terminal import console

_SECONDS = 120.0


def say(store: Store, sweep: str, progress: SweepProgress) -> None:
    store.write_json(SweepPaths(sweep).progress, progress.as_json())


def going(updated: float | None = None) -> SweepProgress:
    running = (Running("upop-0.5-seed0", "search", 40, 100, 1.25, 75.0),)
    return SweepProgress("running", time.time() if updated is None else updated, 3, running)


@pytest.fixture
def results(tmp_path: Path, real: Template) -> Store:
    """A store with a sweep of a finished point and one that runs."""
    store = Store(str(tmp_path / "results"))
    write_sweep(store, real, "s", [Made("upop", 0.3, 0, 55.0), Made("upop", 0.5, 0, None)])
    say(store, "s", going())
    return store


def test_lines_come_when_something_has_changed_and_end_with_the_run(
    results: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([going(), going(), going().ended("ended", time.time())])
    monkeypatch.setattr("upop_ray.reporting.watch.time.sleep", lambda seconds: say(results, "s", next(moments)))
    with console.capture() as capture:
        assert watch(results, "s") == 0
    assert capture.get().splitlines()[:3] == [
        "s: 1 of 3 finished, 1 running, 1 waiting",
        "upop-0.5-seed0 search 40/100 loss 1.250",
        "s: 1 of 3 finished, 2 waiting, ended",
    ]


def test_what_has_finished_is_read_once_and_what_is_new_is_seen(
    results: Store, real: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watcher(results, "s")
    (done, begun), _ = watcher.look()
    results.remove(PointPaths(done.hash).manifest)
    (new,) = write_sweep(results, real, "s", [Made("upop", 0.9, 0, 40.0)])
    rows, progress = watcher.look()
    assert [(row.hash, row.state) for row in rows] == [
        (done.hash, "finished"), (begun.hash, "proposed"), (new, "finished")
    ]  # fmt: skip
    assert progress.running == going().running


def test_the_sweep_that_ran_last_is_shown_and_an_unknown_one_refused(results: Store, real: Template) -> None:
    write_sweep(results, real, "older", [Made("upop", 0.3, 0, 55.0)])
    assert latest_sweep(results) == "s"
    say(results, "older", replace(going(), updated=time.time() + 10))
    assert latest_sweep(results) == "older"
    with pytest.raises(StoreError, match=r"has no sweep 'c'; there is older, s"):
        watch(results, "c")


@contextmanager
def terminal(command: list[str], size: tuple[int, int]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command in a terminal of its own of (lines, columns)."""
    driver, screen = pty.openpty()
    resize(screen, size)
    # a session of its own, whose terminal this is: Ctrl-C is a signal to it, which may be ignored where tests run
    process = subprocess.Popen(
        [sys.executable, "-c", _LEADER, str(screen), *command], pass_fds=[screen], start_new_session=True
    )
    os.close(screen)
    try:
        yield process, driver
    finally:
        process.kill()
        process.wait()
        os.close(driver)


_LEADER = """\
import fcntl, os, runpy, signal, sys, termios
screen = int(sys.argv[1])
fcntl.ioctl(screen, termios.TIOCSCTTY, 0)
for stream in (0, 1, 2):
    os.dup2(screen, stream)
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["TERM"] = "xterm"
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def resize(terminal: int, size: tuple[int, int]) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def until(driver: int, text: bytes) -> bytes:
    """What comes until a text does."""
    found, deadline = b"", time.monotonic() + _SECONDS
    while text not in found:
        assert time.monotonic() < deadline, found
        try:
            found += os.read(driver, 65536)
        except OSError as error:
            raise AssertionError(found) from error
    return found


@pytest.mark.slow
def test_a_terminal_has_a_table_of_its_own_width_and_ctrl_c_leaves(results: Store) -> None:
    with terminal(["upop_ray.report", results.uri, "--watch"], (30, 100)) as (process, driver):
        wide = until(driver, b"40/100")
        assert b"1 of 3 finished, 1 running, 1 waiting" in wide and b"\x1b[?25l" in wide
        resize(driver, (12, 40))
        # cut where the terminal ends
        until(driver, "…".encode())
        say(results, "s", replace(going(), notes=("a note",)))
        until(driver, b"a note")
        os.write(driver, b"\x03")
        # the cursor is back
        until(driver, b"\x1b[?25h")
        assert process.wait(_SECONDS) == 0


@pytest.mark.slow
def test_a_run_that_ends_ends_the_watching(results: Store) -> None:
    with terminal(["upop_ray.report", results.uri, "s", "--watch"], (30, 100)) as (process, driver):
        until(driver, b"40/100")
        say(results, "s", going().ended("ended", time.time()))
        until(driver, b"waiting, ended")
        assert process.wait(_SECONDS) == 0
