"""Checkpoints in the store: complete or not there, the newest two, and never those of an overtaken attempt."""

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tests.s3_proxy import Proxy
from upop_ray.errors import CheckpointError, StoreError
from upop_ray.store import PointPaths, Store
from upop_ray.tracking import MetricRows
from upop_ray.training.checkpoint import Attempt, Checkpoint, StaleAttempt, last_error, latest_checkpoint, named

PATHS = PointPaths("abc")


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
    files = (name.removeprefix(f"{PATHS.attempt(number)}/").split("/") for name in store.sizes(PATHS.attempt(number)))
    return sorted({parts[0] for parts in files if len(parts) == 2})


def file_of(store: Store, name: str, number: int = 0) -> str:
    return f"{PATHS.attempt(number)}/{folders(store, number)[-1]}/{name}"


def step_of(store: Store) -> tuple[str, int]:
    found = latest_checkpoint(store, PATHS)
    assert found is not None
    return found.phase, found.step


def saved(attempt: Attempt, *checkpoints: Checkpoint) -> Attempt:
    for each in checkpoints:
        attempt.save(each)
    attempt.settle()
    return attempt


def test_what_is_saved_is_loaded(store: Store) -> None:
    written = checkpoint(7, achieved=0.25)
    saved(Attempt.begin(store, PATHS), written)
    loaded = latest_checkpoint(store, PATHS)
    assert loaded is not None
    assert (loaded.phase, loaded.step, loaded.facts) == ("search", 7, {"step": 7, "achieved": 0.25})
    assert loaded.tensors.keys() == written.tensors.keys()
    for name, value in written.tensors.items():
        assert loaded.tensors[name].dtype == value.dtype and torch.equal(loaded.tensors[name], value), name
    assert loaded.metrics.rows == written.metrics.rows


def test_training_goes_on_while_a_checkpoint_is_written(proxy: Proxy, behind_proxy: Store) -> None:
    """What is written is the state at the time of the save, whatever training does to it meanwhile."""
    attempt, written = Attempt.begin(behind_proxy, PATHS), checkpoint(3)
    proxy.delay = 0.3
    begun = time.monotonic()
    attempt.save(written)
    took = time.monotonic() - begun
    for value in written.tensors.values():
        value.zero_()
    written.facts["step"] = 99
    written.metrics.log("search", 99, {"loss": 0.0})
    begun = time.monotonic()
    attempt.settle()
    # the save itself made one request (it asks whether it was overtaken), and at least five more were made beside it
    assert took < 0.7 and time.monotonic() - begun > 5 * proxy.delay
    proxy.delay = 0.0
    loaded, expected = latest_checkpoint(behind_proxy, PATHS), checkpoint(3)
    assert loaded is not None and loaded.facts == {"step": 3} and len(loaded.metrics.rows) == 1
    assert all(torch.equal(loaded.tensors[name], value) for name, value in expected.tensors.items())


