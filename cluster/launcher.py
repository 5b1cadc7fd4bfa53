"""Clusters of Ray's own launcher (``ray up``): in a cloud, or on machines reached by SSH."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from cluster.access import Access, ensure_token, rays_token, without_ray
from cluster.errors import ClusterError
from cluster.local import free_port
from cluster.processes import end

_RAY = Path(sys.executable).with_name("ray")
#: seconds for the tunnel to the head to open
_TUNNEL_TIMEOUT = 60.0
_PATIENCE = 10.0


def up(cluster: Path) -> int:
    """Create or update a cluster; its nodes get Ray's own token of this user, which is made if it is missing."""
    ensure_token(rays_token())
    code = _ray("up", "--yes", _file(cluster))
    if code == 0:
        print(f"submit       make submit CLUSTER={cluster} EXPERIMENT=my.yaml ARGS=store=s3://...")
        print(f"dashboard    {_RAY.name} dashboard {cluster}, then http://127.0.0.1:8265")
        print("tensorboard  tensorboard --logdir s3://.../sweeps")
    return code


def status(cluster: Path) -> int:
    """Show the nodes that Ray counts, and what they wait for."""
    return _ray("exec", _file(cluster), ". ~/upop/environment; ray status")


def down(cluster: Path) -> int:
    """End a cluster."""
    return _ray("down", "--yes", _file(cluster))


@contextmanager
def forwarded(cluster: Path) -> Iterator[Access]:
    """The job server of a cluster, through an SSH tunnel that lasts as long as the context.

    :raises ClusterError: the tunnel does not open
    """
    port = free_port(8265)
    command = [str(_RAY), "dashboard", "--port", str(port), _file(cluster)]
    with subprocess.Popen(command, env=without_ray(), stdin=subprocess.DEVNULL) as tunnel:
        try:
            _wait(tunnel, port, cluster)
            yield Access(f"http://127.0.0.1:{port}", ensure_token(rays_token()))
        finally:
            if tunnel.poll() is None:
                process = psutil.Process(tunnel.pid)
                end([process, *process.children(recursive=True)], _PATIENCE)


def _wait(tunnel: "subprocess.Popen[bytes]", port: int, cluster: Path) -> None:
    deadline = time.monotonic() + _TUNNEL_TIMEOUT
    while time.monotonic() < deadline and tunnel.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise ClusterError(f"{cluster}: no tunnel to its head; is it up? make cluster-up CLUSTER={cluster}")


def _ray(*arguments: str) -> int:
    return subprocess.run([str(_RAY), *arguments], env=without_ray(), check=False).returncode


def _file(cluster: Path) -> str:
    if not cluster.is_file():
        raise ClusterError(f"{cluster}: missing; give a Ray cluster YAML, for example cluster/aws.yaml")
    return str(cluster)
