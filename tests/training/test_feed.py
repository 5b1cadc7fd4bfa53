"""Batches from other processes: the same bits in the same order, errors as they are, and nobody left behind."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import s3fs
import torch

from tests.feeding import ERRORS, Numbers, cursors
from tests.rows import row_experiment
from tests.s3 import S3
from tests.tiny import SIZES, tiny_experiment
from tests.training.test_point import begin, logged, manifest_of, results
from upop_ray.data.order import Cursor
from upop_ray.errors import DataError, UpopError
from upop_ray.training.feed import Feed, Part
from upop_ray.training.objective import Objective, Pace
from upop_ray.training.prepared import prepare


@contextmanager
def feeding(workers: int, steps: list[Cursor], numbers: Numbers | None = None) -> Iterator[Callable[[Cursor], Any]]:
    with closing(Feed(Part((numbers or Numbers()).batch, 0, 1), steps, workers)) as feed:
        yield feed.take


def until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def gone(process: int) -> bool:
    return not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_those_of_this_process_from_any_place_on(workers: int) -> None:
    expected = [Numbers().batch(cursor, 0, 1) for cursor in cursors(8)]
    for first in (0, 3):
        with feeding(workers, cursors(8)[first:]) as take:
            made = [take(cursor) for cursor in cursors(8)[first:]]
        for ours, theirs in zip(expected[first:], made, strict=True):
            assert torch.equal(ours["rows"], theirs["rows"]) and torch.equal(ours["draws"], theirs["draws"])
        assert len({batch["process"] for batch in made}) == workers


def test_the_processes_have_one_thread_and_neither_ray_nor_the_main_module() -> None:
    before = torch.get_rng_state()
    with feeding(2, cursors(2)) as take:
        batch = take(Cursor())
    assert (batch["threads"], batch["ray"], batch["main"]) == (1, False, None)
    assert torch.equal(torch.get_rng_state(), before), "dropout would depend on the number of processes"


def test_the_processes_have_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("first", "second"):
        monkeypatch.setenv("UPOP_TEST_VARIABLE", value)
        with feeding(1, cursors(1)) as take:
            assert take(Cursor())["variable"] == value


def test_closing_ends_the_processes() -> None:
    with feeding(2, cursors(8)) as take:
        processes = {take(cursor)["process"] for cursor in cursors(4)}
    assert len(processes) == 2 and until(lambda: all(map(gone, processes)))


@pytest.mark.parametrize("kind", list(ERRORS))
def test_an_error_of_a_process_is_raised_as_it_is(kind: str) -> None:
    with feeding(2, [Cursor(), Cursor(1), Cursor(0, 1)], Numbers(error=kind)) as take:
        processes = {take(Cursor())["process"]}
        with pytest.raises(UpopError) as caught:
            take(Cursor(1))
    assert type(caught.value) is type(ERRORS[kind]) and str(caught.value) == str(ERRORS[kind])
    assert until(lambda: all(map(gone, processes)))


def test_a_process_that_dies_is_said_in_one_line_with_the_cure() -> None:
    said = pytest.raises(DataError, match=r"^data\.workers: a process .* was lost .*lower data\.workers")
    with feeding(1, [Cursor(2)]) as take, said as caught:
        take(Cursor(2))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    target = tmp_path / "processes"
    code = "from tests.feeding import main; main()"
    parent = subprocess.Popen([sys.executable, "-c", code, str(target)], cwd=Path(__file__).parents[2])
    try:
        assert until(target.exists, 300)
        processes = list(map(int, target.read_text().split()))
        assert len(processes) == 2 and not any(map(gone, processes))
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert until(lambda: all(map(gone, processes)))


def test_waiting_is_measured() -> None:
    class Slow:
        def steps_per_epoch(self) -> int:
            return 10

        def batch(self, *_: Any) -> None:
            time.sleep(0.03)

    objective = Objective(Slow())  # type: ignore[arg-type]
    pace = Pace(objective, 8, 4)
    for index in range(2):
        objective._batch(Cursor(0, index))
    time.sleep(0.06)
    measured = pace.measured(6)
    assert measured["waiting_share"] == pytest.approx(0.5, abs=0.2)
    assert measured["examples_per_second"] == pytest.approx(16 / 0.12, rel=0.3)
    time.sleep(0.05)
    assert pace.measured(6)["waiting_share"] == 0.0


def test_the_momentum_twin_is_not_sent_to_the_processes(tmp_path: Path) -> None:
    momentum = {"loss": "momentum", "momentum": {"queue_size": 8}}
    prepared = prepare(row_experiment("blip_retrieval", tmp_path, task=momentum))
    task = prepared.task()
    task.start(prepared.model)
    weights = sum(value.numel() * value.itemsize for value in task.state().values())
    assert 0 < len(pickle.dumps(Part(task.batch, 0, 1))) < weights / 10


def test_a_point_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    experiments = [
        tiny_experiment(tmp_path, store=str(tmp_path / f"{workers}"), data={"workers": workers}) for workers in (0, 2)
    ]
    assert len({manifest_of(experiment)["hash"] for experiment in experiments}) == 1
    killed = tiny_experiment(tmp_path, store=str(tmp_path / "killed"), data={"workers": 1})
    steps = begin(killed)
    # in the middle of an epoch
    for _ in range(2):
        next(steps)
    del steps
    manifest_of(killed)
    (metrics, weights), *others = map(results, [*experiments, killed])
    for other_metrics, other_weights in others:
        assert other_metrics == metrics
        assert all(torch.equal(other_weights[key], value) for key, value in weights.items())
    assert logged(experiments[0]) == logged(experiments[1]) == logged(killed)


def test_a_point_does_not_depend_on_where_its_images_are(tmp_path: Path, s3: S3) -> None:
    """Held in memory, streamed from a folder, and from a bucket through the cache by two processes."""
    tiny_experiment(tmp_path)
    files = s3fs.S3FileSystem()
    files.put(str(tmp_path / "data"), f"{s3.bucket}/tiny", recursive=True)
    order = {"lanes": 4, "buffer": 6}
    kinds: dict[str, dict[str, Any]] = {
        "held": order,
        "streamed": order | {"in_memory_mb": 0.0},
        "fetched": order
        | {
            "path": s3.uri("tiny"),
            "in_memory_mb": 0.0,
            "cache": str(tmp_path / "cache"),
            "cache_gb": 1.0,
            "workers": 2,
        },
    }
    experiments = [tiny_experiment(tmp_path, store=str(tmp_path / name), data=data) for name, data in kinds.items()]
    assert len({manifest_of(experiment)["hash"] for experiment in experiments}) == 1
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == len(SIZES)
    (metrics, weights), *others = map(results, experiments)
    for other_metrics, other_weights in others:
        assert other_metrics == metrics
        assert all(torch.equal(other_weights[key], value) for key, value in weights.items())
