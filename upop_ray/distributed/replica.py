"""A replica: Ray actors that together hold one DeepSpeed-sharded model and go from point to point with it."""

import socket
import time
from collections.abc import Iterator
from typing import Any

import ray
import torch
from ray.exceptions import RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from upop_ray import config
from upop_ray.config import Replica as ReplicaSettings
from upop_ray.distributed.zero import start_process_group, zero_engine
from upop_ray.store import PointPaths, Store
from upop_ray.tracking import quieten
from upop_ray.training.checkpoint import Attempt
from upop_ray.training.point import Host, Point, Progress
from upop_ray.training.prepared import prepare

#: a trial's own actor needs more than no CPU
CONTROL_CPUS = 0.01


class ReplicaError(Exception):
    """A worker died, hung or could not start; the point is taken up again from its last checkpoint."""


class Worker:
    """One process of a replica (a Ray actor): joins the process group once, then runs points step by step."""

    def __init__(self, settings: ReplicaSettings) -> None:
        quieten()
        self._settings = settings
        self._steps: Iterator[Progress] = iter(())
        torch.set_num_threads(max(1, round(settings.cpus_per_worker)))

    def address(self) -> tuple[str, int]:
        """Host and a free port for the process group, asked of rank 0."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def join(self, rank: int, address: str, port: int) -> None:
        """Join the process group."""
        start_process_group(self._settings, rank, address, port)

    def start(self, values: dict[str, Any], attempt: int) -> None:
        """Make a point ready; its first step is taken by the first :meth:`advance`."""
        experiment = config.parse(values)
        store = Store(experiment.store)
        prepared = prepare(experiment)
        on_gpu = experiment.replica.gpus_per_worker > 0
        device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        factory = zero_engine(experiment.replica, experiment.batch_size)
        host = Host(store, factory, Attempt(store, PointPaths(prepared.hash), attempt), device)
        self._steps = Point(prepared, host).run()

    def advance(self) -> Progress:
        """Go on to the next report; every rank reports at the same steps."""
        return next(self._steps)

    def leave(self) -> None:
        """Leave the process group, without which the process would abort at its exit."""
        self._steps = iter(())
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


class Replica:
    """The workers of one replica, seen from outside: starts them in a placement group and moves them together."""

    def __init__(self, settings: ReplicaSettings, group: PlacementGroup, first_bundle: int) -> None:
        """Start the workers and their process group.

        :param first_bundle: bundle of ``group`` that rank 0 takes
        :raises ReplicaError: they are not up within ``settings.timeout`` seconds
        """
        self._settings = settings
        self._ahead: list[Any] = []
        actor = ray.remote(Worker)
        self.workers = [
            actor.options(
                num_cpus=bundle.get("CPU", 0.0),
                num_gpus=bundle.get("GPU", 0.0),
                runtime_env={"env_vars": worker_environment(settings)},
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=first_bundle + rank
                ),
            ).remote(settings)
            for rank, bundle in enumerate(worker_bundles(settings))
        ]
        try:
            address, port = self._together([self.workers[0].address.remote()])[0]
            self._together([w.join.remote(rank, address, port) for rank, w in enumerate(self.workers)])
        except BaseException:
            self.kill()
            raise

    def start(self, values: dict[str, Any], attempt: int) -> None:
        """Make a point ready on every worker."""
        self._ahead = []
        self._together([worker.start.remote(values, attempt) for worker in self.workers])

    def advance(self) -> Progress:
        """Go on to the next report and return that of rank 0; the workers go on while it is looked at.

        :raises UpopError: the point cannot be computed
        :raises ReplicaError: a worker died, or did not report within ``settings.timeout`` seconds
        """
        progress = self._together(self._ahead or self._advancing())[0]
        assert isinstance(progress, Progress)
        self._ahead = self._advancing() if progress.manifest is None else []
        return progress

    def _advancing(self) -> list[Any]:
        return [worker.advance.remote() for worker in self.workers]

    def shut_down(self) -> None:
        """End the workers in an orderly way, or by force when one does not answer."""
        try:
            ray.get([worker.leave.remote() for worker in self.workers], timeout=10)
        except Exception as error:  # noqa: BLE001 - whatever keeps a worker from leaving, it is killed next
            print(f"a worker did not leave in order ({type(error).__name__}); it is killed")
        self.kill()

    def kill(self) -> None:
        """End the workers at once."""
        for worker in self.workers:
            ray.kill(worker)

    def _together(self, calls: list[Any]) -> list[Any]:
        """Results of one call on each worker; the first failure counts at once, its peers would wait for ever."""
        deadline = time.monotonic() + self._settings.timeout
        waiting = list(calls)
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ReplicaError(
                    f"a worker did not answer within replica.timeout = {self._settings.timeout:.0f} s; it hangs, or a "
                    "report takes longer: raise replica.timeout or lower report_steps"
                )
            for call in ready:
                _raise_failure(call)
        return list(ray.get(calls))


def worker_bundles(settings: ReplicaSettings) -> list[dict[str, float]]:
    """Resources of each worker; the first leaves a sliver of its CPU to the trial's own actor, which only waits."""
    bundle = {"CPU": settings.cpus_per_worker}
    if settings.gpus_per_worker:
        bundle["GPU"] = settings.gpus_per_worker
    return [bundle | {"CPU": settings.cpus_per_worker - CONTROL_CPUS}] + [dict(bundle)] * (settings.workers - 1)


def worker_environment(settings: ReplicaSettings) -> dict[str, str]:
    """Environment of a worker's process: its threads, which wait asleep and leave the cores to other replicas."""
    environment = {"OMP_NUM_THREADS": str(max(1, round(settings.cpus_per_worker))), "OMP_WAIT_POLICY": "PASSIVE"}
    return environment | ({"DS_ACCELERATOR": "cpu"} if settings.gpus_per_worker == 0 else {})


def _raise_failure(call: Any) -> None:
    try:
        ray.get(call)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except ray.exceptions.RayError as error:
        raise ReplicaError(f"a worker was lost: {str(error).strip().splitlines()[0]}") from error
