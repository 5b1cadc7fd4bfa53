"""Streamed images: those that the shards hold, whatever is held, fetched, damaged or missing."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.shard_folders import CONTENTS, ROWS, SHARDS, write_shards
from tests.datasets import write_dataset
from tests.s3 import S3
from upop_ray.data import row_groups as row_groups_module
from upop_ray.data import streams
from upop_ray.data.pictures import HeldPictures, Pictures
from upop_ray.data.reading import Reading
from upop_ray.data.row_groups import Shards, row_groups
from upop_ray.data.shards import ShardedDataset, open_dataset
from upop_ray.data.streams import StreamedPictures, blocks_of, column_names, open_split
from upop_ray.errors import DataError

MIXED = np.random.default_rng(0).permutation(ROWS).tolist()


def opened(path: Path | str, cache: Path, held: bool = False) -> ShardedDataset:
    return open_dataset(str(path), reading=Reading(cache=cache, memory_bytes=10**9 if held else 0))


def copied(folder: Path, uri: str) -> str:
    """The files of a data set at a URI."""
    files, root = fsspec.core.url_to_fs(uri)
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"{root}/{path.relative_to(folder)}", path.read_bytes())
    return uri


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[str]:
    uri = "memory://streamed"
    yield copied(write_shards(tmp_path / "data"), uri)
    fsspec.filesystem("memory").rm("/streamed", recursive=True)


def images_of(dataset: ShardedDataset) -> Pictures:
    return open_split(dataset, "train", ["number"])[1][0]


@pytest.mark.parametrize("listed", [True, False])
def test_images_of_a_folder_are_those_of_its_shards(tmp_path: Path, listed: bool) -> None:
    dataset = opened(write_shards(tmp_path, listed), tmp_path / "cache")
    table, (pictures,) = open_split(dataset, "train", ["captions", "number"])
    assert isinstance(pictures, StreamedPictures) and len(pictures) == table.num_rows == ROWS
    assert table.column_names == ["captions", "number"] and table["number"].to_pylist() == list(range(ROWS))
    assert pictures.contents(MIXED) == [CONTENTS[row] for row in MIXED]
    assert pictures.contents([3, 3, 0]) == [CONTENTS[3], CONTENTS[3], CONTENTS[0]]
    assert not (tmp_path / "cache").exists(), "files of this machine need no cache"


def test_small_splits_are_held_and_give_the_same(tmp_path: Path) -> None:
    dataset = opened(write_shards(tmp_path), tmp_path / "cache", held=True)
    table, (pictures,) = open_split(dataset, "train", ["number"])
    assert isinstance(pictures, HeldPictures) and table.column_names == ["number"]
    streamed = images_of(opened(tmp_path, tmp_path / "cache"))
    assert pictures.contents(MIXED) == streamed.contents(MIXED)
    assert pictures.pixels(MIXED).equal(streamed.pixels(MIXED))


@pytest.mark.parametrize("listed", [True, False])
def test_blocks_are_the_row_groups(tmp_path: Path, listed: bool) -> None:
    dataset = opened(write_shards(tmp_path, listed), tmp_path / "cache")
    assert blocks_of(dataset, "train") == tuple(size for sizes in SHARDS for size in sizes)
    assert [group.number for group in row_groups(dataset, "train")] == [0, 1, 2, 0, 1, 0, 1, 2, 3]
    assert column_names(dataset, "train") == ["image", "number", "captions"]


@pytest.mark.parametrize("kind", ["held", "file", "memory"])
def test_images_alone_are_read_too(tmp_path: Path, remote: str, kind: str) -> None:
    dataset = opened(remote if kind == "memory" else tmp_path / "data", tmp_path, held=kind == "held")
    table, (first, second) = open_split(dataset, "train", [], ["image", "image"])
    assert table.num_rows == ROWS and table.column_names == []
    assert first.contents([7]) == second.contents([7]) == [CONTENTS[7]]


def test_built_in_data_have_no_blocks_and_are_held() -> None:
    dataset = open_dataset("builtin:emoji_classes")
    table, (pictures,) = open_split(dataset, "val", ["class"])
    assert blocks_of(dataset, "val") is None and isinstance(pictures, HeldPictures)
    assert len(pictures) == table.num_rows and set(column_names(dataset, "val")) >= {"image", "class"}


def test_remote_images_are_fetched_once_for_all(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    pictures = images_of(opened(remote, cache))
    assert pictures.contents(MIXED) == [CONTENTS[row] for row in MIXED]
    assert len(list(cache.glob("*.arrow"))) == sum(map(len, SHARDS))
    monkeypatch.setattr(Shards, "_fetched", lambda *_: pytest.fail("fetched again"))
    copy = pickle.loads(pickle.dumps(pictures))
    assert copy.contents(MIXED) == pictures.contents(MIXED)


def test_texts_are_read_without_the_images(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    files = fsspec.filesystem("memory")
    plain = files.cat_ranges
    monkeypatch.setattr(row_groups_module, "_GAP", 0)
    monkeypatch.setattr(
        type(files), "cat_ranges", lambda self, paths, starts, ends, **other: (
            asked.extend(zip(starts, ends, strict=True)), plain(paths, starts, ends, **other))[1]
    )  # fmt: skip
    table, _ = open_split(opened(remote, tmp_path), "train", ["number", "captions"])
    assert table["captions"].to_pylist()[5] == ["caption 0 of 5", "caption 1 of 5"]
    assert 0 < sum(end - start for start, end in asked) < sum(map(len, CONTENTS)) / 3


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_damaged_page_is_found(tmp_path: Path, remote: str, kind: str) -> None:
    path = tmp_path / "data" / "shards" / "train-1.parquet"
    content = bytearray(path.read_bytes())
    # the first image of the shard, far from any text
    content[content.find(CONTENTS[sum(SHARDS[0])]) + 60] ^= 1
    path.write_bytes(content)
    fsspec.filesystem("memory").pipe_file("/streamed/shards/train-1.parquet", bytes(content))
    pictures = images_of(opened(tmp_path / "data" if kind == "file" else remote, tmp_path / "cache"))
    assert pictures.contents([0]) == CONTENTS[:1]
    with pytest.raises(DataError, match=r"shards/train-1\.parquet: damaged: .*CRC"):
        pictures.contents([0, sum(SHARDS[0])])


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_shard_that_disappears_is_named(tmp_path: Path, remote: str, kind: str) -> None:
    pictures = images_of(opened(tmp_path / "data" if kind == "file" else remote, tmp_path / "cache"))
    copy = pickle.loads(pickle.dumps(pictures))
    (tmp_path / "data" / "shards" / "train-2.parquet").unlink()
    fsspec.filesystem("memory").rm("/streamed/shards/train-2.parquet")
    with pytest.raises(DataError, match=r"shards/train-2\.parquet: (missing|damaged: .*No such file)"):
        copy.contents([ROWS - 1])


def test_a_manifest_that_miscounts_is_refused(tmp_path: Path) -> None:
    manifest = json.loads((write_shards(tmp_path) / "manifest.json").read_text())
    manifest["files"][0]["row_groups"] = [5, 5, 4]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=f"has {ROWS} rows, manifest.json says {ROWS + 1}"):
        images_of(opened(tmp_path, tmp_path))
    manifest["files"][0]["row_groups"] = [5, 4, 4]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"train-0\.parquet, row group 1: has 5 rows, manifest\.json says 4"):
        images_of(opened(tmp_path, tmp_path)).contents(range(ROWS))
    manifest["files"][0]["row_groups"] = "five"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="`row_groups` must list the rows of each row group, got 'five'"):
        images_of(opened(tmp_path, tmp_path))


@pytest.mark.parametrize("held", [True, False])
def test_a_missing_column_or_split_is_named(tmp_path: Path, held: bool) -> None:
    dataset = opened(write_shards(tmp_path), tmp_path, held)
    with pytest.raises(DataError, match="no column photo; it has"):
        open_split(dataset, "train", ["number"], ["photo"])
    with pytest.raises(DataError, match="no column title; it has"):
        open_split(dataset, "train", ["title"])
    with pytest.raises(DataError, match="no split 'dev'; it has train"):
        open_split(dataset, "dev", ["number"])


@pytest.mark.parametrize("held", [True, False])
def test_images_that_are_none_are_refused(tmp_path: Path, held: bool) -> None:
    write_dataset(tmp_path, {"train": [{"image": "a.jpg", "number": 0}]})
    with pytest.raises(DataError, match="split train, image: holds string, not the bytes of image files"):
        images_of(opened(tmp_path, tmp_path, held)).contents([0])


def test_a_row_without_an_image_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [{"image": CONTENTS[0], "number": 0}, {"image": None, "number": 1}]})
    with pytest.raises(DataError, match="split train, row 1: has no image"):
        images_of(opened(tmp_path, tmp_path)).contents([0, 1])


def open_groups(pictures: Pictures) -> list[int]:
    assert isinstance(pictures, StreamedPictures)
    return list(pictures._open)


def test_row_groups_that_are_not_needed_any_more_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = images_of(opened(write_shards(tmp_path), tmp_path))
    pictures.contents([0, ROWS - 1])
    for _ in range(streams._IDLE_CALLS):
        pictures.contents([5])
    assert open_groups(pictures) == [1]
    monkeypatch.setattr(streams, "_MOST_OPEN", 7 * max(map(len, CONTENTS)))
    pictures.contents([0])
    pictures.contents([ROWS - 1])
    assert open_groups(pictures) == [0, 8], "the one used longest ago makes room"
    assert pictures.contents(MIXED) == [CONTENTS[row] for row in MIXED], "a call may need more"


def test_reading_a_large_binary_column_of_one_group(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array(CONTENTS, pa.large_binary()), "number": range(ROWS)})
    write_dataset(tmp_path, {"train": []})
    pq.write_table(table, tmp_path / "shards" / "train.parquet", compression="zstd")
    assert images_of(opened(tmp_path, tmp_path)).contents([ROWS - 1]) == CONTENTS[-1:]


def test_a_real_bucket(s3: S3, tmp_path: Path) -> None:
    uri = copied(write_shards(tmp_path / "data", listed=False), s3.uri("streamed"))
    dataset = opened(uri, tmp_path / "cache")
    table, (pictures,) = open_split(dataset, "train", ["captions"])
    assert pictures.contents(MIXED) == [CONTENTS[row] for row in MIXED]
    assert table["captions"].to_pylist()[1] == ["caption 0 of 1"]
    assert blocks_of(dataset, "train") == tuple(size for sizes in SHARDS for size in sizes)
    with pytest.raises(DataError, match=r"s3://tests/nowhere/manifest\.json: missing"):
        opened(s3.uri("nowhere"), tmp_path)
