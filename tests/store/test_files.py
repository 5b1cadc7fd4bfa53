"""What a store promises, in a folder and on a real S3 server."""

import multiprocessing
import os
import pickle
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from tests.s3 import S3
from upop_ray.errors import StoreError
from upop_ray.store import Store, objects


def test_what_is_written_is_read(store: Store) -> None:
    store.write("a/b/c.bin", b"\x00one")
    assert store.read("a/b/c.bin") == b"\x00one"
    store.write("a/b/c.bin", b"two")
    assert store.read("a/b/c.bin") == b"two" and store.read("a/b/c.bin", start=1) == b"wo"
    # a folder is no file
    assert store.exists("a/b/c.bin") and not store.exists("a/b") and not store.exists("a/b/d.bin")


def test_another_store_on_the_same_uri_sees_it(store: Store) -> None:
    store.write_json("manifest.json", {"ratio": 0.5})
    for same in (Store(store.uri), Store(store.uri + "/"), pickle.loads(pickle.dumps(store))):
        assert same.read_json("manifest.json") == {"ratio": 0.5}


def test_a_path_is_one_that_fsspec_opens(store: Store) -> None:
    store.write("a/b.txt", b"text")
    with fsspec.open(store.path("a/b.txt")) as file:
        assert file.read() == b"text"


def test_names_under_a_folder_are_sorted_and_direct(store: Store) -> None:
    for name in ("f/b", "f/a/deep", "f/c", "g"):
        store.write(name, b"12")
    assert store.list("f") == ["a", "b", "c"] and store.list("nowhere") == []
    assert store.sizes("f") == {"f/a/deep": 2, "f/b": 2, "f/c": 2} and store.sizes("nowhere") == {}


def test_a_listing_is_never_old(store: Store) -> None:
    store.write("f/a", b"")
    assert store.list("f") == ["a"] and set(store.sizes("f")) == {"f/a"}
    Store(store.uri).write("f/b", b"")
    assert store.list("f") == ["a", "b"] and set(store.sizes("f")) == {"f/a", "f/b"}


def test_removing_takes_files_and_folders_and_what_is_not_there(store: Store) -> None:
    store.write("f/a/1", b"")
    store.write("f/b", b"")
    store.write("f/bc", b"")
    store.remove("f/a")
    store.remove("f/a")
    store.remove("f/b")
    assert store.sizes("f") == {"f/bc": 0}


def test_uploading_copies_a_folder(store: Store, tmp_path: Path) -> None:
    local, before = tmp_path / "local", []
    (local / "inner").mkdir(parents=True)
    (local / "top.txt").write_text("top")
    (local / "inner" / "deep.txt").write_text("deep")
    store.upload(local, "model", lambda: before.append(set(store.sizes("model"))))
    assert store.read("model/top.txt") == b"top" and store.read("model/inner/deep.txt") == b"deep"
    assert before == [set(), {"model/inner/deep.txt"}]


def test_a_file_is_filled_and_fetched_as_a_local_one(store: Store) -> None:
    with store.filled("f/large.bin") as file:
        file.write_bytes(b"one")
        assert not store.exists("f/large.bin") and store.list("f") == []
    with store.fetched("f/large.bin") as file:
        assert file.read_bytes() == b"one"
    with pytest.raises(StoreError, match="f/none: missing"), store.fetched("f/none"):
        pass


def test_a_filling_that_breaks_off_leaves_nothing(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.filled("f/a") as file:
        file.write_bytes(b"half")
        raise KeyboardInterrupt
    assert not store.exists("f/a") and store.sizes("f") == {}
    assert not store.is_local or os.listdir(store.path("f")) == []


def test_a_missing_file_names_itself(store: Store) -> None:
    with pytest.raises(StoreError) as caught:
        store.read("points/1/manifest.json")
    assert str(caught.value) == f"{store.path('points/1/manifest.json')}: missing"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_json_that_cannot_be_read_names_its_file(store: Store, content: bytes) -> None:
    store.write("a.json", content)
    with pytest.raises(StoreError) as caught:
        store.read_json("a.json")
    assert str(caught.value).startswith(f"{store.path('a.json')}: is not JSON")


def test_of_many_who_create_a_file_one_succeeds(store: Store) -> None:
    for round_ in range(2):
        contents = [os.urandom(8) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(lambda content: store.create(f"claim-{round_}", content), contents))  # noqa: B023
        assert sum(won) == 1 and store.read(f"claim-{round_}") == contents[won.index(True)]


def test_a_reader_sees_the_old_content_or_the_new_one(store: Store) -> None:
    """Half a megabyte of one letter, overwritten with the next, while another thread reads."""
    contents = [letter * 500_000 for letter in (b"a", b"b", b"c", b"d", b"e", b"f")]
    store.write("f/a", contents[0])
    seen, done = [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(store.read("f/a"))

    reader = threading.Thread(target=watch)
    reader.start()
    for content in contents[1:]:
        store.write("f/a", content)
    done.set()
    reader.join()
    assert seen and all(content in contents for content in seen)


def test_a_store_that_works_passes_its_check(store: Store) -> None:
    store.check()
    assert store.sizes(".check") == {}


def test_a_server_that_ignores_conditions_is_refused(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects.Objects, "create", objects.Objects.write)
    with pytest.raises(StoreError, match=r"ignores If-None-Match.*use a server that knows conditional writes"):
        Store(s3.uri(uuid.uuid4().hex)).check()


def test_a_forked_process_reaches_the_store(store: Store) -> None:
    store.write("a", b"before")
    child = multiprocessing.get_context("fork").Process(target=store.write, args=("b", b"from the child"))
    child.start()
    child.join(30)
    assert child.exitcode == 0 and store.read("b") == b"from the child"


def test_a_large_file_goes_in_parts_and_a_broken_one_leaves_no_parts(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PART", 5 * 2**20)
    store, large = Store(s3.uri(uuid.uuid4().hex)), tmp_path / "large"
    large.write_bytes(os.urandom(21 * 2**20))
    store.put(large, "large")
    with store.fetched("large") as file:
        assert file.read_bytes() == large.read_bytes()
    files = fsspec.filesystem("s3")
    assert files.info(store.path("large"))["ETag"].strip('"').endswith("-5")

    async def broken(*_: object, **__: object) -> None:
        raise PermissionError("broken")

    monkeypatch.setattr(type(files), "_upload_file_part_concurrent", broken)
    with pytest.raises(StoreError, match="large: cannot be written: broken"):
        store.put(large, "other/large")
    prefix = store.path("other").removeprefix(f"s3://{s3.bucket}/")
    assert not files.call_s3("list_multipart_uploads", Bucket=s3.bucket, Prefix=prefix).get("Uploads")
    assert not store.exists("other/large")
