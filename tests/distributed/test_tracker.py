"""What a driver knows of its points, and keeps in the store for those who watch."""

import time
from pathlib import Path
from typing import Any

import pytest

from upop_ray.distributed import tracker as module
from upop_ray.distributed.tracker import Tracker
from upop_ray.reporting.ledger import Hours
from upop_ray.reporting.progress import Running, read_progress
from upop_ray.store import Store, SweepPaths


def report(phase: str, step: int, steps: int = 100, loss: float | None = None) -> dict[str, Any]:
    return {"state": phase, "step": step, "steps": steps, "loss": loss, "note": ""}


def test_time_left_follows_from_the_steps_since_the_phase_began(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    tracker = Tracker(store, "s")
    tracker.started("a")
    assert tracker.progress().running == (Running("a"),)
    tracker.reported("a", report("search", 10, loss=2.0))
    now[0] += 20
    tracker.reported("a", report("search", 20))
    # a report of something else than a step
    tracker.reported("a", report("search", 0, steps=0))
    assert tracker.progress().running == (Running("a", "search", 20, 100, 2.0, left=160.0),)
    tracker.reported("a", report("retrain", 5, loss=1.0))
    assert tracker.progress().running == (Running("a", "retrain", 5, 100, 1.0, left=None),)
    tracker.left("a")
    assert tracker.progress().running == ()


def test_the_store_has_the_last_moment(store: Store) -> None:
    assert read_progress(store, "s") is None
    tracker = Tracker(store, "s")
    tracker.begin(3)
    tracker.started("a")
    tracker.waiting = "waits for nodes"
    tracker.note("a: crash 1")
    # just written
    tracker.keep()
    found = read_progress(store, "s")
    assert found is not None and (found.state, found.total, found.running) == ("running", 3, ())
    store.write_json(f"{SweepPaths('s').reservations}/r.json", {"begun": 1.0, "cpu_seconds": 7200, "gpu_seconds": 0})
    tracker.end(interrupted=True)
    found = read_progress(store, "s")
    assert found is not None and (found.state, found.running, found.waiting) == ("interrupted", (), "")
    assert found.notes == ("a: crash 1",) and found.hours == Hours(cpu=2.0)
    assert time.time() - found.updated < 60


def test_an_outage_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(str(tmp_path))
    # a file stands where the folder should be
    store.write("sweeps", b"")
    monkeypatch.setattr(module, "_WRITE", 0.0)
    tracker = Tracker(store, "s")
    for _ in range(3):
        tracker.keep()
    assert sum("progress is kept later" in record.message for record in caplog.records) == 1
