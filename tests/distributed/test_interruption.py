"""A sweep that is interrupted or loses a worker goes on, and ends with the metrics of an undisturbed one."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.tiny import tiny_values
from upop_ray import run
from upop_ray.config import parse
from upop_ray.store import Store

TIMEOUT = 180


def settings(root: Path, store: str) -> dict[str, Any]:
    return tiny_values(root, store=store, search={"epochs": 4}, retrain={"epochs": 4})


def start(root: Path, store: str) -> subprocess.Popen[str]:
    """The command on a file, with a store relative to the folder it is called in; many steps, to be disturbed."""
    (root / "experiment.yaml").write_text(yaml.safe_dump(settings(root, store)))
    command = [sys.executable, "-m", "upop_ray.sweep", str(root / "experiment.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=root,
        # whoever runs the tests in the background may have taught them to ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def first_checkpoint(root: Path, store: str) -> None:
    """Wait until the point has saved something."""
    end = time.monotonic() + TIMEOUT
    while not list((root / store).glob("points/*/attempts/*/*/complete.json")):
        assert time.monotonic() < end, "no checkpoint in time"
        time.sleep(0.02)


def metrics(root: Path, store: str) -> Any:
    (path,) = (root / store).glob("points/*/manifest.json")
    return Store(str(root / store)).read_json(path.relative_to(root / store).as_posix())


def test_interrupted_or_robbed_of_a_worker_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    undisturbed = run.run(parse(settings(tmp_path, str(tmp_path / "undisturbed"))))

    stopped = start(tmp_path, "stopped")
    first_checkpoint(tmp_path, "stopped")
    stopped.send_signal(signal.SIGINT)
    output, _ = stopped.communicate(timeout=TIMEOUT)
    assert stopped.returncode == 130 and "the same command goes on" in output
    assert "Traceback" not in output
    assert not list((tmp_path / "stopped").glob("points/*/manifest.json"))

    # the same command again, and this time a training worker is killed
    robbed = start(tmp_path, "stopped")
    worker = working(robbed.pid)
    worker.send_signal(signal.SIGKILL)
    output, _ = robbed.communicate(timeout=TIMEOUT)
    assert robbed.returncode == 0, output
    found = metrics(tmp_path, "stopped")
    assert found["metrics"] == undisturbed["metrics"] and found["kept_units"] == undisturbed["kept_units"]
    assert found["attempt"] == 2


def working(driver: int) -> psutil.Process:
    """The training worker among the processes that the driver started, in the middle of its work."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        for process in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "ray::Worker.advance" in " ".join(process.cmdline()):
                    return process
        time.sleep(0.02)
    raise AssertionError("no training worker was at work in time")
