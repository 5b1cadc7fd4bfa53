"""Why a point waits for its place: what it needs, what is free, and what it waits for."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from upop_ray.config import Replica
from upop_ray.distributed.autoscaler import has_autoscaler
from upop_ray.distributed.cluster import KINDS, Node, nodes, places_on, waiting_groups

#: seconds between two looks at the cluster, and for which a point waits before that is said
_LOOK = 2.0
_PATIENCE = 5.0
#: seconds after which the same is said again, but for points that wait for their own sweep
_REPEAT = 300.0
#: nodes that are named
_SHOWN = 8


class WaitingPoints:
    """Looks after points that cannot be placed, and says why: at once, when it changes, and every five minutes."""

    def __init__(self, replica: Replica, say: Callable[[str], None]) -> None:
        self._replica, self._say = replica, say
        self._looked = self._said_at = time.monotonic()
        self._since: float | None = None
        self._said = ""

    def look(self, trials: Sequence[Any]) -> None:
        """See whether one of Ray Tune's trials waits."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        labels = _labels(trials, "PENDING")
        # a point that has been placed is not running before its processes are up
        if not labels or not waiting_groups():
            self._since, self._said = None, ""
            return
        self._since = self._since or now
        if now - self._since < _PATIENCE:
            return
        present = nodes()
        running = len(_labels(trials, "RUNNING"))
        reason = waits_for(self._replica, present, running, has_autoscaler())
        if reason != self._said or (not running and now - self._said_at > _REPEAT):
            self._said, self._said_at = reason, now
            self._say(f"waiting  {labels[0]}: {needs(self._replica)}; {free(present)}; {reason}")


def needs(replica: Replica) -> str:
    """What a replica needs, for people."""
    each = [f"{size:g} {kind}" for kind, size in _sizes(replica).items() if size]
    return f"needs {replica.workers} x ({', '.join(each)})"


def free(present: Sequence[Node]) -> str:
    """What is free on each node, for people."""
    computing = [node for node in present if any(node.total.values())]
    shown = [
        f"{node.address} " + ", ".join(f"{node.free[k]:g} of {node.total[k]:g} {k}" for k in KINDS if node.total[k])
        for node in computing[:_SHOWN]
    ]
    more = [f"and {len(computing) - _SHOWN} more nodes"] if len(computing) > _SHOWN else []
    return "free: " + ("; ".join([*shown, *more]) or "no node that computes is up")


def waits_for(replica: Replica, present: Sequence[Node], running: int, autoscaler: bool) -> str:
    """What has to happen for a replica to be placed."""
    each = list(_sizes(replica).values())
    if sum(places_on(node.total, each) for node in present) < replica.workers:
        return "waits for nodes that the autoscaler was asked for" if autoscaler else "waits for nodes to come (back)"
    if autoscaler:
        return "waits for the autoscaler to add nodes, or for points that run to end"
    return "waits for points of this sweep to end" if running else "waits for others who use the cluster"


def _sizes(replica: Replica) -> dict[str, float]:
    return {"CPU": replica.cpus_per_worker, "GPU": replica.gpus_per_worker}


def _labels(trials: Sequence[Any], status: str) -> list[str]:
    return [trial.config["label"] for trial in trials if trial.status == status]
