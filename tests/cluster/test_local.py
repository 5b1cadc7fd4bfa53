"""The local cluster for real: up, looked at, used, repaired and gone."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from cluster.jobs import fetch_replica_logs, found
from cluster.local import free_port, node_environment, replica_logs, shared_gpus, visible_gpus
from cluster.processes import family
from cluster.state import Record, State
from tests.tiny import tiny_values

PROJECT = Path(__file__).parents[2]
TIMEOUT = 300


@dataclass
class Commands:
    """The commands of a user whose token and cluster are his own."""

    root: Path
    seen: set[psutil.Process] = field(default_factory=set)

    @property
    def environment(self) -> dict[str, str]:
        ours = {"RAY_AUTH_TOKEN_PATH": str(self.root / "token"), "OMP_NUM_THREADS": "1"}
        return {**{name: value for name, value in os.environ.items() if not name.startswith("RAY_")}, **ours}

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "cluster", command, "--state", str(self.root / "state"), *arguments]
        return subprocess.run(
            line, cwd=PROJECT, env=self.environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )

    def ray(self, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Ray's own command in a user's folder, after reading the file of settings."""
        settings = self.root / "state" / "environment"
        line = ["bash", "-c", f'. "{settings}"; exec ray "$@"', "ray", *arguments]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**self.environment, "PATH": path}
        del environment["RAY_AUTH_TOKEN_PATH"]
        return subprocess.run(
            line, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )

    def up(self, nodes: int) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--nodes", str(nodes), "--cpus", "1", "--store", str(self.root / "results"))

    def state(self) -> State:
        state = Record(self.root / "state").read()
        assert state is not None
        return state

    def processes(self) -> list[psutil.Process]:
        """All processes of the cluster, which are remembered."""
        found = family(self.state().processes.values(), self.state().folder)
        self.seen |= set(found)
        return found


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path)
    yield commands
    commands.run("down")


