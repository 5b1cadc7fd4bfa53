"""Hours by part, against sums made by hand from notes written by hand."""

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_experiment
from upop_ray import run
from upop_ray.config import Price
from upop_ray.reporting.costs import cost_lines
from upop_ray.reporting.ledger import PARTS, Hours, Ledger, PointCost, read_ledger
from upop_ray.reporting.points import PointRow
from upop_ray.store import PointPaths, Store, SweepPaths

#: of a finished point: 60 s that count
SECONDS = {"start": 5.0, "search": 30.0, "retrain": 20.0, "evaluate": 4.0, "export": 1.0}


def row(hash: str, state: str = "finished", attempt: int = 0, experiment: str = "mine") -> PointRow:
    replica = {"cpus_per_worker": 2.0, "gpus_per_worker": 0.5}
    manifest = {"seconds": SECONDS, "attempt": attempt, "experiment": experiment, "workers": 3, "replica": replica}
    return PointRow("upop", 0.5, 0, 0, {}, hash, state, "", manifest if state == "finished" else None)


def note(store: Store, hash: str, number: int, seconds: float, **more: Any) -> None:
    content = {"sweep": "mine", "cpus": 6.0, "gpus": 1.5, "begun": 1000.0, "start": 10.0, "parts": {}, "state": "ended"}
    store.write_json(PointPaths(hash).cost(number), content | {"seconds": seconds} | more)


def seconds_of(point: PointCost) -> dict[str, float]:
    """Seconds by part, from the hours of 6 CPUs, after a look at those of 1.5 GPUs."""
    for part in PARTS:
        assert point.parts[part].gpu == pytest.approx(point.parts[part].cpu / 4)
    return {part: round(point.parts[part].cpu * 600, 6) for part in PARTS}


def only(store: Store, point: PointRow, **options: Any) -> PointCost:
    return read_ledger(store, "mine", [point], **options).points[0]


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_of_an_undisturbed_point_everything_counts_and_what_nobody_timed_is_start_up(folder: Store) -> None:
    note(folder, "a", 0, 73.0)
    found = seconds_of(only(folder, row("a")))
    assert found == {"start": 18.0, "search": 30.0, "retrain": 20.0, "evaluate": 5.0, "lost": 0.0}


def test_of_a_point_with_two_attempts_the_second_start_and_the_work_done_again_are_lost(folder: Store) -> None:
    note(folder, "a", 0, 40.0, start=10.0)
    note(folder, "a", 1, 55.0, start=12.0)
    found = seconds_of(only(folder, row("a", attempt=1)))
    assert found == {"start": 15.0, "search": 30.0, "retrain": 20.0, "evaluate": 5.0, "lost": 25.0}


def test_all_of_a_failed_point_is_lost(folder: Store) -> None:
    note(folder, "a", 0, 40.0, parts={"start": 3.0, "search": 12.0})
    assert seconds_of(only(folder, row("a", "failed"))) == dict.fromkeys(PARTS, 0.0) | {"lost": 40.0}


@pytest.mark.parametrize("state", ["stopped", "proposed"])
def test_of_a_point_without_a_manifest_its_last_report_counts(folder: Store, state: str) -> None:
    note(folder, "a", 0, 40.0, parts={"start": 3.0, "search": 12.0, "evaluate": 1.0})
    found = seconds_of(only(folder, row("a", state)))
    assert found == {"start": 27.0, "search": 12.0, "retrain": 0.0, "evaluate": 1.0, "lost": 0.0}


def test_a_point_that_another_sweep_or_an_earlier_run_has_computed_is_saved(folder: Store) -> None:
    note(folder, "theirs", 0, 90.0, sweep="other")
    note(folder, "earlier", 0, 60.0, begun=500.0)
    note(folder, "mine", 0, 120.0)
    rows = [row("theirs"), row("earlier"), row("mine")]
    ledger = read_ledger(folder, "mine", rows, since=900.0)
    assert ledger.spent.cpu == pytest.approx(120 * 6 / 3600)
    assert ledger.saved.cpu == pytest.approx(150 * 6 / 3600)
    assert read_ledger(folder, "mine", rows).saved.cpu == pytest.approx(90 * 6 / 3600)


def test_idle_is_what_was_reserved_beyond_the_points_and_all_adds_up_to_it(folder: Store) -> None:
    note(folder, "a", 0, 100.0)
    note(folder, "b", 0, 50.0, sweep="")
    for run_of_the_sweep, reserved in (("x", 500.0), ("y", 220.0)):
        content = {"begun": 1000.0, "cpu_seconds": reserved, "gpu_seconds": reserved / 4}
        folder.write_json(f"{SweepPaths('mine').reservations}/{run_of_the_sweep}.json", content)
    ledger = read_ledger(folder, "mine", [row("a"), row("b")])
    assert ledger.idle.cpu * 3600 == pytest.approx(720 - 600)
    assert ledger.spent.cpu * 3600 == pytest.approx(720) and ledger.spent.gpu * 3600 == pytest.approx(180)


def test_points_from_before_there_were_notes_count_by_their_own_clock(folder: Store) -> None:
    found = only(folder, row("a"))
    assert seconds_of(found) == {"start": 5.0, "search": 30.0, "retrain": 20.0, "evaluate": 5.0, "lost": 0.0}
    assert not found.measured
    assert only(folder, row("a", experiment="other")).saved.cpu == pytest.approx(60 * 6 / 3600)


def test_the_lines_name_hours_shares_and_prices() -> None:
    parts = dict.fromkeys(PARTS, Hours()) | {"search": Hours(6, 1.5), "lost": Hours(2, 0.5)}
    ledger = Ledger((PointCost(row("a"), parts, Hours(1.0), True),), Hours())
    assert cost_lines(ledger, Price(cpu_hour=0.05, gpu_hour=2.0)) == [
        "cost:   2 GPU-hours, 8 CPU-hours, 4.40 by sweep.price: search 75%, lost to failures 25%",
        "saved:  1 CPU-hours, 0.05 by sweep.price, for points that were in the store already",
    ]
    assert cost_lines(Ledger((), Hours()), Price()) == []


def test_a_point_of_this_process_keeps_notes_that_add_up_to_its_time(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path)
    manifest = run.run(experiment)
    store, hash = Store(experiment.store), str(manifest["hash"])
    noted = store.read_json(PointPaths(hash).cost(0))
    assert (noted["state"], noted["cpus"], noted["gpus"], noted["sweep"]) == ("finished", 1.0, 0.0, "")
    assert noted["start"] + sum(noted["parts"].values()) == pytest.approx(noted["seconds"], abs=0.5)
    # a sweep that finds the point has saved what it cost
    found = only(store, PointRow("upop", 0.5, 0, 0, {}, hash, "finished", "", manifest))
    assert found.spent == Hours() and found.saved.cpu * 3600 == pytest.approx(noted["seconds"])
