"""Ending a family of processes: all of it, and nobody else."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.processes import MARK, Started, end, family, start

#: starts a child of its own and waits
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
time.sleep(60)
"""
#: as Ray's workers do: forgets its environment, and writes into the folder
WRITER = "import os, sys, time; file = open(sys.argv[1], 'w'); print('ready', flush=True); time.sleep(60)"


@pytest.fixture
def stranger() -> Iterator[psutil.Process]:
    """A process like those of the cluster that is not part of it."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def begin(code: str, folder: Path) -> Started:
    return start([sys.executable, "-c", code], {**os.environ, MARK: str(folder)}, folder / "log", folder)


def grown(started: Started, folder: Path, count: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 20
    while len(found := family([started], folder)) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_a_family_ends_and_a_stranger_stays(tmp_path: Path, stranger: psutil.Process) -> None:
    started = begin(PARENT, tmp_path)
    members = grown(started, tmp_path, 2)
    assert len(members) == 2
    end(members, patience=5)
    assert started.process() is None and family([started], tmp_path) == []
    assert stranger.is_running()


def test_an_orphan_is_found_by_its_mark(tmp_path: Path, stranger: psutil.Process) -> None:
    started = begin(PARENT, tmp_path)
    grown(started, tmp_path, 2)
    psutil.Process(started.pid).kill()
    psutil.Process(started.pid).wait()
    (orphan,) = family([started], tmp_path)
    assert orphan.pid != started.pid
    end([orphan], patience=5)
    assert family([started], tmp_path) == [] and stranger.is_running()


def test_an_orphan_without_a_mark_is_found_by_what_it_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "worker.out")]
    writer = subprocess.Popen(command, env={}, stdout=subprocess.PIPE, start_new_session=True)
    assert writer.stdout and writer.stdout.readline()
    (found,) = family([], tmp_path)
    assert found.pid == writer.pid
    end([found], patience=5)
    writer.wait()
    writer.stdout.close()


def test_a_number_that_another_process_has_now_is_not_ours(tmp_path: Path, stranger: psutil.Process) -> None:
    reused = Started(stranger.pid, stranger.create_time() - 3600)
    assert reused.process() is None and family([reused], tmp_path) == []


def test_what_does_not_listen_is_killed(tmp_path: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('deaf', 'w').close(); time.sleep(60)"
    )
    started = begin(deaf, tmp_path)
    while not (tmp_path / "deaf").exists():
        time.sleep(0.02)
    end(family([started], tmp_path), patience=0.5)
    assert started.process() is None
