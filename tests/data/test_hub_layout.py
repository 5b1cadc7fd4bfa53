"""Parquet files of the `datasets` library, read as they are."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import layouts
from tests.s3 import S3
from upop_ray.data.row_groups import Shards, row_groups
from upop_ray.data.shards import open_dataset
from upop_ray.errors import DataError

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
#: what version 5.2 of the library writes beside the schema
FEATURES = {
    "img": {"_type": "Image"},
    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    "text": {"dtype": "string", "_type": "Value"},
}
SCHEMA = pa.schema([("img", _IMAGE), ("label", pa.int64()), ("text", pa.string())])


def table(
    numbers: Iterable[int], schema: pa.Schema = SCHEMA, features: Mapping[str, Any] | None = FEATURES
) -> pa.Table:
    """Rows whose image has their number as seed, and whose class is odd or even."""
    rows = [
        {"img": {"bytes": layouts.png(number), "path": f"{number}.png"}, "label": number % 2, "text": f"text {number}"}
        for number in numbers
    ]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features is not None else None
    return pa.Table.from_pylist(rows, schema=schema.with_metadata(metadata))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files to train on, in row groups of two; one to validate, one to test, as `push_to_hub` names them."""
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train-00000-of-00002-a09b74b3ef9c3b56.parquet", range(4))
    write(tmp_path / "data" / "train-00001-of-00002-8ae2f0b3c9e6d1a7.parquet", range(4, 7))
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", range(7, 9))
    write(tmp_path / "data" / "test-00000-of-00001.parquet", range(9, 10))
    return tmp_path


def write(path: Path, numbers: Iterable[int], **kind: Any) -> None:
    """One file."""
    pq.write_table(table(numbers, **kind), path, row_group_size=2)


def test_images_and_classes_are_found_by_what_the_columns_hold(folder: Path) -> None:
    dataset = open_dataset(str(folder))
    assert dataset.splits == ("train", "val", "test")
    assert dataset.manifest["classes"] == ["cat", "dog"] and dataset.manifest["rows"] == {
        "train": 7,
        "val": 2,
        "test": 1,
    }
    assert dataset.split("train", columns=("image", "class")).to_pylist() == [
        {"image": layouts.png(number), "class": ("cat", "dog")[number % 2]} for number in range(7)
    ]


def test_columns_are_named_by_a_setting(folder: Path) -> None:
    dataset = open_dataset(str(folder), columns={"image": "img", "captions": "text"})
    assert dataset.split("val", columns=("captions", "image")).to_pylist() == [
        {"captions": [f"text {number}"], "image": layouts.png(number)} for number in (7, 8)
    ]


def test_all_columns_come_under_the_names_of_tasks(folder: Path) -> None:
    assert set(open_dataset(str(folder)).split("test").column_names) == {"image", "class", "text"}


def test_row_groups_are_read_one_by_one(folder: Path) -> None:
    dataset = open_dataset(str(folder))
    groups = row_groups(dataset, "train")
    assert [group.rows for group in groups] == [2, 2, 2, 1]
    read = Shards(dataset).read(groups[2].shard, ["class", "image"], [groups[2].number])
    assert read.to_pylist() == [{"class": "cat", "image": layouts.png(4)}, {"class": "dog", "image": layouts.png(5)}]


def test_files_may_lie_side_by_side_without_counts(tmp_path: Path) -> None:
    for split, numbers in {"train": range(3), "valid": range(3, 5), "test": range(5, 6)}.items():
        write(tmp_path / f"{split}-part.parquet", numbers)
    dataset = open_dataset(str(tmp_path))
    assert dataset.manifest["rows"] == {"train": 3, "val": 2, "test": 1}


def test_what_the_hub_has_converted_is_read_from_the_folder_of_a_configuration(tmp_path: Path) -> None:
    root = tmp_path / "default"
    for name, numbers in {"train/0000": range(2), "train/0001": range(2, 3), "validation/0000": range(3, 4)}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / f"{name}.parquet", numbers)
    dataset = open_dataset(str(root))
    assert dataset.manifest["rows"] == {"train": 3, "val": 1} and dataset.manifest["classes"] == ["cat", "dog"]
    assert dataset.manifest["content_hash"] == dataset.content_hash
    assert dataset.split("train", columns=("image",))["image"].to_pylist() == [layouts.png(n) for n in range(3)]
    (root / "train" / "0000.parquet").unlink()
    with pytest.raises(DataError, match="default/train: part 0 of the split train is missing; fetch it"):
        open_dataset(str(root))