def test_a_save_that_fails_is_told_at_the_next_and_leaves_no_checkpoint(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = saved(Attempt.begin(store, PATHS), checkpoint(1))

    def full(name: str, content: Any) -> None:
        raise StoreError(f"{name}: cannot be written: no space")

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_json", full)
        attempt.save(checkpoint(2))
        with pytest.raises(StoreError, match=r"search-00000002/complete\.json: cannot be written: no space"):
            attempt.save(checkpoint(3))
    assert step_of(store) == ("search", 1)
    # told once; what the failed one left goes with the next that is complete
    saved(attempt, checkpoint(4))
    assert step_of(store) == ("search", 4) and [int(name[-8:]) for name in folders(store, 0)] == [1, 4]


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
    saved(Attempt.begin(store, PATHS), checkpoint(90), checkpoint(0, "retrain"))
    assert step_of(store) == ("retrain", 0)


@pytest.mark.parametrize("missing", ["complete.json", "tensors.safetensors", "metrics.parquet"])
def test_only_complete_checkpoints_count(store: Store, missing: str) -> None:
    # a save that breaks off: the facts come last, so that they are missing whatever else is
    saved(Attempt.begin(store, PATHS), checkpoint(1), checkpoint(2))
    for name in {"complete.json", missing}:
        store.remove(file_of(store, name))
    assert step_of(store) == ("search", 1)


def test_the_facts_are_written_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt, before, write_json = Attempt.begin(store, PATHS), [], store.write_json

    def watched(name: str, content: Any) -> None:
        before.append(store.sizes(PATHS.root))
        write_json(name, content)

    monkeypatch.setattr(store, "write_json", watched)
    saved(attempt, checkpoint(1))
    names = [name.rpartition("/")[2] for name in before[-1]]
    assert sorted(names) == ["metrics.parquet", "started.json", "tensors.safetensors"]


def test_the_newest_two_are_kept(store: Store) -> None:
    saved(Attempt.begin(store, PATHS), *map(checkpoint, range(1, 5)))
    assert [int(name[-8:]) for name in folders(store, 0)] == [3, 4]
    # also across attempts
    second = saved(Attempt.begin(store, PATHS), checkpoint(5))
    assert [int(name[-8:]) for name in folders(store, 0) + folders(store, 1)] == [4, 5]
    saved(second, checkpoint(6))
    assert not folders(store, 0) and step_of(store) == ("search", 6)


def test_pruning_keeps_what_is_asked_and_what_attempts_noted(store: Store) -> None:
    first = saved(Attempt.begin(store, PATHS), checkpoint(1))
    first.record_error("lost")
    second = Attempt.begin(store, PATHS)
    second.save(checkpoint(2), keep=5)
    second.save(checkpoint(3), keep=5)
    second.settle()
    second.prune(2)
    assert not folders(store, 0) and [int(name[-8:]) for name in folders(store, 1)] == [2, 3]
    # what a lost worker had begun to write
    store.write(f"{PATHS.attempt(0)}/0-search-00000009/tensors.safetensors", b"half")
    # and what a newer attempt is writing
    Attempt.begin(store, PATHS)
    store.write(f"{PATHS.attempt(2)}/0-search-00000009/tensors.safetensors", b"half")
    second.prune(0)
    left = {name.removeprefix(f"{PATHS.attempts}/") for name in store.sizes(PATHS.attempts)}
    noted = {"0000/started.json", "0000/error.json", "0001/started.json", "0002/started.json"}
    assert left == noted | {"0002/0-search-00000009/tensors.safetensors"} and last_error(store, PATHS) == "lost"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(store: Store, damage: str) -> None:
    saved(Attempt.begin(store, PATHS), checkpoint(1), checkpoint(2))
    name = file_of(store, "tensors.safetensors")
    content = store.read(name)
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    store.write(name, {"cut": content[:-5], "flipped": flipped, "empty": b""}[damage])
    found = latest_checkpoint(store, PATHS)
    assert found is not None and (found.phase, found.step) == ("search", 1)
    assert found.instead_of.startswith(f"{store.path(name)}: damaged")
    # what is computed again takes its place
    saved(Attempt.begin(store, PATHS), checkpoint(2))
    again = latest_checkpoint(store, PATHS)
    assert again is not None and (again.step, again.attempt, again.instead_of) == (2, 1, "")


def test_where_all_checkpoints_are_damaged_the_furthest_is_named(store: Store) -> None:
    attempt = Attempt.begin(store, PATHS)
    for step in (1, 2):
        saved(attempt, checkpoint(step))
        name = file_of(store, "tensors.safetensors")
        store.write(name, b"")
    folder = name.rpartition("/")[0]
    with pytest.raises(CheckpointError) as caught:
        latest_checkpoint(store, PATHS)
    assert store.path(name) in str(caught.value) and f"remove the folder {store.path(folder)}" in str(caught.value)


def test_a_checkpoint_that_cannot_be_removed_is_no_reason_to_fail(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt = saved(Attempt.begin(store, PATHS), checkpoint(1), checkpoint(2))

    def refused(name: str) -> None:
        raise StoreError(f"{name}: cannot be removed: SlowDown")

    with monkeypatch.context() as patched:
        patched.setattr(store, "remove", refused)
        saved(attempt, checkpoint(3))
    assert "stays: points/abc/attempts/0000/0-search-00000001: cannot be removed: SlowDown" in capsys.readouterr().out
    saved(attempt, checkpoint(4))
    assert [int(name[-8:]) for name in folders(store, 0)] == [3, 4]


@pytest.mark.parametrize("name", ["tensors.safetensors", "metrics.parquet"])
def test_a_missing_file_of_a_complete_checkpoint_is_an_error_that_names_it(store: Store, name: str) -> None:
    saved(Attempt.begin(store, PATHS), checkpoint(1))
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
    saved(Attempt.begin(store, PATHS), checkpoint(1))
    file = file_of(store, name)
    store.write(file, content)
    with pytest.raises(CheckpointError, match="remove the folder") as caught:
        latest_checkpoint(store, PATHS)
    assert file in str(caught.value)


def test_attempts_are_numbered(store: Store) -> None:
    assert [Attempt.begin(store, PATHS).number for _ in range(3)] == [0, 1, 2]
    # whatever else lies there
    store.write(f"{PATHS.attempts}/.DS_Store", b"")
    assert Attempt.begin(store, PATHS).number == 3


def test_claims_at_once_get_different_numbers(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        numbers = [attempt.number for attempt in pool.map(lambda _: Attempt.begin(store, PATHS), range(4))]
    assert sorted(numbers) == [0, 1, 2, 3]


def claim(uri: str, start: Any, told: Any) -> None:
    start.wait(30)
    told.put(Attempt.begin(Store(uri), PATHS).number)


def test_claims_of_two_processes_get_different_numbers(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    start, told = context.Barrier(2), context.Queue()
    processes = [context.Process(target=claim, args=(store.uri, start, told)) for _ in range(2)]
    for process in processes:
        process.start()
    assert sorted(told.get(timeout=60) for _ in processes) == [0, 1]
    for process in processes:
        process.join(30)


def test_an_overtaken_attempt_writes_nothing_more(store: Store) -> None:
    first = saved(Attempt.begin(store, PATHS), checkpoint(1))
    second = Attempt.begin(store, PATHS)
    with pytest.raises(StaleAttempt, match="attempt 0 of point abc was overtaken by attempt 1"):
        first.save(checkpoint(2))
    second.check()
    assert step_of(store) == ("search", 1)
    saved(second, checkpoint(3))
    assert step_of(store) == ("search", 3)


def test_an_attempt_overtaken_while_it_writes_completes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, write = Attempt.begin(store, PATHS), store.write

    def overtaken(name: str, content: bytes) -> None:
        write(name, content)
        if name.endswith("metrics.parquet"):
            Attempt.begin(Store(store.uri), PATHS)

    monkeypatch.setattr(store, "write", overtaken)
    first.save(checkpoint(1))
    with pytest.raises(StaleAttempt, match="was overtaken by attempt 1"):
        first.settle()
    assert latest_checkpoint(store, PATHS) is None


def test_an_attempt_that_was_removed_is_stale(store: Store) -> None:
    attempt = Attempt.begin(store, PATHS)
    store.remove(PATHS.root)
    with pytest.raises(StaleAttempt, match="attempt 0 of point abc is no longer in the store"):
        attempt.save(checkpoint(1))
