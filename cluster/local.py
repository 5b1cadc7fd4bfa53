"""A Ray cluster of several nodes on this machine: brought up, repaired, looked at and ended."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cluster.access import Access, chosen_token, ensure_token, without_ray
from cluster.errors import ClusterError
from cluster.processes import MARK, end, family, start
from cluster.state import HEAD, TENSORBOARD, Asked, Record, State

_PROJECT = Path(__file__).parent.parent
_START_TIMEOUT = 120.0
#: seconds that processes get to end by themselves
_PATIENCE = 10.0
#: of each node; a sweep passes little through it
_OBJECT_STORE = 256 << 20
#: seconds that a stopped job gets to end in order; Ray's own are 3
_STOP_WAIT = 30
#: of dashboard and TensorBoard, where people look first; taken when free
_USUAL_PORTS = (8265, 6006)


class _EndedError(ClusterError):
    """A process ended before it was ready."""


def up(record: Record, asked: Asked) -> str:
    """Bring the cluster up, or what is missing of it; returns what was done.

    :raises ClusterError: it is up as something else, or cannot start
    """
    state = record.read()
    if state and state.alive(HEAD):
        if state.asked != asked:
            raise ClusterError(f"the cluster is up with {_shown(state.asked)}; make cluster-down first to change it")
        missing = state.missing()
        if not missing:
            return "the cluster is up"
        done = f"the cluster is up; had ended and started again: {', '.join(missing)}"
    else:
        done = "the cluster is up" if state is None else "the cluster is up; its head had ended, all started again"
        if state:
            _end(record, state)
        state = _new_state(asked)
        missing = asked.names()
    try:
        _start(record, state, missing)
    except BaseException:
        if missing == asked.names():
            _end(record, state)
        raise
    return done


def down(record: Record) -> str:
    """End what :func:`up` started, and nothing else; returns what was done."""
    state = record.read()
    if state is None:
        return "no cluster is up"
    return f"ended {_end(record, state)} processes"


def running(record: Record) -> State:
    """The cluster that is up.

    :raises ClusterError: none is
    """
    state = record.read()
    if state is None or not state.alive(HEAD):
        raise ClusterError("no cluster is up; make cluster-up")
    return state


def alive_nodes(access: Access) -> list[dict[str, float]]:
    """Resources of each node that Ray counts as alive, the head first."""
    nodes = access.get("/nodes?view=summary")["data"]["summary"]
    alive = [node["raylet"] for node in nodes if node["raylet"].get("state") == "ALIVE"]
    alive.sort(key=lambda raylet: not raylet.get("isHeadNode"))
    return [raylet.get("resourcesTotal", {}) for raylet in alive]


def replica_logs(state: State, ray_job: str) -> list[Path]:
    """What trials and training workers of a job printed, on all nodes, without empty files.

    :param ray_job: Ray's own number of the job, 8 hexadecimal digits
    """
    files = state.folder.glob(f"*/session_[0-9]*/logs/worker-*-{ray_job}-*.[oe][ur][tr]")
    return sorted(file for file in files if file.stat().st_size)


def node_environment(token: Path, folder: Path, gpus: list[str]) -> dict[str, str]:
    """Environment of a node, which jobs and workers inherit; ``python`` is this one."""
    ours = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT),
        "CUDA_VISIBLE_DEVICES": ",".join(gpus),
        MARK: str(folder),
    }
    return without_ray() | ours


def shared_gpus(gpus: list[str], nodes: int) -> list[list[str]]:
    """GPUs of each worker; Ray would give all of them to every node."""
    return [gpus[number::nodes] for number in range(nodes)]


def visible_gpus() -> list[str]:
    """GPUs of this machine that may be used."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu for gpu in chosen.split(",") if gpu]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]


