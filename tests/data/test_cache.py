"""The cache: one fetch for all processes, a limit, whole files or none, damage found."""

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from filelock import FileLock

from upop_ray.data.cache import TableCache
from upop_ray.errors import DataError

_MILLION = 10**6


def table(number: int, size: int = 1000) -> pa.Table:
    return pa.table({"image": [bytes([number]) * size]})


def never() -> pa.Table:
    raise AssertionError("fetched again")


def test_a_table_is_fetched_once_and_then_mapped(tmp_path: Path) -> None:
    cache = TableCache(tmp_path / "new", _MILLION)
    assert cache.get("a", lambda: table(1)) == table(1)
    allocated = pa.total_allocated_bytes()
    assert (again := cache.get("a", never)) == table(1)
    assert pa.total_allocated_bytes() == allocated, "copied instead of mapped"
    (tmp_path / "new" / "a.arrow").unlink()
    assert again == table(1), "a mapped table outlives its file"


def fetch_slowly(folder: str, fetched: "multiprocessing.sharedctypes.Synchronized[int]") -> None:  # type: ignore[name-defined]
    def fetch() -> pa.Table:
        with fetched.get_lock():
            fetched.value += 1
        time.sleep(0.3)
        return table(7)

    assert TableCache(Path(folder), _MILLION).get("a", fetch) == table(7)


def test_processes_that_want_a_table_at_once_fetch_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    fetched = context.Value("i", 0)
    processes = [context.Process(target=fetch_slowly, args=(str(tmp_path), fetched)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0] and fetched.value == 1


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = TableCache(tmp_path, 3500)
    for number, name in enumerate("abc"):
        cache.get(name, lambda number=number: table(number, 600))
        os.utime(tmp_path / f"{name}.arrow", (number, number))
    cache.get("a", never)
    cache.get("d", lambda: table(3, 600))
    assert {path.stem for path in tmp_path.glob("*.arrow")} == {"a", "c", "d"}
    assert sum(path.stat().st_size for path in tmp_path.glob("*.arrow")) <= 3500


def test_the_newest_is_kept_however_large_it_is(tmp_path: Path) -> None:
    cache = TableCache(tmp_path, 1)
    cache.get("a", lambda: table(1))
    cache.get("b", lambda: table(2))
    assert [path.stem for path in tmp_path.glob("*.arrow")] == ["b"] and cache.get("b", never) == table(2)


@pytest.mark.parametrize("damage", ["flipped", "cut off", "empty"])
def test_a_damaged_file_is_fetched_again(tmp_path: Path, damage: str) -> None:
    cache = TableCache(tmp_path, _MILLION)
    cache.get("a", lambda: table(1))
    path = tmp_path / "a.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flipped": content, "cut off": content[:-200], "empty": b""}[damage])
    assert cache.get("a", lambda: table(2)) == table(2)
    assert cache.get("a", never) == table(2)


def test_a_failed_fetch_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> pa.Table:
        raise DataError("no such shard")

    with pytest.raises(DataError, match="no such shard"):
        TableCache(tmp_path, _MILLION).get("a", fail)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    cache = TableCache(tmp_path, _MILLION)
    left, others = tmp_path / "axyz.tmp", tmp_path / "bxyz.tmp"
    for path in (left, others):
        path.write_bytes(b"half")
    os.utime(left, (0, 0))
    cache.get("a", lambda: table(1))
    assert not left.exists() and others.exists()


def size_of_one(folder: Path) -> int:
    TableCache(folder, _MILLION).get("one", lambda: table(1))
    return (folder / "one.arrow").stat().st_size


def test_what_is_being_written_counts(tmp_path: Path) -> None:
    size = size_of_one(tmp_path / "other")
    cache = TableCache(tmp_path / "cache", 2 * size)
    cache.get("a", lambda: table(1))
    (tmp_path / "cache" / "bxyz.tmp").write_bytes(bytes(size))
    cache.get("c", lambda: table(2))
    assert {path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"} == {"bxyz.tmp", "c.arrow"}


def test_room_is_made_before_it_is_taken_also_where_another_process_makes_room(tmp_path: Path) -> None:
    size = size_of_one(tmp_path / "other")
    cache = TableCache(tmp_path / "cache", 2 * size)
    for name in "ab":
        cache.get(name, lambda: table(1))
    lock = FileLock(tmp_path / "cache" / "shrink.lock")
    lock.acquire()
    writer = threading.Thread(target=cache.get, args=("c", lambda: table(2)))
    writer.start()
    time.sleep(0.2)
    assert {path.stem for path in (tmp_path / "cache").glob("*.arrow")} == {"a", "b"}
    lock.release()
    writer.join(60)
    assert {path.stem for path in (tmp_path / "cache").glob("*.arrow")} == {"b", "c"}


def test_a_folder_that_cannot_be_written_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/cache/a\.arrow: cannot be written: .*set data\.cache to a folder"):
        TableCache(tmp_path / "file" / "cache", _MILLION).get("a", lambda: table(1))
