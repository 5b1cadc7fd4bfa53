"""What a trial makes of errors, and how often it looks after its replica; without Ray."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tiny import tiny_experiment
from upop_ray.distributed import replica as replicas
from upop_ray.distributed.replica import Replica
from upop_ray.distributed.trial import PointTrial
from upop_ray.errors import DataError
from upop_ray.store import PointPaths, Store
from upop_ray.training.checkpoint import Attempt, last_error


def trial_that_meets(error: Exception, root: Path, attempt: Attempt | None) -> Any:
    """A trial whose next step ends so."""

    def meet() -> None:
        raise error

    trial: Any = object.__new__(PointTrial)
    trial._experiment = tiny_experiment(root, sweep={"retries": 1})
    trial._attempt, trial._crashes, trial._pending = attempt, 0, True
    trial._replica = trial._occupation = trial._board = None
    trial._known = meet
    return trial


def test_what_nobody_expected_counts_as_a_crash_and_its_traceback_is_kept(tmp_path: Path) -> None:
    """A device that is out of order raises as a defect does, and the point is not to blame."""
    store, paths = Store(str(tmp_path / "store")), PointPaths("abc")
    attempt = Attempt.begin(store, paths)
    trial = trial_that_meets(RuntimeError("CUDA error: uncorrectable ECC error"), tmp_path, attempt)
    first, second = trial.step(), trial.step()
    assert (first["done"], first["state"]) == (False, "crashed") and "uncorrectable ECC" in first["note"]
    assert (second["done"], second["state"]) == (True, "failed")
    assert second["cause"].startswith("crashed 2 times (sweep.retries), at last: RuntimeError: CUDA error")
    assert attempt.error_path in second["cause"] and "Traceback" in last_error(store, paths)


def test_an_error_before_the_first_attempt_is_that_of_no_attempt(tmp_path: Path) -> None:
    trial = trial_that_meets(OSError("no route"), tmp_path, None)
    assert [trial.step()["state"] for _ in range(2)] == ["crashed", "failed"]


def test_what_a_user_can_cure_is_not_tried_again(tmp_path: Path) -> None:
    trial = trial_that_meets(DataError("val, row 4: is no image"), tmp_path, None)
    assert trial.step() == {"done": True, "state": "failed", "cause": "val, row 4: is no image"}


def test_workers_are_told_to_leave_also_while_reports_come_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    def waited(calls: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        time.sleep(0.01)
        return calls, []

    monkeypatch.setattr(replicas.ray, "wait", waited)
    monkeypatch.setattr(replicas.ray, "get", lambda calls: calls)
    replica: Any = object.__new__(Replica)
    replica._patience, replica._heartbeat, replica._told, replica.leaving = 60.0, None, False, True
    replica._looked = replica._looked_at_nodes = time.monotonic()
    give_back = SimpleNamespace(remote=lambda: told.append(1))
    replica.workers = [SimpleNamespace(give_back=give_back)] * 2
    begun = time.monotonic()
    while not told and time.monotonic() - begun < 10:
        replica._together(["a report", "another"])
    # once, and both
    replica._together(["a report", "another"])
    assert told == [1, 1]
