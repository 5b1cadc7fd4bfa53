"""What can happen to a sweep; a fault strikes at whatever runs then."""

import random
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil

from tests.chaos.cluster import LocalCluster, raylet
from tests.chaos.sweep import Sweep


class Struck(NamedTuple):
    """When it struck, and what the sweep had then: manifests, and the newest attempt at each point under way."""

    at: float
    manifests: dict[str, bytes]
    attempts: dict[str, int]


Fault = Callable[[LocalCluster, Sweep], None]
#: titles of processes; Tune wraps the class of the trials
_TRAINING, _TRIAL = "Worker.advance", "ResourceTrainable"


def _signal_to(title: str, number: int) -> Fault:
    def strike(cluster: LocalCluster, sweep: Sweep) -> None:
        _one(cluster, sweep, title).send_signal(number)

    return strike


def _node_lost(number: int) -> Fault:
    """To the raylet under a point that runs."""

    def strike(cluster: LocalCluster, sweep: Sweep) -> None:
        node = cluster.node_under(_one(cluster, sweep, _TRAINING))
        raylet(node).send_signal(number)

    return strike


def _driver_ended(number: int) -> Fault:
    """The driver; the same command again."""

    def strike(cluster: LocalCluster, sweep: Sweep) -> None:
        _end_driver(sweep, number)
        sweep.start()

    return strike


def _head_and_driver_killed(cluster: LocalCluster, sweep: Sweep) -> None:
    """The head and the driver; a new cluster and the same command again."""
    cluster.kill_head()
    _end_driver(sweep, signal.SIGKILL)
    cluster.restart()
    sweep.address = cluster.address
    sweep.start()


def _node_drained(cluster: LocalCluster, sweep: Sweep) -> None:
    """A spot notice to the cluster: the node goes away in two minutes."""
    cluster.drain(cluster.node_under(_one(cluster, sweep, _TRAINING)))


#: name -> what happens
FAULTS: dict[str, Fault] = {
    "worker killed": _signal_to(_TRAINING, signal.SIGKILL),
    "worker hangs": _signal_to(_TRAINING, signal.SIGSTOP),
    "worker gets SIGTERM": _signal_to(_TRAINING, signal.SIGTERM),
    "trial actor hangs": _signal_to(_TRIAL, signal.SIGSTOP),
    "trial actor killed": _signal_to(_TRIAL, signal.SIGKILL),
    "trial actor gets SIGTERM": _signal_to(_TRIAL, signal.SIGTERM),
    "raylet killed": _node_lost(signal.SIGKILL),
    "raylet gets SIGTERM": _node_lost(signal.SIGTERM),
    "node drains": _node_drained,
    "driver killed": _driver_ended(signal.SIGKILL),
    "driver gets SIGTERM": _driver_ended(signal.SIGTERM),
    "head and driver killed": _head_and_driver_killed,
}


def strike(name: str, moment: random.Random, cluster: LocalCluster, sweep: Sweep) -> Struck:
    """Let something happen in the middle of the work."""
    sweep.until(sweep.saved, "checkpoint")
    time.sleep(moment.uniform(0, 8))
    # in the middle of some point, not between two
    sweep.until(sweep.saved, "checkpoint")
    struck = Struck(time.monotonic(), sweep.manifests(), sweep.begun())
    FAULTS[name](cluster, sweep)
    return struck


def _one(cluster: LocalCluster, sweep: Sweep, title: str) -> psutil.Process:
    found = sweep.until(lambda: cluster.processes(title), f"process {title}")
    process: psutil.Process = found[0]
    return process


def _end_driver(sweep: Sweep, number: int) -> None:
    assert sweep.driver is not None
    sweep.driver.send_signal(number)
    sweep.wait()
