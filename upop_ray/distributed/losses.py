"""What can happen to a replica's processes, and how it is noticed."""

import time
from collections.abc import Sequence
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayError, RayTaskError

from upop_ray.training.progress import GivenBack


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


def unexpected(error: BaseException | None) -> str | None:
    """What kept a trial from its work, unless it was the loss of its process or node, or a notice to leave it.

    :param error: as Ray Tune hands it on
    """
    if isinstance(error, RayActorError) and error.actor_init_failed:
        # a traceback, of which nothing but the text is left
        return str(error).strip().splitlines()[-1]
    if not isinstance(error, RayTaskError):
        return None
    cause = error.cause
    if isinstance(cause, (NodeLost, GivenBack, RayError)):
        return None
    return f"{type(cause).__name__}: {first_line(cause)}"


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def is_known_dead(worker: Any) -> bool:
    """Whether the cluster knows that a worker is dead; False while it only cannot be reached."""
    try:
        ray.get(worker.beat.remote(), timeout=1.0)
    except ray.exceptions.ActorDiedError:
        return True
    except (ray.exceptions.RayError, TimeoutError):
        return False
    return False
