"""Points that cannot be placed say why."""

import itertools
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from tests.tiny import tiny_experiment
from upop_ray.config import Replica
from upop_ray.distributed import waiting
from upop_ray.distributed.cluster import Node, places_on
from upop_ray.distributed.controller import run_sweep

TWO_ON_ONE_GPU_EACH = Replica(workers=2, cpus_per_worker=4.0, gpus_per_worker=1.0)


def node(address: str, cpus: tuple[float, float], gpus: tuple[float, float] = (0, 0)) -> Node:
    return Node(address, address, {"CPU": cpus[1], "GPU": gpus[1]}, {"CPU": cpus[0], "GPU": gpus[0]})


def test_what_is_needed_and_what_is_free() -> None:
    nodes = [node("10.0.0.1", (0, 0)), node("10.0.0.2", (4, 8), (0, 2)), node("10.0.0.3", (8, 8))]
    assert waiting.needs(TWO_ON_ONE_GPU_EACH) == "needs 2 x (4 CPU, 1 GPU)"
    # the first is a head that computes nothing
    assert waiting.free(nodes) == "free: 10.0.0.2 4 of 8 CPU, 0 of 2 GPU; 10.0.0.3 8 of 8 CPU"
    assert "and 92 more nodes" in waiting.free(nodes[1:] * 50)


@pytest.mark.parametrize(
    ("nodes", "running", "autoscaler", "words"),
    [
        ([node("a", (0, 8), (0, 2))], 1, False, "points of this sweep to end"),
        ([node("a", (0, 8), (0, 2))], 0, False, "others who use the cluster"),
        ([node("a", (8, 8))], 0, False, "nodes to come (back)"),
        ([node("a", (8, 8))], 0, True, "nodes that the autoscaler was asked for"),
        ([node("a", (0, 8), (0, 2))], 1, True, "the autoscaler to add nodes, or for points that run"),
    ],
)
def test_what_is_waited_for(nodes: list[Node], running: int, autoscaler: bool, words: str) -> None:
    assert words in waiting.waits_for(TWO_ON_ONE_GPU_EACH, nodes, running, autoscaler)


@pytest.mark.parametrize(
    ("cpus", "gpus", "each", "places"), [(8, 2, (4, 1), 2), (8, 1, (4, 1), 1), (0.3, 0, (0.1, 0), 3)]
)
def test_workers_of_several_kinds_of_resources(
    cpus: float, gpus: float, each: tuple[float, float], places: int
) -> None:
    assert places_on({"CPU": cpus, "GPU": gpus}, each) == places


def test_it_is_said_within_ten_seconds_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = itertools.count(), []
    monkeypatch.setattr(waiting.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(waiting, "waiting_groups", lambda: 1)
    monkeypatch.setattr(waiting, "nodes", lambda: [node("10.0.0.2", (0, 8), (0, 2))])
    monkeypatch.setattr(waiting, "has_autoscaler", lambda: False)
    trials = [SimpleNamespace(config={"label": f"upop-{ratio}-seed0"}, status="PENDING") for ratio in (0.5, 0.6)]
    watch = waiting.WaitingPoints(TWO_ON_ONE_GPU_EACH, said.append)
    for second in range(60):
        watch.look(trials)
        assert bool(said) == (second > 8) or second <= 10
    needs = "needs 2 x (4 CPU, 1 GPU); free: 10.0.0.2 0 of 8 CPU, 0 of 2 GPU"
    assert said == [f"waiting  upop-0.5-seed0: {needs}; waits for others who use the cluster"]


@pytest.mark.slow
def test_a_sweep_on_a_cluster_that_is_taken_says_so_and_runs_when_it_is_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        taken: Any = ray.util.placement_group([{"CPU": 2}])
        ray.get(taken.ready())
        threading.Timer(15, ray.util.remove_placement_group, [taken]).start()
        result = run_sweep(tiny_experiment(tmp_path))
    finally:
        ray.shutdown()
    said = capsys.readouterr().out
    assert result.exit_code == 0
    assert "waiting  upop-0.5-seed0: needs 1 x (1 CPU)" in said
    assert "0 of 2 CPU; waits for others who use the cluster" in said