def status_code(state: State, token: str | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{state.access().address}/api/jobs/", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def check_secured(commands: Commands) -> None:
    """Nothing listens beyond the loopback, the token is demanded, and no process shows it."""
    state, token = commands.state(), (commands.root / "token").read_text()
    assert (commands.root / "token").stat().st_mode & 0o777 == 0o600
    assert [status_code(state, shown) for shown in (None, "wrong", token)] == [401, 403, 200]
    for process in commands.processes():
        listening = [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
        assert all(address.removeprefix("::ffff:") == "127.0.0.1" for address in listening), process
        assert token not in " ".join(process.cmdline()) and token not in str(process.environ())
    assert not any(token in file.read_text(errors="replace") for file in state.folder.rglob("*.log") if file.is_file())


def check_gone(commands: Commands, folder: Path) -> None:
    left = [process for process in commands.seen if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert left == []
    assert not folder.exists() and not (commands.root / "state" / "cluster.json").exists()


def test_up_twice_secured_and_down_leaves_nothing(commands: Commands) -> None:
    first = commands.up(nodes=1)
    assert first.returncode == 0, first.stderr
    state = commands.state()
    assert all(word in first.stdout for word in ("make submit", f":{state.dashboard}", f":{state.tensorboard}"))
    check_secured(commands)
    again = commands.up(nodes=1)
    assert again.returncode == 0 and "is up" in again.stdout and commands.state() == state
    changed = commands.up(nodes=2)
    assert changed.returncode == 2 and "make cluster-down first" in changed.stderr
    shown = commands.run("status")
    assert shown.returncode == 0 and "2 nodes alive, 1 CPU" in shown.stdout, shown.stdout + shown.stderr
    down = commands.run("down")
    assert down.returncode == 0, down.stderr
    check_gone(commands, state.folder)


def test_without_a_cluster_each_command_says_so(commands: Commands) -> None:
    for command in ("status", "logs"):
        refused = commands.run(command)
        assert refused.returncode == 2 and refused.stderr == "error: no cluster is up; make cluster-up\n"
    assert commands.run("down").stdout == "no cluster is up\n"


@pytest.mark.slow
def test_a_sweep_over_two_nodes_is_submitted_stopped_repaired_and_resumed(commands: Commands) -> None:
    user = commands.root / "user"
    user.mkdir()
    values = tiny_values(commands.root, store="results", replica={"workers": 2}, search={"epochs": 12})
    (user / "my.yaml").write_text(yaml.safe_dump(values))
    assert commands.up(nodes=2).returncode == 0
    state = commands.state()

    # stopped in the middle of its search, by Ray's own commands from the user's folder
    started = ["job", "submit", "--no-wait", "--submission-id", "first", "--working-dir", "."]
    sweep = ["python", "-m", "upop_ray.sweep", "my.yaml", f"store={commands.root / 'results'}"]
    submitted = commands.ray(*started, "--", *sweep, folder=user)
    assert submitted.returncode == 0, submitted.stderr
    wait_for_checkpoint(commands.root / "results")
    commands.processes()
    assert commands.ray("job", "stop", "first", folder=user).returncode == 0
    log = commands.run("logs", "first").stdout
    assert "interrupted: the same command goes on" in log and "replica log: " in log
    # what a cluster reached through a tunnel hands out is what lies in its nodes' folders
    job = found(state.access(), "first")["job_id"]
    copies = fetch_replica_logs(state.access(), job, commands.root / "copied")
    there = {file.name: file.stat().st_size for file in replica_logs(state, job)}
    assert there and {file.name: file.stat().st_size for file in copies} == there

    # a node dies, is reported, and is started again
    psutil.Process(raylet_of(state, "node-2")).kill()
    wait_until(lambda: not state.alive("node-2"))
    broken = commands.run("status")
    assert broken.returncode == 1 and "node-2       ENDED" in broken.stdout
    repaired = commands.up(nodes=2)
    assert repaired.returncode == 0 and "started again: node-2" in repaired.stdout, repaired.stderr
    assert commands.state().processes["head"] == state.processes["head"]

    # the same sweep goes on from its checkpoint; a relative store is the cluster's
    ended = commands.run("submit", str(user / "my.yaml"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "goes on from step" in ended.stdout and "1 points finished" in ended.stdout
    assert ended.stdout.splitlines()[-1].endswith("succeeded, exit code 0")
    (manifest,) = (commands.root / "results").glob("points/*/manifest.json")
    assert json.loads(manifest.read_text())["metrics"]

    # a sweep that cannot run fails with the line that says why
    wrong = commands.run("submit", str(user / "my.yaml"), "search.ratio=2")
    assert wrong.returncode == 1 and "search.ratio" in wrong.stdout
    assert wrong.stdout.splitlines()[-1].endswith("failed, exit code 2")
    commands.processes()
    assert commands.run("down").returncode == 0
    check_gone(commands, state.folder)


def wait_until(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not reached():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.2)


def wait_for_checkpoint(store: Path) -> None:
    wait_until(lambda: list(store.glob("points/*/attempts/*/*/complete.json")))


def raylet_of(state: State, name: str) -> int:
    process = state.processes[name].process()
    assert process is not None
    (raylet,) = (child for child in process.children() if child.name() == "raylet")
    return int(raylet.pid)


def test_gpus_are_shared_between_nodes() -> None:
    assert shared_gpus(["0", "1", "2"], nodes=2) == [["0", "2"], ["1"]]
    assert shared_gpus([], nodes=2) == [[], []]


def test_gpus_that_were_hidden_stay_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert visible_gpus() == ["3", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_a_taken_port_is_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) not in (0, port)


def test_jobs_find_this_python_and_the_path_of_the_token(tmp_path: Path) -> None:
    environment = node_environment(tmp_path / "token", tmp_path, ["1"])
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["RAY_AUTH_MODE"] == "token" and environment["CUDA_VISIBLE_DEVICES"] == "1"
