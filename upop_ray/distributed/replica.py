"""A replica: Ray actors that together hold one DeepSpeed-sharded model and go from point to point with it."""

import time
import uuid
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from upop_ray.config import Replica as ReplicaSettings
from upop_ray.distributed.cluster import Bundles, draining_nodes
from upop_ray.distributed.losses import Heartbeat, NodeLost, ReplicaError, broke_a_connection, first_line, is_known_dead
from upop_ray.distributed.worker import worker_actor
from upop_ray.training.progress import Progress

#: a trial's own actor needs more than no CPU
CONTROL_CPUS = 0.01
#: seconds between two looks at workers that compute, and at the nodes under them
_LOOK = 1.0
_LOOK_AT_NODES = 5.0
#: seconds in which the cluster finds out whether a lost worker's node is gone too
_VERDICT = 60.0


class Replica:
    """The workers of one replica, seen from outside: starts them in a placement group and moves them together.

    :ivar leaving: set from outside to have the point saved and given back
    """

    def __init__(self, settings: ReplicaSettings, group: PlacementGroup, first_bundle: int, outage: float) -> None:
        """Start the workers and their process group.

        :param first_bundle: bundle of ``group`` that rank 0 takes
        :param outage: seconds that workers may wait for the store, beyond ``settings.timeout``
        :raises ReplicaError: they are not up within both
        """
        self._patience = settings.timeout + outage
        self._ahead: list[Any] = []
        self.leaving = False
        self._told = False
        self._bundles = Bundles(group)
        self._looked = self._looked_at_nodes = time.monotonic()
        actor, name = worker_actor(), f"{name_prefix()}{uuid.uuid4().hex[:8]}"
        self.workers = [
            actor.options(
                name=f"{name}-{rank}",
                num_cpus=bundle.get("CPU", 0.0),
                num_gpus=bundle.get("GPU", 0.0),
                runtime_env={"env_vars": worker_environment(settings)},
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=first_bundle + rank
                ),
            ).remote(settings)
            for rank, bundle in enumerate(worker_bundles(settings))
        ]
        self._heartbeat: Heartbeat | None = None
        try:
            address, port = self._together([self.workers[0].address.remote()])[0]
            self._together([w.join.remote(rank, address, port) for rank, w in enumerate(self.workers)])
        except BaseException:
            self.kill()
            raise
        self._heartbeat = Heartbeat(self.workers, settings.heartbeat)

    def start(self, values: dict[str, Any], attempt: int) -> None:
        """Make a point ready on every worker."""
        self._ahead = []
        self._together([worker.start.remote(values, attempt) for worker in self.workers])

    def advance(self) -> Progress:
        """Go on to the next report and return that of rank 0; the workers go on while it is looked at.

        :raises UpopError: the point cannot be computed
        :raises GivenBack: the workers were told to leave, and the point has been saved
        :raises NodeLost: a node under the replica is gone
        :raises ReplicaError: a worker died, gave no sign of life, or did not report in time
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
        deadline = time.monotonic() + self._patience
        if self._heartbeat is not None:
            self._heartbeat.restart()
        waiting = list(calls)
        while waiting:
            left = deadline - time.monotonic()
            ready, waiting = ray.wait(waiting, timeout=max(0.0, min(_LOOK, left)))
            for call in ready:
                self._raise_failure(call)
            if waiting and left <= 0:
                raise ReplicaError(
                    f"a worker did not answer within replica.timeout + store_timeout = {self._patience:.0f} s; it "
                    "hangs, or a report takes longer: raise replica.timeout or lower report_steps"
                )
            # by the clock, and not while nothing is ready: reports may come one after the other without a pause
            if time.monotonic() - self._looked >= _LOOK:
                self._look()
        return list(ray.get(calls))

    def _look(self) -> None:
        """While the workers compute: see that they live, and whether they have to leave."""
        self._looked = time.monotonic()
        if self._heartbeat is not None:
            self._heartbeat.check()
        if time.monotonic() - self._looked_at_nodes > _LOOK_AT_NODES:
            self._looked_at_nodes = time.monotonic()
            self.leaving = self.leaving or bool(self._bundles.nodes & draining_nodes())
        if self.leaving and not self._told:
            self._told = True
            for worker in self.workers:
                worker.give_back.remote()

    def _raise_failure(self, call: Any) -> None:
        try:
            ray.get(call)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if broke_a_connection(cause):
                raise self._loss(f"the connection between the workers broke: {first_line(cause)}") from error
            raise cause from None
        except ray.exceptions.RayError as error:
            raise self._loss(f"a worker was lost: {_what_happened(error)}") from error

    def _loss(self, text: str) -> ReplicaError:
        """What a broken connection or a dead worker means; a lost node is not the point's fault."""
        end = time.monotonic() + _VERDICT
        while time.monotonic() < end:
            if self._bundles.lost():
                return NodeLost(f"a node was lost ({text})")
            if any(is_known_dead(worker) for worker in self.workers):
                # the cluster knows of a dead worker from its node, or from the node's own end
                return NodeLost(f"a node was lost ({text})") if self._bundles.lost() else ReplicaError(text)
            time.sleep(_LOOK)
        return ReplicaError(text)


def name_prefix() -> str:
    """How the names of this job's workers begin, by which they are found in `ray list actors` and by the driver."""
    return f"upop-worker-{ray.get_runtime_context().get_job_id()}-"


def give_back_all(seconds: float) -> int:
    """Have all workers of this job save their points; returns how many did within ``seconds``."""
    names = [name for name in ray.util.list_named_actors() if name.startswith(name_prefix())]
    workers = []
    for name in names:
        try:
            workers.append(ray.get_actor(name))
        except ValueError:
            # it ended between the two calls
            continue
    for worker in workers:
        worker.give_back.remote()
    calls = [worker.wind_up.remote() for worker in workers]
    done, _ = ray.wait(calls, num_returns=len(calls), timeout=seconds) if calls else ([], [])
    return sum(_succeeded(call) for call in done)


def worker_bundles(settings: ReplicaSettings) -> list[dict[str, float]]:
    """Resources of each worker; the first leaves a sliver of its CPU to the trial's own actor, which only waits."""
    bundle = {"CPU": settings.cpus_per_worker}
    if settings.gpus_per_worker:
        bundle["GPU"] = settings.gpus_per_worker
    return [bundle | {"CPU": settings.cpus_per_worker - CONTROL_CPUS}] + [dict(bundle)] * (settings.workers - 1)


def replica_bundles(settings: ReplicaSettings) -> list[dict[str, float]]:
    """Resources of a trial: a bundle for its own actor, and one for each worker."""
    return [{"CPU": CONTROL_CPUS}, *worker_bundles(settings)]


def worker_environment(settings: ReplicaSettings) -> dict[str, str]:
    """Environment of a worker's process: its threads, which wait asleep and leave the cores to other replicas."""
    environment = {"OMP_NUM_THREADS": str(max(1, round(settings.cpus_per_worker))), "OMP_WAIT_POLICY": "PASSIVE"}
    return environment | ({"DS_ACCELERATOR": "cpu"} if settings.gpus_per_worker == 0 else {})


def _succeeded(call: Any) -> bool:
    try:
        ray.get(call)
    except ray.exceptions.RayError:
        return False
    return True


def _what_happened(error: BaseException) -> str:
    """Ray puts what happened behind the names of actor and node, and guesses behind that."""
    text = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return text.split(" Some common causes", 1)[0].strip()
