"""What is known of the local cluster between two commands: a file in a folder of its own."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.access import Access
from cluster.errors import ClusterError
from cluster.processes import Started

HEAD, TENSORBOARD = "head", "tensorboard"


@dataclass(frozen=True)
class Asked:
    """What a cluster was asked to be.

    :param nodes: workers beside the head
    :param cpus: of each worker
    :param store: folder or URI that TensorBoard shows
    :param host: address that the dashboard and TensorBoard listen on
    """

    nodes: int
    cpus: int
    store: str
    host: str

    def reached_at(self) -> str:
        """The address of ``host`` from this machine."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host

    def node_names(self) -> list[str]:
        """Names of the workers."""
        return [f"node-{number}" for number in range(1, self.nodes + 1)]

    def names(self) -> list[str]:
        """Names of all processes that make the cluster."""
        return [HEAD, *self.node_names(), TENSORBOARD]


@dataclass
class State:
    """A cluster that was started.

    :param folder: of Ray's temporary files, made for this cluster alone
    :param token: the file of the token
    """

    asked: Asked
    folder: Path
    token: Path
    gcs: int
    dashboard: int
    tensorboard: int
    processes: dict[str, Started] = field(default_factory=dict)

    def alive(self, name: str) -> bool:
        """Whether a process of it runs."""
        return name in self.processes and self.processes[name].process() is not None

    def missing(self) -> list[str]:
        """Processes of it that do not run."""
        return [name for name in self.asked.names() if not self.alive(name)]

    def log(self, name: str) -> Path:
        """Where the output of a process goes."""
        return self.folder / f"{name}.log"

    def access(self) -> Access:
        """How to reach it from this machine."""
        return Access(f"http://{self.asked.reached_at()}:{self.dashboard}", self.token)


class Record:
    """The file that remembers the local cluster.

    :param folder: of the file; each has at most one cluster
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "cluster.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only one command at a time changes the cluster.

        :raises ClusterError: another one is at work
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ClusterError(f"{self.folder}: another cluster command is at work; wait for it") from error
            yield

    def read(self) -> State | None:
        """The cluster that was started, or None.

        :raises ClusterError: the file is not one of ours
        """
        if not self._path.exists():
            return None
        try:
            return _state(json.loads(self._path.read_text()))
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError(f"{self._path}: cannot be read ({error}); end its processes and remove it") from error

    def write(self, state: State) -> None:
        """Remember a cluster."""
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(state), indent=1, default=str) + "\n")
        temporary.replace(self._path)

    def forget(self) -> None:
        """Remember nothing."""
        self._path.unlink(missing_ok=True)


def _state(values: dict[str, Any]) -> State:
    processes = {name: Started(**process) for name, process in values.pop("processes").items()}
    asked, folder, token = Asked(**values.pop("asked")), Path(values.pop("folder")), Path(values.pop("token"))
    return State(asked, folder, token, processes=processes, **values)
