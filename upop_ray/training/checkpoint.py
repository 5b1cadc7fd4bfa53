"""Checkpoints of a point: safetensors and JSON in the store, one folder each, complete or not there."""

import copy
import hashlib
import itertools
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from upop_ray.errors import CheckpointError, StoreError
from upop_ray.store import PointPaths, Store, as_json
from upop_ray.tracking import MetricRows
from upop_ray.training.background import Background

KEPT = 2
PHASES = ("search", "retrain")
_STARTED, _TENSORS, _COMPLETE = "started.json", "tensors.safetensors", "complete.json"
_NAME = re.compile(r"\d-(search|retrain)-\d{8}")


@dataclass(frozen=True)
class Checkpoint:
    """State of a point after ``step`` steps of ``phase``.

    :param tensors: everything with a shape, by name
    :param facts: everything else, as JSON
    :param attempt: that saved it
    :param instead_of: why a later checkpoint could not be read, where there is one
    """

    phase: str
    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    metrics: MetricRows = field(default_factory=MetricRows)
    attempt: int = -1
    instead_of: str = ""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose names start with ``prefix/``, without it."""
        return {k.removeprefix(f"{prefix}/"): v for k, v in self.tensors.items() if k.startswith(f"{prefix}/")}


class StaleAttempt(Exception):
    """A newer attempt of the same point has begun; whatever this one writes would come from a lost worker."""


class Attempt:
    """One attempt at a point. Attempts are numbered; one that has been overtaken may not write any more."""

    def __init__(self, store: Store, paths: PointPaths, number: int) -> None:
        self.store, self.paths, self.number = store, paths, number
        self._saving = Background()

    @classmethod
    def begin(cls, store: Store, paths: PointPaths) -> "Attempt":
        """Claim the next number; of several who claim at once each gets another."""
        newest = max(_numbers(store, paths), default=-1)
        for number in itertools.count(newest + 1):
            claim = as_json({"attempt": number, "claim": uuid.uuid4().hex})
            if store.create(f"{paths.attempt(number)}/{_STARTED}", claim):
                return cls(store, paths, number)
        raise AssertionError("counting does not end")

    def check(self) -> None:
        """Make sure that no newer attempt has begun.

        :raises StaleAttempt: one has, or somebody removed this one from the store
        """
        numbers = _numbers(self.store, self.paths)
        if self.number not in numbers:
            raise StaleAttempt(f"attempt {self.number} of point {self.paths.hash} is no longer in the store")
        if max(numbers) > self.number:
            newest = max(numbers)
            raise StaleAttempt(f"attempt {self.number} of point {self.paths.hash} was overtaken by attempt {newest}")

    @property
    def error_path(self) -> str:
        """Where the attempt notes what ended it."""
        return f"{self.paths.attempt(self.number)}/error.json"

    def record_error(self, text: str) -> None:
        """Note what ended the attempt."""
        self.store.write_json(self.error_path, {"error": text})

    def save(self, checkpoint: Checkpoint, keep: int = KEPT) -> None:
        """Copy a checkpoint to this machine's memory, and write it beside the training, its facts last.

        Waits for the checkpoint before. When this one is complete, all but the newest ``keep`` are removed.

        :raises StaleAttempt: a newer attempt has begun
        :raises StoreError: the checkpoint before could not be written
        """
        self.settle()
        self.check()
        copied = _copied(checkpoint)
        self._saving.start(lambda: self._write(copied, keep))

    def settle(self) -> None:
        """Wait until what was saved is in the store.

        :raises StaleAttempt: a newer attempt has begun
        :raises StoreError: it could not be written
        """
        self._saving.wait()

    def prune(self, keep: int) -> None:
        """Remove the checkpoints of this attempt and those before, all but the newest ``keep``."""
        complete = _complete(self.store, self.paths)
        kept = complete[max(0, len(complete) - keep) :]
        for number in _numbers(self.store, self.paths):
            # what a newer attempt has begun is not complete yet, and none of this one's business
            for name in self.store.list(self.paths.attempt(number)) if number <= self.number else ():
                folder = f"{self.paths.attempt(number)}/{name}"
                if _NAME.fullmatch(name) and folder not in kept:
                    self._remove(folder)

    def _remove(self, folder: str) -> None:
        """No point fails for what is left over; the next that is pruned takes it along."""
        try:
            self.store.remove(folder)
        except StoreError as error:
            print(f"a checkpoint that is no longer needed stays: {error}")

    def _write(self, checkpoint: Checkpoint, keep: int) -> None:
        folder = _folder(self.paths, self.number, checkpoint.phase, checkpoint.step)
        with self.store.filled(f"{folder}/{_TENSORS}") as file:
            try:
                safetensors.torch.save_file(checkpoint.tensors, file)
                digest = _digest(file)
            except (SafetensorError, OSError) as error:
                raise StoreError(f"{file}: cannot be written: {error}; free space there or set TMPDIR") from error
        self.store.write(f"{folder}/metrics.parquet", checkpoint.metrics.to_parquet())
        self.check()
        self.store.write_json(f"{folder}/{_COMPLETE}", {"facts": checkpoint.facts, "sha256": digest})
        self.prune(keep)


def last_error(store: Store, paths: PointPaths) -> str:
    """What ended the newest attempt that noted it."""
    for attempt in reversed(store.list(paths.attempts)):
        name = f"{paths.attempts}/{attempt}/error.json"
        if store.exists(name):
            return str(store.read_json(name)["error"])
    return "no attempt noted an error"


def latest_checkpoint(store: Store, paths: PointPaths) -> Checkpoint | None:
    """The furthest complete checkpoint of any attempt that can be read.

    :raises CheckpointError: all are damaged; the message names a file of the furthest
    """
    first: CheckpointError | None = None
    for folder in reversed(_complete(store, paths)):
        order, _, step, attempt = _progress(folder)
        try:
            found = read_checkpoint(store, paths, (order, step, int(attempt.rpartition("/")[2])))
            return replace(found, instead_of=str(first or ""))
        except CheckpointError as error:
            # a store that does not answer says so here; what it answers about is damaged
            store.exists(f"{folder}/{_COMPLETE}")
            first = first or error
    if first is not None:
        raise first
    return None


def read_checkpoint(store: Store, paths: PointPaths, place: tuple[int, int, int]) -> Checkpoint:
    """The complete checkpoint at a place.

    :param place: (index of the phase in :data:`PHASES`, step, attempt)
    :raises CheckpointError: it is damaged; the message names the file
    """
    phase, step, attempt = PHASES[place[0]], *place[1:]
    folder = _folder(paths, attempt, phase, step)
    cure = f"remove the folder {store.path(folder)} to start from the checkpoint before it, if there is one"
    try:
        record = store.read_json(f"{folder}/{_COMPLETE}")
        facts, expected = record["facts"], record["sha256"]
        metrics = MetricRows.from_parquet(store.read(f"{folder}/metrics.parquet"), f"{folder}/metrics.parquet")
        tensors = _tensors(store, f"{folder}/{_TENSORS}", expected)
    except (StoreError, CheckpointError) as error:
        raise CheckpointError(f"{error}; {cure}") from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{store.path(folder)}/{_COMPLETE}: not the facts of a checkpoint; {cure}") from error
    return Checkpoint(phase, step, tensors, facts, metrics, attempt)


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with ``prefix/`` before their names."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _copied(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint as it is now, in tensors of its own on the CPU; training goes on with the others."""
    tensors = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in checkpoint.tensors.items()
    }
    rows = MetricRows(list(checkpoint.metrics.rows))
    return replace(checkpoint, tensors=tensors, facts=copy.deepcopy(checkpoint.facts), metrics=rows)


