"""The ledger of a real sweep, whose worker is killed in the middle, against what the cluster says is reserved."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

from tests.distributed.test_recovery import disturb
from tests.tiny import tiny_experiment
from upop_ray.distributed.controller import run_sweep
from upop_ray.reporting.ledger import PARTS, Hours, read_ledger
from upop_ray.reporting.points import read_points
from upop_ray.store import Store

CPUS = 2


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Meter:
    """Adds up what of the cluster's CPUs is not free, from outside of the sweep."""

    seconds = 0.0

    def watch(self, ended: threading.Event) -> None:
        last = time.monotonic()
        while not ended.wait(0.05):
            free = ray.available_resources().get("CPU", 0.0)
            now = time.monotonic()
            self.seconds, last = self.seconds + (CPUS - free) * (now - last), now


@contextmanager
def metered() -> Iterator[Meter]:
    meter, ended = Meter(), threading.Event()
    thread = threading.Thread(target=meter.watch, args=(ended,))
    thread.start()
    yield meter
    ended.set()
    thread.join()


@pytest.mark.slow
def test_the_ledger_adds_up_to_what_was_reserved_although_a_worker_is_killed(tmp_path: Path) -> None:
    parts = {"search": {"epochs": 6}, "retrain": {"epochs": 6}, "replica": {"workers": 2}}
    sweep = {"ratios": [0.3, 0.5]}
    experiment = tiny_experiment(tmp_path, name="cost", store=str(tmp_path / "cost"), sweep=sweep, **parts)
    disturb(tmp_path / "cost", signal.SIGKILL)
    before = time.time()
    with metered() as meter:
        result = run_sweep(experiment)
    assert result.exit_code == 0
    store = Store(experiment.store)
    ledger = read_ledger(store, "cost", read_points(store, "cost"))
    assert ledger.spent.cpu * 3600 == pytest.approx(meter.seconds, rel=0.02)
    assert ledger.spent.gpu == 0 and ledger.saved == Hours()
    # the killed point did some of its work again, the other one did not
    lost = [point.parts["lost"].cpu for point in ledger.points]
    assert sorted(hours > 0 for hours in lost) == [False, True]
    assert all(point.parts[part].cpu > 0 for point in ledger.points for part in PARTS if part != "lost")
    for point in ledger.points:
        assert point.row.manifest is not None
        for part in ("search", "retrain"):
            assert point.parts[part].cpu * 3600 == pytest.approx(2 * point.row.manifest["seconds"][part], rel=0.02)
    # the same command again costs nothing and saves all of it
    again = read_ledger(store, "cost", run_sweep(experiment).rows, since=before + result.seconds)
    assert again.spent == Hours()
    assert again.saved.cpu == pytest.approx(ledger.spent.cpu - ledger.idle.cpu)
