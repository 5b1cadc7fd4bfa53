"""A store in a folder: where it lies, and what a full disk or a killed writer leaves."""

import multiprocessing
import resource
import signal
from pathlib import Path

import pytest

from upop_ray.errors import StoreError
from upop_ray.store import Store


def write_too_much(folder: Path, told: Path) -> None:
    """Overwrite a file under a limit of 1 MB a file, which fails within the write as a full disk does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
    try:
        Store(str(folder)).write("f/a", b"new" * 2**20)
    except StoreError as error:
        told.write_text(str(error))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("f/a", b"")
    with pytest.raises(StoreError, match=f"{tmp_path}/f: cannot be read: .*Is a directory"):
        store.read("f")


def test_a_write_that_breaks_off_leaves_the_old_content(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("f/a", b"old")
    child = multiprocessing.get_context("fork").Process(target=write_too_much, args=(tmp_path, tmp_path / "told"))
    child.start()
    child.join(30)
    assert f"{tmp_path}/f/a: cannot be written: [Errno 27] File too large" in (tmp_path / "told").read_text()
    assert store.read("f/a") == b"old" and store.list("f") == ["a"]
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["a"]


def test_a_full_disk_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match=r"f/a: cannot be written: .*No space left on device; free space there"):
        Store(str(tmp_path)).write("f/a", b"new")


def test_a_store_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/a: cannot be written: .*; check rights and space"):
        Store(str(tmp_path / "file")).write("a", b"")


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
    assert store.is_local and store.path("a") == f"{tmp_path}/results/a" and Store(f"file://{tmp_path}").is_local


@pytest.mark.parametrize("link", ["folder", "file"])
def test_a_link_does_not_lead_out(tmp_path: Path, link: str) -> None:
    outside, store = tmp_path / "outside", Store(str(tmp_path / "store"))
    (outside / "points").mkdir(parents=True)
    (outside / "points" / "a").write_text("secret")
    (tmp_path / "store").mkdir()
    if link == "folder":
        (tmp_path / "store" / "points").symlink_to(outside / "points")
    else:
        (tmp_path / "store" / "points").mkdir()
        (tmp_path / "store" / "points" / "a").symlink_to(outside / "points" / "a")
    for call in (
        lambda: store.read("points/a"),
        lambda: store.write("points/a", b""),
        lambda: store.exists("points/a"),
        lambda: store.remove("points/a"),
    ):
        with pytest.raises(StoreError, match="leads out of the store through a link"):
            call()
    assert (outside / "points" / "a").read_text() == "secret"


def test_the_store_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    Store(str(tmp_path / "store")).write("a/b", b"here")
    assert (tmp_path / "disk" / "a" / "b").read_bytes() == b"here"
