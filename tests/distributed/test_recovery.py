"""What hangs, leaves or breaks in a sweep on one machine; `make chaos` does the same on a cluster of several nodes."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from tests.tiny import tiny_experiment
from tests.training.test_given_back import leave_after
from upop_ray import run
from upop_ray.config import Experiment, replaced
from upop_ray.distributed.controller import run_sweep
from upop_ray.distributed.losses import Heartbeat, ReplicaError

pytestmark = pytest.mark.slow
TIMEOUT = 300.0


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def experiment(root: Path, name: str, **parts: Any) -> Experiment:
    """Long enough to be disturbed."""
    phases = {"search": {"epochs": 4}, "retrain": {"epochs": 4}}
    return tiny_experiment(root, name=name, store=str(root / name), **(phases | parts))


def disturb(store: Path, number: int, times: int = 1) -> threading.Thread:
    """Send a signal to a training worker each time that the sweep has saved something new."""

    def strike() -> None:
        for _ in range(times):
            until(lambda: list(store.glob("points/*/attempts/*/*/complete.json")))
            worker = until(working)[0]
            worker.send_signal(number)
            until(lambda worker=worker: not worker.is_running() or worker.status() == psutil.STATUS_STOPPED)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("not in time")


def working() -> list[psutil.Process]:
    """Training workers in the middle of their work, among the processes of this test's cluster."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::Worker.advance" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_a_worker_that_hangs_is_noticed_and_the_point_ends_as_if_undisturbed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed = run.run(experiment(tmp_path, "undisturbed"))
    hanging = experiment(tmp_path, "hanging", replica={"heartbeat": 5.0})
    disturb(tmp_path / "hanging", signal.SIGSTOP)
    result = run_sweep(hanging)
    said = capsys.readouterr().out
    assert result.exit_code == 0
    assert "gave no sign of life for replica.heartbeat = 5 s" in said and "goes on from step" in said
    assert result.rows[0].manifest is not None
    assert result.rows[0].manifest["metrics"] == undisturbed["metrics"]


def test_a_worker_that_is_told_to_leave_saves_its_point_which_goes_on_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a checkpoint of its own but the one between the phases, before which nobody is disturbed."""
    undisturbed = run.run(experiment(tmp_path, "undisturbed"))
    disturb(tmp_path / "leaving", signal.SIGTERM)
    # no retry: to leave is no crash
    result = run_sweep(experiment(tmp_path, "leaving", checkpoint_steps=0, sweep={"retries": 0}))
    said = capsys.readouterr().out
    assert result.exit_code == 0
    assert "it goes on elsewhere" in said and "of its retrain" in said
    assert result.rows[0].manifest is not None
    assert result.rows[0].manifest["metrics"] == undisturbed["metrics"]


def test_a_point_that_keeps_crashing_is_set_aside_and_the_next_command_tries_again(tmp_path: Path) -> None:
    crashing = experiment(tmp_path, "crashing", sweep={"retries": 1})
    disturb(tmp_path / "crashing", signal.SIGKILL, times=2)
    result = run_sweep(crashing)
    assert result.exit_code == 1
    assert [row.state for row in result.rows] == ["failed"]
    assert "crashed 2 times (sweep.retries), at last: a worker was lost" in result.rows[0].cause
    again = run_sweep(crashing)
    assert (again.exit_code, again.computed) == (0, 1)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_point_goes_on_with_other_workers_and_says_so(
    tmp_path: Path, stage: int, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"stage{stage}"
    begun = experiment(tmp_path, name)
    leave_after(begun, 9)
    result = run_sweep(replaced(begun, {"replica.workers": 2, "replica.zero_stage": stage}))
    said = capsys.readouterr().out
    assert result.exit_code == 0
    assert "goes on from step 9 of its search with 2 workers instead of 1" in said
    assert "no longer identical to the bit" in said
    manifest = result.rows[0].manifest
    assert manifest is not None and manifest["workers"] == 2
    assert manifest["kept_units"] == run.run(experiment(tmp_path, f"alone{stage}"))["kept_units"]


class Pulse:
    """A process that can be asked for a sign of life."""

    def beat(self) -> None: ...

    def pid(self) -> int:
        return psutil.Process().pid


def test_the_heartbeat_tells_a_stopped_process_from_a_running_one() -> None:
    workers = [ray.remote(num_cpus=0)(Pulse).remote() for _ in range(2)]
    pids = ray.get([worker.pid.remote() for worker in workers])
    heartbeat = Heartbeat(workers, 2.0)
    for _ in range(30):
        heartbeat.check()
        time.sleep(0.1)
    stopped = psutil.Process(pids[1])
    stopped.suspend()
    try:
        with pytest.raises(ReplicaError, match=r"worker 1 gave no sign of life for replica\.heartbeat = 2 s"):
            for _ in range(100):
                heartbeat.check()
                time.sleep(0.1)
    finally:
        stopped.resume()