def _tensors(store: Store, name: str, expected: str) -> dict[str, Tensor]:
    with store.fetched(name) as file:
        if _digest(file) != expected:
            raise CheckpointError(f"{store.path(name)}: damaged (its hash differs from {_COMPLETE})")
        try:
            # copies: what is loaded refers to the file, which goes away
            return {key: value.clone() for key, value in safetensors.torch.load_file(file).items()}
        except SafetensorError as error:
            raise CheckpointError(f"{store.path(name)}: not a safetensors file: {error}") from error


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _numbers(store: Store, paths: PointPaths) -> set[int]:
    """Numbers of the attempts that have begun."""
    claims = (name.split("/")[-2:] for name in store.sizes(paths.attempts))
    return {int(number) for number, file in claims if file == _STARTED}


def _complete(store: Store, paths: PointPaths) -> list[str]:
    """Folders of the complete checkpoints of all attempts, furthest last."""
    files = (name.rpartition("/") for name in store.sizes(paths.attempts))
    folders = [folder for folder, _, file in files if file == _COMPLETE]
    return sorted((folder for folder in folders if _NAME.fullmatch(folder.rpartition("/")[2])), key=_progress)


def _folder(paths: PointPaths, attempt: int, phase: str, step: int) -> str:
    return f"{paths.attempt(attempt)}/{PHASES.index(phase)}-{phase}-{step:08d}"


def _progress(folder: str) -> tuple[int, str, int, str]:
    """(order of the phase, phase, step, attempt) of the checkpoint in ``folder``."""
    attempt, _, name = folder.rpartition("/")
    order, phase, step = name.split("-")
    return int(order), phase, int(step), attempt
