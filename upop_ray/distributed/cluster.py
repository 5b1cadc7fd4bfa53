"""What the Ray cluster has: nodes, what is free on them, and who waits."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError
from ray.util.placement_group import PlacementGroup, placement_group_table

from upop_ray.config import Experiment, replaced
from upop_ray.errors import ConfigError
from upop_ray.store import Store

#: what replicas ask for
KINDS = ("CPU", "GPU")
#: 0.3 CPUs hold three workers of 0.1
_ROUNDING = 1e-6
#: where Ray unpacks the working_dir of a job
_JOB_FOLDERS = "working_dir_files"


@dataclass(frozen=True)
class Node:
    """A node that is up, with all its CPUs and GPUs and those that nobody has reserved."""

    id: str
    address: str
    total: dict[str, float]
    free: dict[str, float]


def connect() -> None:
    """Join the cluster of ``RAY_ADDRESS``, or start one on this machine.

    :raises ConfigError: there is none at that address
    """
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        address = os.environ.get("RAY_ADDRESS", "local")
        reason = str(error).strip().splitlines()[0]
        cure = "start the cluster, or unset RAY_ADDRESS to run on this machine alone"
        raise ConfigError("RAY_ADDRESS", f"cannot reach a Ray cluster at {address!r} ({reason})", cure) from error


@contextmanager
def connected() -> Iterator[None]:
    """Be connected, as :func:`connect` does it unless that was done before, for as long as the context lasts."""
    started_here = not ray.is_initialized()
    if started_here:
        connect()
    try:
        yield
    finally:
        if started_here:
            ray.shutdown()


def with_absolute_paths(experiment: Experiment) -> Experiment:
    """Workers run in folders of their own, so what is relative to this one is made absolute.

    :raises ConfigError: the store would lie in the copy of a folder that Ray makes for a job and removes
    """
    store = Store(experiment.store)
    if store.is_local and _JOB_FOLDERS in Path.cwd().parts and not Path(experiment.store).is_absolute():
        cure = "write an absolute folder that all nodes mount, or s3://bucket/prefix"
        raise ConfigError("store", f"{experiment.store!r} would lie in this job's folder, which goes with it", cure)
    changes = {"store": store.uri}
    for field, path in (("model.path", experiment.model.path), ("data.path", experiment.data.path)):
        if Path(path).is_dir():
            changes[field] = str(Path(path).resolve())
    return replaced(experiment, changes)


def nodes() -> list[Node]:
    """The nodes that are up."""
    free = ray._private.state.available_resources_per_node()
    return [
        Node(
            node["NodeID"],
            node["NodeManagerAddress"],
            {kind: node["Resources"].get(kind, 0.0) for kind in KINDS},
            {kind: free.get(node["NodeID"], {}).get(kind, 0.0) for kind in KINDS},
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def draining_nodes() -> set[str]:
    """Ids of the nodes that were told to go away."""
    return set(ray._private.state.state.get_draining_nodes())


def check_resources(experiment: Experiment) -> None:
    """Make sure that a replica can ever be placed on the nodes that are there.

    :raises ConfigError: it asks for more than the cluster, or any node of it, has
    """
    replica, present = experiment.replica, nodes()
    wanted = {"CPU": ("cpus_per_worker", replica.cpus_per_worker), "GPU": ("gpus_per_worker", replica.gpus_per_worker)}
    for kind, (field, each) in wanted.items():
        if not each:
            continue
        largest = max((node.total[kind] for node in present), default=0.0)
        if largest < each:
            raise ConfigError(
                f"replica.{field}", f"{each:g} asked, the largest node has {largest:g} {kind}", "lower it"
            )
    places = sum(places_on(node.total, [each for _, each in wanted.values()]) for node in present)
    if places < replica.workers:
        asked = " and ".join(f"{each:g} {kind}" for kind, (_, each) in wanted.items() if each)
        problem = f"{replica.workers} workers of {asked} asked, the cluster has room for {places}"
        raise ConfigError("replica.workers", problem, f"use at most {places}, or smaller workers")


def places_on(total: dict[str, float], each: Sequence[float]) -> int:
    """How many workers, each with so much of every kind, a node holds."""
    return min(int(total[kind] / size + _ROUNDING) for kind, size in zip(KINDS, each, strict=True) if size)


class Bundles:
    """Where the bundles of a placement group lie, which changes only when a node is lost."""

    def __init__(self, group: PlacementGroup) -> None:
        self._group = group
        self._placed = self._where()
        self.nodes = frozenset(self._placed.values())

    def lost(self) -> bool:
        """Whether a node under the group has gone."""
        return self._where() != self._placed

    def _where(self) -> dict[Any, str]:
        return dict(placement_group_table(self._group)["bundles_to_node_id"])


def waiting_groups() -> int:
    """Placement groups that nobody has found room for; those of other jobs count too."""
    return sum(1 for group in placement_group_table().values() if group["state"] in ("PENDING", "RESCHEDULING"))
