"""Checkpoints of a point: safetensors and JSON in the store, one folder each, complete or not there."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from upop_ray.errors import CheckpointError, StoreError
from upop_ray.store import PointPaths, Store
from upop_ray.tracking import MetricRows

KEPT = 2
_NAME = re.compile(r"^(\d)-(search|retrain)-(\d{8})$")
PHASES = ("search", "retrain")


@dataclass(frozen=True)
class Checkpoint:
    """State of a point after ``step`` steps of ``phase``.

    :param tensors: everything with a shape, by name
    :param facts: everything else, as JSON
    """

    phase: str
    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    metrics: MetricRows = field(default_factory=MetricRows)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose names start with ``prefix/``, without it."""
        return {k.removeprefix(f"{prefix}/"): v for k, v in self.tensors.items() if k.startswith(f"{prefix}/")}


class StaleAttempt(Exception):
    """A newer attempt of the same point has begun; whatever this one writes would come from a lost worker."""


class Attempt:
    """One attempt at a point. Attempts are numbered; one that has been overtaken may not write any more."""

    def __init__(self, store: Store, paths: PointPaths, number: int) -> None:
        self.store, self.paths, self.number = store, paths, number

    @classmethod
    def begin(cls, store: Store, paths: PointPaths) -> "Attempt":
        """Claim the next number."""
        number = max((int(name) for name in store.list(paths.attempts)), default=-1) + 1
        store.write_json(f"{paths.attempt(number)}/started.json", {"attempt": number})
        return cls(store, paths, number)

    def check(self) -> None:
        """Make sure that no newer attempt has begun.

        :raises StaleAttempt: one has
        """
        newest = max(int(name) for name in self.store.list(self.paths.attempts))
        if newest > self.number:
            raise StaleAttempt(f"attempt {self.number} of point {self.paths.hash} was overtaken by attempt {newest}")

    @property
    def error_path(self) -> str:
        """Where the attempt notes what ended it."""
        return f"{self.paths.attempt(self.number)}/error.json"

    def record_error(self, text: str) -> None:
        """Note what ended the attempt."""
        self.store.write_json(self.error_path, {"error": text})

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, its facts last, and remove all but the newest two."""
        self.check()
        order = PHASES.index(checkpoint.phase)
        folder = f"{self.paths.attempt(self.number)}/{order}-{checkpoint.phase}-{checkpoint.step:08d}"
        content = safetensors.torch.save({k: v.contiguous() for k, v in checkpoint.tensors.items()})
        self.store.write(f"{folder}/tensors.safetensors", content)
        self.store.write(f"{folder}/metrics.parquet", checkpoint.metrics.to_parquet())
        facts = {"facts": checkpoint.facts, "sha256": hashlib.sha256(content).hexdigest()}
        self.store.write_json(f"{folder}/complete.json", facts)
        for _, old in _complete(self.store, self.paths)[:-KEPT]:
            self.store.remove(old)


def last_error(store: Store, paths: PointPaths) -> str:
    """What ended the newest attempt that noted it."""
    for attempt in reversed(store.list(paths.attempts)):
        name = f"{paths.attempts}/{attempt}/error.json"
        if store.exists(name):
            return str(store.read_json(name)["error"])
    return "no attempt noted an error"


def latest_checkpoint(store: Store, paths: PointPaths) -> Checkpoint | None:
    """The furthest complete checkpoint of any attempt.

    :raises CheckpointError: it is damaged; the message names the file
    """
    found = _complete(store, paths)
    if not found:
        return None
    (_, phase, step), folder = found[-1]
    name = f"{folder}/tensors.safetensors"
    cure = f"remove the folder {store.path(folder)} to go on from the checkpoint before it"
    try:
        record = store.read_json(f"{folder}/complete.json")
        facts, expected = record["facts"], record["sha256"]
        content = store.read(name)
        metrics = MetricRows.from_parquet(store.read(f"{folder}/metrics.parquet"), f"{folder}/metrics.parquet")
    except StoreError as error:
        raise CheckpointError(f"{error}; {cure}") from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{store.path(folder)}/complete.json: not the facts of a checkpoint; {cure}") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise CheckpointError(f"{store.path(name)}: damaged (its hash differs from complete.json); {cure}")
    try:
        return Checkpoint(phase, step, safetensors.torch.load(content), facts, metrics)
    except SafetensorError as error:
        raise CheckpointError(f"{store.path(name)}: not a safetensors file: {error}; {cure}") from error


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with ``prefix/`` before their names."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _complete(store: Store, paths: PointPaths) -> list[tuple[tuple[int, str, int], str]]:
    """((phase order, phase, step), folder) of complete checkpoints of all attempts, furthest last."""
    found = []
    for attempt in store.list(paths.attempts):
        for name in store.list(f"{paths.attempts}/{attempt}"):
            match = _NAME.match(name)
            folder = f"{paths.attempts}/{attempt}/{name}"
            if match and store.exists(f"{folder}/complete.json"):
                found.append(((int(match[1]), match[2], int(match[3])), folder))
    return sorted(found)
