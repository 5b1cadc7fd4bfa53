"""``python -m tests.bench.scale --points 2000 --at-once 500``: the sweep controller with points that compute nothing.

Ray's scheduling, Tune, Optuna, the store and the curves are real; the trials of all points live in a few processes
instead of one each, since 500 processes of 150 MB fit on no small machine. A point takes a random time, reports ten
times, and at 5% of them its node is lost once.
"""

import argparse
import asyncio
import contextlib
import itertools
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import ray
from ray import tune
from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources

from tests.tiny import tiny_experiment
from upop_ray import config
from upop_ray.config import Experiment
from upop_ray.distributed import controller
from upop_ray.distributed.losses import NodeLost
from upop_ray.distributed.plan import known_members
from upop_ray.reporting.points import read_points
from upop_ray.reporting.table import points_table
from upop_ray.reporting.writing import write_report
from upop_ray.store import PointPaths, Store
from upop_ray.training.checkpoint import Attempt
from upop_ray.training.prepared import content_addresses

HOSTS = 2
REPORTS = 10
LOSSES = 0.05
METHODS = ("upop", "magnitude")
RATIOS = (0.2, 0.4, 0.5, 0.6, 0.8)


class SimulatedTrial(tune.Trainable):
    """Does to the store what a point does, without its model and checkpoints."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.experiment = config.parse(new_config["experiment"])
        self.paths = PointPaths(content_addresses(self.experiment)[0])
        self.store, self.reports = Store(self.experiment.store), 0
        return True

    def step(self) -> dict[str, Any]:
        if self.reports == 0:
            self.store.write_json(self.paths.settings, self.experiment.model_dump(mode="json"))
            attempt = Attempt.begin(self.store, self.paths)
            self.lost = attempt.number == 0 and random.random() < LOSSES
        self.reports += 1
        if self.lost and self.reports > REPORTS // 2:
            raise NodeLost("a node was lost")
        if self.reports < REPORTS:
            return {"state": "search", "step": self.reports, "done": False}
        self.store.write_json(self.paths.manifest, manifest(self.experiment, self.paths.hash))
        self.store.remove(self.paths.attempts)
        return {"state": "finished", "step": self.reports, "done": True}


def manifest(experiment: Experiment, hash: str) -> dict[str, Any]:
    """As large as a real one, with made-up numbers."""
    left, metric = 1 - experiment.search.ratio, {"r_mean": random.uniform(40, 60)}
    return {
        "hash": hash,
        "headline": "r_mean",
        "dense": {"parameters": 1000, "macs": 1000, "validation": {"r_mean": 60.0}, "test": {"r_mean": 60.0}},
        "parameters": round(1000 * left),
        "macs": round(1000 * left),
        "budget": {"achieved": experiment.search.ratio},
        "compression": {"parameters": 1 - left, "macs": 1 - left},
        "metrics": {"before_retraining": metric, "validation": metric, "test": metric},
        "seconds": {"search": 1.0},
        "settings": experiment.model_dump(mode="json"),
        "kept_units": {f"vision.layers.{layer}.{kind}": 10 for layer in range(24) for kind in ("attention", "mlp")},
    }


class Host:
    """Many trials in one process."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.trials = seconds, {}

    async def call(self, trial: int, method: str, *arguments: Any, **named: Any) -> Any:
        if method == "__init__":
            self.trials[trial] = SimulatedTrial(**named)
        elif method == "train":
            await asyncio.sleep(random.uniform(0.5, 1.5) * self.seconds / REPORTS)
            return self.trials[trial].train()
        elif method in ("__ray_terminate__", "stop"):
            self.trials.pop(trial, None)
        elif method != "__ray_ready__":
            return getattr(self.trials[trial], method)(*arguments, **named)
        return None


class Handle:
    """What Tune holds instead of the handle of an actor."""

    def __init__(self, host: Any, number: int) -> None:
        self._host, self._number = host, number

    def __getattr__(self, method: str) -> Any:
        call = mock.Mock()
        call.options.return_value = call
        call.remote = lambda *arguments, **named: self._host.call.remote(self._number, method, *arguments, **named)
        return call


@contextlib.contextmanager
def simulated(seconds: float) -> Iterator[None]:
    """Tune starts trials on hosts, under the placement groups that it asks Ray for."""
    hosts = [ray.remote(num_cpus=0, max_concurrency=1000)(Host).remote(seconds) for _ in range(HOSTS)]
    numbers, kill = itertools.count(), ray.kill

    def annotate(self: Any, entities: Any) -> Any:
        actor_class = mock.Mock()

        def remote(**named: Any) -> Handle:
            number = next(numbers)
            handle = Handle(hosts[number % HOSTS], number)
            handle.__getattr__("__init__").remote(**named)
            return handle

        actor_class.remote = remote
        return [actor_class]

    def kill_unless_simulated(actor: Any, **options: Any) -> None:
        if not isinstance(actor, Handle):
            kill(actor, **options)

    with (
        mock.patch.object(PlacementGroupAcquiredResources, "annotate_remote_entities", annotate),
        mock.patch.object(ray, "kill", kill_unless_simulated),
        mock.patch.object(controller, "PointTrial", SimulatedTrial),
    ):
        yield


def experiment_of(root: Path, store: str, points: int, at_once: int) -> Experiment:
    """A grid of about so many points."""
    seeds = list(range(points // (len(METHODS) * len(RATIOS))))
    sweep = {"ratios": list(RATIOS), "methods": list(METHODS), "seeds": seeds, "max_concurrent": at_once}
    return tiny_experiment(root, name="scale", store=store, replica={"cpus_per_worker": 0.1}, sweep=sweep)


def measure(experiment: Experiment, at_once: int, seconds: float) -> None:
    """Run, run again, list and report, and print how long each took."""
    store = Store(experiment.store)
    ray.init(num_cpus=at_once, include_dashboard=False, log_to_driver=False)
    try:
        with simulated(seconds):
            result = controller.run_sweep(experiment)
            again = controller.run_sweep(experiment)
    finally:
        ray.shutdown()
    ideal = result.computed * seconds / at_once
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{result.computed} points, {at_once} at once, {seconds:g} s each: exit code {result.exit_code}")
    print(f"sweep: {result.seconds:.1f} s, {result.computed / result.seconds:.1f} points/s (at best {ideal:.1f} s)")
    print(f"resubmitted with {again.reused} points there: {again.seconds:.1f} s; largest memory {memory:.0f} MiB")
    for what, action in (
        ("list what the sweep has", lambda: known_members(store, experiment)),
        ("read what the points found", lambda: read_points(store, experiment.name)),
        ("table", lambda: points_table(result.rows)),
        ("report", lambda: write_report(store, [experiment.name], Store(f"{experiment.store}/report"))),
    ):
        start = time.monotonic()
        action()
        print(f"{what}: {time.monotonic() - start:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0, help="that a point takes, on the average")
    parser.add_argument("--store", help="default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="upop-scale-") as folder:
        root = Path(folder)
        store = options.store or str(root / "store")
        measure(experiment_of(root, store, options.points, options.at_once), options.at_once, options.seconds)


if __name__ == "__main__":
    main()
