"""A sweep of six tiny points in a process of its own, and what can be seen of it from outside: its store."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tiny import tiny_values
from upop_ray.errors import StoreError
from upop_ray.store import Store

#: seconds that anything may take; the machine may be busy
PATIENCE = 420.0
_STARTED = re.compile(r"(\w+)/attempts/(\d+)/started\.json$")
_CHECKPOINT = re.compile(r"(\w+)/attempts/(\d+)/.*complete\.json$")
_LOSSES = ("search/loss", "retrain/loss")
TAKEN_UP = "taken up"


class EndedError(Exception):
    """The sweep has ended before what was waited for."""


class Sweep:
    """Six points, on replicas of two workers at ZeRO-2, with a report each step and a checkpoint every five."""

    def __init__(self, root: Path, store: str, address: str) -> None:
        self.root, self.address = root, address
        self.store = Store(store)
        self.values = tiny_values(
            root,
            name="chaos",
            store=store,
            report_steps=1,
            checkpoint_steps=5,
            search={"epochs": 5},
            retrain={"epochs": 5},
            replica={"workers": 2, "zero_stage": 2, "timeout": PATIENCE, "heartbeat": 10.0},
            sweep={"ratios": [0.3, 0.5, 0.7], "methods": ["upop", "magnitude"]},
        )
        self._log = root / f"{Path(store).name}.log"
        self.driver: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the command; another time goes on with what the store has."""
        file = self._log.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(self.values))
        command = [sys.executable, "-m", "upop_ray.sweep", str(file)]
        environment = os.environ | {"RAY_ADDRESS": self.address, "OMP_NUM_THREADS": "1"}
        with self._log.open("ab") as log:
            self.driver = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    def wait(self) -> int:
        """The exit code of the command."""
        assert self.driver is not None
        try:
            return self.driver.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.driver.kill()
            raise AssertionError(f"the sweep did not end in time:\n{self.output()}") from None

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something that the running sweep brings about.

        :raises EndedError: it has ended
        """
        assert self.driver is not None
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            # what is looked at may be removed by the sweep at the same time
            with contextlib.suppress(StoreError):
                found = condition()
                if found:
                    return found
            if self.driver.poll() is not None:
                raise EndedError(f"{self.driver.poll()} before {what}:\n{self.output()}")
            time.sleep(0.1)
        raise AssertionError(f"no {what} in time:\n{self.output()}")

    def manifests(self) -> dict[str, bytes]:
        """Content of the manifests by point."""
        names = [name for name in self.store.list("points") if self.store.exists(f"points/{name}/manifest.json")]
        return {name: self.store.read(f"points/{name}/manifest.json") for name in names}

    def begun(self) -> dict[str, int]:
        """The newest attempt at each point that is not finished."""
        return self._newest(_STARTED, set(self.manifests()))

    def saved(self) -> dict[str, int]:
        """The newest attempt at each point that is not finished to have saved a checkpoint."""
        return self._newest(_CHECKPOINT, set(self.manifests()))

    def resumed(self, before: dict[str, int]) -> str:
        """How points went on that had ``begun`` before: taken up by a newer attempt, ``finished``, or not yet."""
        newest = self._newest(_CHECKPOINT, set())
        finished = set(self.manifests())
        # a newer attempt that has finished has removed its checkpoints
        newest |= {point: attempt for point, attempt in self._newest(_STARTED, set()).items() if point in finished}
        if any(newest.get(point, -1) > attempt for point, attempt in before.items()):
            return TAKEN_UP
        return "" if set(before) - finished else "finished"

    def _newest(self, file: re.Pattern[str], without: set[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for match in map(file.search, self.store.sizes("points")):
            if match and match[1] not in without:
                found[match[1]] = max(int(match[2]), found.get(match[1], -1))
        return found

    def results(self) -> dict[str, Any]:
        """What each finished point found."""
        read = {name: self.store.read_json(f"points/{name}/manifest.json") for name in self.manifests()}
        return {name: (manifest["metrics"], manifest["kept_units"]) for name, manifest in read.items()}

    def steps_twice(self) -> int:
        """Steps that were computed more than once, by what the points reported to TensorBoard."""
        folder = "sweeps/chaos/tensorboard/points"
        with tempfile.TemporaryDirectory() as copy:
            for name in self.store.sizes(folder):
                # names are of the folder, or of the store
                inside = name.removeprefix(f"{folder}/")
                local = Path(copy) / inside
                local.parent.mkdir(parents=True, exist_ok=True)
                local.write_bytes(self.store.read(f"{folder}/{inside}"))
            return sum(_repeated(file) for file in sorted({path.parent for path in Path(copy).rglob("events*")}))


def _repeated(folder: Path) -> int:
    steps: Counter[tuple[str, int]] = Counter()
    for file in folder.glob("events*"):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in set(_LOSSES) & set(events.Tags()["scalars"]):
            # of one file each step counts, also those that were written again after a crash in the same process
            steps.update((tag, event.step) for event in events.Scalars(tag))
    return sum(count - 1 for count in steps.values())