def test_a_bucket_is_read_like_a_folder(folder: Path, s3: S3) -> None:
    import fsspec

    files, root = fsspec.url_to_fs(s3.uri("hub"))
    files.put(f"{folder}/data", f"{root}/data", recursive=True)
    local, remote = open_dataset(str(folder)), open_dataset(s3.uri("hub"))
    assert remote.content_hash == local.content_hash
    assert remote.split("train", columns=("image", "class")).equals(local.split("train", columns=("image", "class")))


def test_the_content_hash_follows_the_files_and_the_names_of_columns(folder: Path) -> None:
    first = open_dataset(str(folder)).content_hash
    assert open_dataset(str(folder)).content_hash == first
    assert open_dataset(str(folder), columns={"captions": "text"}).content_hash != first
    write(folder / "data" / "test-00000-of-00001.parquet", range(8, 10))
    assert open_dataset(str(folder)).content_hash != first


def test_a_long_footer_is_read_whole(tmp_path: Path) -> None:
    wide = pa.table({"img": pa.array([{"bytes": b"a", "path": "a"}], _IMAGE)} | {f"c{n}": [n] for n in range(3000)})
    for split in ("train", "val", "test"):
        pq.write_table(wide, tmp_path / f"{split}-0.parquet")
    assert (tmp_path / "train-0.parquet").stat().st_size > 2 * 2**16
    assert open_dataset(str(tmp_path)).split("train", columns=("c2999", "image")).to_pylist() == [
        {"c2999": 2999, "image": b"a"}
    ]


def test_a_missing_part_is_named(folder: Path) -> None:
    (folder / "data" / "train-00001-of-00002-8ae2f0b3c9e6d1a7.parquet").unlink()
    with pytest.raises(DataError, match="part 1 of 2 of the split train is missing"):
        open_dataset(str(folder))


@pytest.mark.parametrize("kept", [0, 3, 100])
def test_a_file_that_is_cut_off_is_named(folder: Path, kept: int) -> None:
    path = folder / "data" / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"test-00000-of-00001.parquet is not a whole Parquet file; fetch it again"):
        open_dataset(str(folder))


def test_a_missing_column_is_said_with_those_there_are_and_the_setting(folder: Path) -> None:
    problem = r"no column captions; it has img, label, text; name it in data.columns, as in \{captions: img\}"
    with pytest.raises(DataError, match=problem):
        open_dataset(str(folder)).split("val", columns=("captions",))
    with pytest.raises(DataError, match=r"data.columns.captions: .* has no column 'txt'; it has img, label, text"):
        open_dataset(str(folder), columns={"captions": "txt"})


def test_of_several_columns_none_is_guessed(tmp_path: Path) -> None:
    schema = pa.schema([("a", _IMAGE), ("b", _IMAGE)])
    for split in ("train", "val", "test"):
        pq.write_table(pa.Table.from_pylist([{"a": None, "b": None}], schema=schema), tmp_path / f"{split}-0.parquet")
    problem = r"several columns could be image: a, b; name it in data.columns, as in \{image: a\}"
    with pytest.raises(DataError, match=problem):
        open_dataset(str(tmp_path)).split("train", columns=("image",))


def test_images_that_are_only_paths_are_refused(tmp_path: Path) -> None:
    rows = [{"img": {"bytes": None, "path": "/home/a.png"}}]
    for split in ("train", "val", "test"):
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([("img", _IMAGE)])), tmp_path / f"{split}-0.parquet")
    with pytest.raises(DataError, match="column img: 1 rows hold a path and no image"):
        open_dataset(str(tmp_path)).split("train", columns=("image",))


def test_rows_without_a_class_are_refused(folder: Path) -> None:
    hidden = table(range(2)).set_column(1, SCHEMA.field("label"), pa.array([1, -1]))
    pq.write_table(hidden, folder / "data" / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match="column label: 1 rows have no class"):
        open_dataset(str(folder)).split("test", columns=("class",))


@pytest.mark.parametrize("features", [None, {"img": 5}])
def test_without_the_librarys_own_schema_columns_are_what_they_are_stored_as(
    tmp_path: Path, features: Mapping[str, Any] | None
) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path / f"{split}-0.parquet", range(2), features=features)
    dataset = open_dataset(str(tmp_path), columns={"class": "text"})
    assert dataset.split("val", columns=("class", "label")).to_pylist() == [
        {"class": "text 0", "label": 0},
        {"class": "text 1", "label": 1},
    ]


def test_neither_manifest_nor_files_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest.json: missing, and there is no data/SPLIT-\*.parquet or "):
        open_dataset(str(tmp_path))


def test_names_of_columns_have_no_place_beside_a_manifest() -> None:
    with pytest.raises(DataError, match=r"data.columns: the columns of builtin:emoji have the names that tasks use"):
        open_dataset("builtin:emoji", columns={"image": "img"})
