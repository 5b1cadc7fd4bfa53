"""What can happen to a replica's processes, and how it is noticed."""

import time
from collections.abc import Sequence
from typing import Any

import ray
import torch


class ReplicaError(Exception):
    """A worker died, hung or could not start; the point is taken up again from its last checkpoint."""


class NodeLost(ReplicaError):
    """A node under the replica is gone, for which the point is not to blame."""


class Heartbeat:
    """Notices workers whose processes answer nothing, also while their peers wait for them in a collective.

    A process that runs but never ends its step is not noticed here; that is what ``replica.timeout`` is for.
    """

    def __init__(self, workers: Sequence[Any], seconds: float) -> None:
        self._workers, self._seconds = workers, seconds
        self._asked: dict[Any, int] = {}
        self._heard: dict[int, float] = {}
        self.restart()

    def restart(self) -> None:
        """Count from now on; nobody listened before."""
        self._heard = dict.fromkeys(range(len(self._workers)), time.monotonic())

    def check(self) -> None:
        """Hear who has answered, and ask again.

        :raises ReplicaError: a worker has been silent for too long
        """
        answered = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)[0] if self._asked else []
        for call in answered:
            # a dead worker's answer counts too: the call that is waited for tells of its death
            self._heard[self._asked.pop(call)] = time.monotonic()
        for rank in set(self._heard) - set(self._asked.values()):
            self._asked[self._workers[rank].beat.remote()] = rank
        silent = [rank for rank, heard in self._heard.items() if time.monotonic() - heard > self._seconds]
        if silent:
            raise ReplicaError(f"worker {silent[0]} gave no sign of life for replica.heartbeat = {self._seconds:g} s")


def broke_a_connection(error: BaseException) -> bool:
    """Whether a rank failed because it lost a peer."""
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)


def is_known_dead(worker: Any) -> bool:
    """Whether the cluster knows that a worker is dead; False while it only cannot be reached."""
    try:
        ray.get(worker.beat.remote(), timeout=1.0)
    except ray.exceptions.ActorDiedError:
        return True
    except (ray.exceptions.RayError, TimeoutError):
        return False
    return False
