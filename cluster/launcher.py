"""Clusters of Ray's own launcher (``ray up``): in a cloud, or on machines reached by SSH."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import yaml

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
        print(f"dashboard    {_shown(_RAY)} dashboard {cluster}, then http://127.0.0.1:8265")
        print("tensorboard  tensorboard --logdir s3://.../sweeps")
    return code


def status(cluster: Path) -> int:
    """Show the nodes that Ray counts, and what they wait for.

    :raises ClusterError: it is not up
    """
    return _on_head(cluster, "ray status")


def down(cluster: Path) -> int:
    """End a cluster.

    Machines reached by SSH stay, so Ray is stopped on the head first, by the path that ``ray down`` does not know; the
    others leave when they miss it for a minute.
    """
    if _is_by_ssh(cluster):
        with suppress(ClusterError):
            _on_head(cluster, "ray stop")
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


def _is_by_ssh(cluster: Path) -> bool:
    """Whether Ray calls its provider local; a file that is none of a cluster is for Ray to refuse."""
    try:
        content = yaml.safe_load(Path(_file(cluster)).read_text())
    except yaml.YAMLError:
        return False
    provider = content.get("provider") if isinstance(content, dict) else None
    return isinstance(provider, dict) and provider.get("type") == "local"


def _on_head(cluster: Path, command: str) -> int:
    """Run a command on the head; what Ray says of the way there is shown only if it does not arrive."""
    way = [str(_RAY), "exec", _file(cluster), f". ~/upop/environment; {command}"]
    called = subprocess.run(way, env=without_ray(), stderr=subprocess.PIPE, text=True, check=False)
    if "Head node of cluster" in called.stderr:
        raise ClusterError(f"{cluster}: is not up; make cluster-up CLUSTER={cluster}")
    if called.returncode:
        print(called.stderr, end="", file=sys.stderr)
    return called.returncode


def _ray(*arguments: str) -> int:
    return subprocess.run([str(_RAY), *arguments], env=without_ray(), check=False).returncode


def _shown(program: Path) -> Path:
    """As a user in this folder would call it."""
    return program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program


def _file(cluster: Path) -> str:
    if not cluster.is_file():
        raise ClusterError(f"{cluster}: missing; give a Ray cluster YAML, for example cluster/aws.yaml")
    return str(cluster)
