"""A Ray cluster of several nodes on this machine, each a raylet of its own that can be killed."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from ray.cluster_utils import Cluster

#: CPUs of each node that computes; the head has none, so that no point runs on it
NODE_CPUS = 2


class LocalCluster:
    """A head and two nodes; ended by :meth:`stop`, whatever of it has been killed before."""

    def __init__(self) -> None:
        # not pytest's folder: paths of sockets may have 107 characters
        self._folder = tempfile.mkdtemp(prefix="ray-")
        self._past: list[Any] = []
        self._start()

    def _start(self) -> None:
        head = {"num_cpus": 0, "temp_dir": self._folder, "include_dashboard": False}
        # it would tell every process of this machine that looks for a cluster to join this one
        with mock.patch("ray._private.utils.write_ray_address"):
            self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = []
        self.refill()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def refill(self) -> None:
        """Put up nodes until there are two."""
        self.nodes = [node for node in self.nodes if raylet(node).poll() is None]
        while len(self.nodes) < 2:
            self.nodes.append(self.cluster.add_node(num_cpus=NODE_CPUS))

    def processes(self, title: str) -> list[psutil.Process]:
        """The processes on our nodes that run a method of an actor, by its title, for example ``Worker.advance``."""
        raylets = {raylet(node).pid for node in self.nodes}
        found = []
        for process in psutil.process_iter(["ppid", "cmdline"]):
            titles = " ".join(process.info["cmdline"] or ())
            if process.info["ppid"] in raylets and titles.startswith(f"ray::{title}"):
                found.append(process)
        return found

    def node_under(self, process: psutil.Process) -> Any:
        return next(node for node in self.nodes if raylet(node).pid == process.ppid())

    def kill_head(self) -> None:
        """SIGKILL to everything of the head."""
        for process in _started(self.cluster.head_node):
            process.kill()
            process.wait()

    def drain(self, node: Any) -> None:
        """Announce that a node goes away, and put up another, as clouds do."""
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        command = ["ray", "drain-node", "--address", self.address, "--node-id", node.node_id, *reason]
        line = [str(Path(sys.executable).parent / command[0]), *command[1:], "--deadline-remaining-seconds", "120"]
        subprocess.run(line, check=True, capture_output=True, timeout=120)
        # it takes no new work, and is ended with everything else
        self.nodes.remove(node)
        self._past.append(node)
        self.refill()

    def restart(self) -> None:
        """A new head and new nodes; the old nodes live on for as long as they can."""
        self._past += [self.cluster.head_node, *self.nodes]
        self._start()

    def stop(self) -> None:
        """End everything that was started here, also what others were told to leave behind."""
        for node in (*self._past, *self.nodes, self.cluster.head_node):
            for process in _started(node):
                _end(process)
        shutil.rmtree(self._folder, ignore_errors=True)


def raylet(node: Any) -> Any:
    """The raylet of a node, as it was started."""
    return node.all_processes["raylet"][0].process


def _end(popen: Any) -> None:
    """End a process and what it started."""
    if popen.poll() is not None:
        return
    process = psutil.Process(popen.pid)
    for each in (*process.children(recursive=True), process):
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    popen.wait()


def _started(node: Any) -> list[Any]:
    return [info.process for infos in node.all_processes.values() for info in infos]