def free_port(preferred: int = 0) -> int:
    """``preferred`` if nobody listens there, else any free port of the loopback."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ClusterError("no port is free on 127.0.0.1; end some servers")


def _new_state(asked: Asked) -> State:
    token = ensure_token(chosen_token())
    # short, because paths of sockets have at most 107 characters
    folder = Path(tempfile.mkdtemp(prefix="upop-ray-", dir="/tmp"))
    dashboard, tensorboard = (free_port(port) for port in _USUAL_PORTS)
    return State(asked, folder, token, free_port(), dashboard, tensorboard)


def _start(record: Record, state: State, missing: list[str]) -> None:
    """Start processes, the head before those that join it, and wait until all answer."""
    for name in missing:
        _launch(record, state, name)
        if name == HEAD:
            _wait(state, name, lambda: _listens(state.gcs))
    for name in missing:
        try:
            _wait(state, name, partial(_ready, state, name))
        except _EndedError:
            # Ray gives a node 30 s to start, which several at once can miss on a busy machine
            _launch(record, state, name)
            _wait(state, name, partial(_ready, state, name))
    _wait(state, HEAD, lambda: _answers(state.access()))


def _launch(record: Record, state: State, name: str) -> None:
    command, gpus = _command(state, name)
    if state.log(name).exists():
        state.log(name).replace(state.log(f"{name}-before"))
    environment = node_environment(state.token, state.folder, gpus)
    if name == TENSORBOARD:
        # it would list each folder of a bucket once, and never see what comes later
        environment["FSSPEC_S3"] = '{"use_listings_cache": false}'
    state.processes[name] = start(command, environment, state.log(name), _PROJECT)
    record.write(state)


def _command(state: State, name: str) -> tuple[list[str], list[str]]:
    """Command line of a process, and the GPUs that it may see."""
    asked = state.asked
    if name == TENSORBOARD:
        logs = f"{asked.store.rstrip('/')}/sweeps"
        tensorboard = [sys.executable, "-m", "tensorboard.main", "--logdir", logs]
        return [*tensorboard, "--host", asked.host, "--port", str(state.tensorboard)], []
    node = [sys.executable, str(_PROJECT / "cluster" / "node.py"), "--block", "--disable-usage-stats"]
    node += ["--temp-dir", str(state.folder / name), "--object-store-memory", str(_OBJECT_STORE)]
    node += ["--dashboard-agent-listen-port", str(free_port())]
    if name == HEAD:
        node += ["--head", "--port", str(state.gcs), "--ray-client-server-port", str(free_port())]
        node += ["--dashboard-host", asked.host, "--dashboard-port", str(state.dashboard)]
        return [*node, "--num-cpus", "0", "--num-gpus", "0"], []
    gpus = shared_gpus(visible_gpus(), asked.nodes)[asked.node_names().index(name)]
    node += ["--address", f"127.0.0.1:{state.gcs}", "--num-cpus", str(asked.cpus), "--num-gpus", str(len(gpus))]
    return node, gpus


def _wait(state: State, name: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while not ready():
        if not state.alive(name):
            raise _EndedError(f"{name} ended while it started: {_last_line(state.log(name))} ({state.log(name)})")
        if time.monotonic() > deadline:
            raise ClusterError(f"{name} is not up after {_START_TIMEOUT:.0f} s; see {state.log(name)}")
        time.sleep(0.2)


def _ready(state: State, name: str) -> bool:
    if name == TENSORBOARD:
        return _listens(state.tensorboard, state.asked.reached_at())
    return "Ray runtime started" in state.log(name).read_text(errors="replace")


def _answers(access: Access) -> bool:
    try:
        return bool(access.get("/api/version"))
    except ClusterError:
        return False


def _listens(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"


def _end(record: Record, state: State) -> int:
    """End everything of a cluster, forget it, and return how many processes that were."""
    processes = family(state.processes.values(), state.folder)
    leaders = [process for started in state.processes.values() if (process := started.process())]
    end(leaders, _PATIENCE)
    end(family(state.processes.values(), state.folder), _PATIENCE)
    shutil.rmtree(state.folder, ignore_errors=True)
    record.forget()
    return len(processes)


def _shown(asked: Asked) -> str:
    return f"NODES={asked.nodes} CPUS={asked.cpus} STORE={asked.store} HOST={asked.host}"
