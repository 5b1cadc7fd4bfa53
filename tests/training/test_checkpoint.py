"""Checkpoints in the store: complete or not there, the newest two, and never those of an overtaken attempt."""

import uuid
from pathlib import Path
from typing import Any

import pytest
import torch

from upop_ray.errors import CheckpointError
from upop_ray.store import PointPaths, Store
from upop_ray.tracking import MetricRows
from upop_ray.training.checkpoint import Attempt, Checkpoint, StaleAttempt, latest_checkpoint, named

PATHS = PointPaths("abc")


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A new store, in a folder and in fsspec's memory."""
    return Store(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def checkpoint(step: int, phase: str = "search", **facts: Any) -> Checkpoint:
    rows = MetricRows()
    rows.log(phase, step, {"loss": step / 3})
    torch.manual_seed(step)
    whole = torch.randn(6, 5)
    tensors = {
        "weights/a": whole[:3],
        "weights/b": whole.t(),
        "weights/scalar": torch.tensor(0.5),
        "keep/m": torch.tensor([True, False]),
        "low": whole.bfloat16(),
        "count": torch.tensor([2**40]),
        "rng": torch.get_rng_state(),
    }
    return Checkpoint(phase, step, tensors, {"step": step, **facts}, rows)


def folders(store: Store, number: int) -> list[str]:
    return [name for name in store.list(PATHS.attempt(number)) if not name.endswith(".json")]


def file_of(store: Store, name: str, number: int = 0) -> str:
    return f"{PATHS.attempt(number)}/{folders(store, number)[-1]}/{name}"


def step_of(store: Store) -> tuple[str, int]:
    found = latest_checkpoint(store, PATHS)
    assert found is not None
    return found.phase, found.step


def test_what_is_saved_is_loaded(store: Store) -> None:
    saved = checkpoint(7, achieved=0.25)
    Attempt.begin(store, PATHS).save(saved)
    loaded = latest_checkpoint(store, PATHS)
    assert loaded is not None
    assert (loaded.phase, loaded.step, loaded.facts) == ("search", 7, {"step": 7, "achieved": 0.25})
    assert loaded.tensors.keys() == saved.tensors.keys()
    for name, value in saved.tensors.items():
        assert loaded.tensors[name].dtype == value.dtype and torch.equal(loaded.tensors[name], value), name
    assert loaded.metrics.rows == saved.metrics.rows


def test_parts_are_named_by_their_prefix() -> None:
    tensors = named("a", {"x/y": torch.ones(1)}) | named("ab", {"z": torch.ones(2)})
    found = Checkpoint("search", 0, tensors, {})
    assert list(tensors) == ["a/x/y", "ab/z"]
    assert list(found.part("a")) == ["x/y"] and list(found.part("ab")) == ["z"] and not found.part("x")


def test_without_a_checkpoint_there_is_none(store: Store) -> None:
    assert latest_checkpoint(store, PATHS) is None
    Attempt.begin(store, PATHS)
    assert latest_checkpoint(store, PATHS) is None


def test_retraining_is_further_than_any_search(store: Store) -> None:
    attempt = Attempt.begin(store, PATHS)
    for each in (checkpoint(90), checkpoint(0, "retrain")):
        attempt.save(each)
    assert step_of(store) == ("retrain", 0)


@pytest.mark.parametrize("missing", ["complete.json", "tensors.safetensors", "metrics.parquet"])
def test_only_complete_checkpoints_count(store: Store, missing: str) -> None:
    # a save that breaks off: the facts come last, so that they are missing whatever else is
    attempt = Attempt.begin(store, PATHS)
    attempt.save(checkpoint(1))
    attempt.save(checkpoint(2))
    for name in {"complete.json", missing}:
        store.remove(file_of(store, name))
    assert step_of(store) == ("search", 1)


def test_the_facts_are_written_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt, written = Attempt.begin(store, PATHS), []
    write = store.write
    monkeypatch.setattr(store, "write", lambda name, content: (written.append(name), write(name, content))[1])
    attempt.save(checkpoint(1))
    assert written[-1].endswith("/complete.json") and len(written) == 3


def test_the_newest_two_are_kept(store: Store) -> None:
    attempt = Attempt.begin(store, PATHS)
    for step in range(1, 5):
        attempt.save(checkpoint(step))
    assert [int(name[-8:]) for name in folders(store, 0)] == [3, 4]
    # also across attempts
    second = Attempt.begin(store, PATHS)
    second.save(checkpoint(5))
    assert [int(name[-8:]) for name in folders(store, 0) + folders(store, 1)] == [4, 5]
    second.save(checkpoint(6))
    assert not folders(store, 0) and step_of(store) == ("search", 6)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_tensors_are_an_error_that_names_them(store: Store, damage: str) -> None:
    attempt = Attempt.begin(store, PATHS)
    attempt.save(checkpoint(1))
    attempt.save(checkpoint(2))
    name = file_of(store, "tensors.safetensors")
    content = store.read(name)
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    store.write(name, {"cut": content[:-5], "flipped": flipped, "empty": b""}[damage])
    with pytest.raises(CheckpointError) as caught:
        latest_checkpoint(store, PATHS)
    folder = name.rpartition("/")[0]
    assert store.path(name) in str(caught.value) and f"remove the folder {store.path(folder)}" in str(caught.value)
    # the cure cures
    store.remove(folder)
    assert step_of(store) == ("search", 1)


@pytest.mark.parametrize("name", ["tensors.safetensors", "metrics.parquet"])
def test_a_missing_file_of_a_complete_checkpoint_is_an_error_that_names_it(store: Store, name: str) -> None:
    Attempt.begin(store, PATHS).save(checkpoint(1))
    file = file_of(store, name)
    store.remove(file)
    with pytest.raises(CheckpointError, match="missing; remove the folder") as caught:
        latest_checkpoint(store, PATHS)
    assert file in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("metrics.parquet", b"PAR1"), ("complete.json", b"{"), ("complete.json", b"{}"), ("complete.json", b"[]")],
)
def test_an_unreadable_file_is_an_error_that_names_it(store: Store, name: str, content: bytes) -> None:
    Attempt.begin(store, PATHS).save(checkpoint(1))
    file = file_of(store, name)
    store.write(file, content)
    with pytest.raises(CheckpointError, match="remove the folder") as caught:
        latest_checkpoint(store, PATHS)
    assert file in str(caught.value)


def test_attempts_are_numbered(store: Store) -> None:
    assert [Attempt.begin(store, PATHS).number for _ in range(3)] == [0, 1, 2]


def test_an_overtaken_attempt_writes_nothing_more(store: Store) -> None:
    first = Attempt.begin(store, PATHS)
    first.save(checkpoint(1))
    second = Attempt.begin(store, PATHS)
    with pytest.raises(StaleAttempt, match="attempt 0 of point abc was overtaken by attempt 1"):
        first.save(checkpoint(2))
    second.check()
    assert step_of(store) == ("search", 1)
    second.save(checkpoint(3))
    assert step_of(store) == ("search", 3)
