"""Processes that go on without us: start them, know them again, and end them and all that they started."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

#: names the cluster in the environment of all its processes
MARK = "UPOP_CLUSTER"
#: seconds by which two readings of when a process began may differ
_CLOCK = 2.0


@dataclass(frozen=True)
class Started:
    """A process that was started: its number, and when it began, because numbers are used again."""

    pid: int
    began: float

    def process(self) -> psutil.Process | None:
        """The process, or None when it has ended."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.began) < _CLOCK
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def start(command: list[str], environment: Mapping[str, str], log: Path, folder: Path) -> Started:
    """Start ``command`` in a session of its own, so that no Ctrl-C reaches it; its output is added to ``log``."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Started(process.pid, psutil.Process(process.pid).create_time())


def family(started: Iterable[Started], folder: Path) -> list[psutil.Process]:
    """All that is alive of processes that were started: they, their descendants, and what has lost its parent.

    :param folder: made for these processes alone; an orphan has it in its environment under ``MARK`` or writes into it
        (Ray's workers write their name over their environment)
    """
    alive = [process for root in started if (process := root.process())]
    found = {process.pid: process for root in alive for process in (root, *_descendants(root))}
    for process in psutil.process_iter():
        if process.pid not in found and process.pid != os.getpid() and _belongs(process, folder):
            found |= {relative.pid: relative for relative in (process, *_descendants(process))}
    return list(found.values())


def end(processes: list[psutil.Process], patience: float) -> None:
    """Ask processes to end, and kill those that have not within ``patience`` seconds."""
    for process in processes:
        _signal(process.terminate)
    _, stubborn = psutil.wait_procs(processes, timeout=patience)
    for process in stubborn:
        _signal(process.kill)
    psutil.wait_procs(stubborn, timeout=patience)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _belongs(process: psutil.Process, folder: Path) -> bool:
    try:
        marked: str | None = process.environ().get(MARK)
        return marked == str(folder) or any(Path(file.path).is_relative_to(folder) for file in process.open_files())
    except (psutil.Error, OSError):
        return False


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        send()
