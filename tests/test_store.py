"""The store on a local folder and on another fsspec file system."""

import os
import uuid
from pathlib import Path

import fsspec
import pytest

from upop_ray.errors import StoreError
from upop_ray.store import PointPaths, Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A new store, in a folder and in fsspec's memory."""
    return Store(str(tmp_path / "results") if request.param == "local" else f"memory://{uuid.uuid4().hex}/results")


def test_what_is_written_is_read(store: Store) -> None:
    store.write("a/b/c.bin", b"\x00one")
    assert store.read("a/b/c.bin") == b"\x00one"
    store.write("a/b/c.bin", b"two")
    assert store.read("a/b/c.bin") == b"two"
    assert store.exists("a/b/c.bin") and store.exists("a/b") and not store.exists("a/b/d.bin")


def test_another_store_on_the_same_uri_sees_it(store: Store) -> None:
    store.write_json("manifest.json", {"ratio": 0.5})
    assert Store(store.uri).read_json("manifest.json") == {"ratio": 0.5}
    assert Store(store.uri + "/").read_json("manifest.json") == {"ratio": 0.5}


def test_a_path_is_one_that_fsspec_opens(store: Store) -> None:
    store.write("a/b.txt", b"text")
    with fsspec.open(store.path("a/b.txt")) as file:
        assert file.read() == b"text"


def test_names_under_a_folder_are_sorted_and_direct(store: Store) -> None:
    for name in ("f/b", "f/a/deep", "f/c", "g"):
        store.write(name, b"")
    assert store.list("f") == ["a", "b", "c"]
    assert store.list("nowhere") == []


def test_a_listing_is_never_old(store: Store) -> None:
    store.write("f/a", b"")
    assert store.list("f") == ["a"]
    Store(store.uri).write("f/b", b"")
    assert store.list("f") == ["a", "b"]


def test_removing_takes_files_and_folders_and_what_is_not_there(store: Store) -> None:
    store.write("f/a/1", b"")
    store.write("f/b", b"")
    store.remove("f/a")
    store.remove("f/a")
    assert store.list("f") == ["b"]
    store.remove("f/b")
    assert not store.exists("f/b")


def test_uploading_copies_a_folder(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "local"
    (local / "inner").mkdir(parents=True)
    (local / "top.txt").write_text("top")
    (local / "inner" / "deep.txt").write_text("deep")
    store.upload(local, "model")
    assert store.read("model/top.txt") == b"top" and store.read("model/inner/deep.txt") == b"deep"


@pytest.mark.parametrize("name", ["../out", "a/../../out", "a/..", "/etc/passwd", ".."])
def test_a_name_that_leads_out_is_refused(store: Store, name: str) -> None:
    calls = (
        lambda: store.read(name),
        lambda: store.write(name, b""),
        lambda: store.remove(name),
        lambda: store.exists(name),
        lambda: store.list(name),
        lambda: store.path(name),
    )
    for call in calls:
        with pytest.raises(StoreError, match="leads out of the store; use a plain name"):
            call()


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


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("f/a", b"")
    with pytest.raises(StoreError, match=f"{tmp_path}/f: "):
        store.read("f")


def test_a_write_shows_the_old_content_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, seen = Store(str(tmp_path)), []
    store.write("f/a", b"old")
    replace = os.replace

    def watched(source: str, target: str) -> None:
        seen.append((store.read("f/a"), store.list("f"), Path(source).read_bytes()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    store.write("f/a", b"new")
    # while the new content lies whole under another name, readers and listings have the old one alone
    assert seen == [(b"old", ["a"], b"new")]
    assert store.read("f/a") == b"new" and os.listdir(tmp_path / "f") == ["a"]


def test_a_write_that_breaks_off_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.write("f/a", b"old")

    def full(self: Path, content: bytes) -> None:
        with self.open("wb") as file:
            file.write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match=r"f/a: cannot be written: .*No space left on device"):
        store.write("f/a", b"new")
    assert store.read("f/a") == b"old" and store.list("f") == ["a"]


def test_a_store_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"file/a: cannot be written"):
        store.write("a", b"")


@pytest.mark.parametrize("uri", ["nosuch://bucket/x", "s4://x"])
def test_an_unknown_file_system_is_refused(uri: str) -> None:
    with pytest.raises(StoreError, match=f"store: {uri} cannot be opened.*use a folder or s3://bucket/prefix"):
        Store(uri)


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Store("~/results").write("a", b"here")
    assert (tmp_path / "results" / "a").read_bytes() == b"here"


def test_a_relative_folder_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("results")
    monkeypatch.chdir("/")
    store.write("a", b"here")
    assert (tmp_path / "results" / "a").read_bytes() == b"here"
    assert store.is_local and store.path("a") == f"{tmp_path}/results/a"


def test_everything_of_a_point_lies_under_its_hash() -> None:
    paths = PointPaths("abc")
    places = (paths.settings, paths.manifest, paths.metrics, paths.model, paths.attempts, paths.attempt(3))
    assert all(place.startswith("points/abc/") for place in places) and len(set(places)) == len(places)
    # sorted by name, attempts are sorted by number
    assert paths.attempt(9) < paths.attempt(10)
