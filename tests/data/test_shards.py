import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import upop_ray
from upop_ray.data import shards
from upop_ray.data.converters.base import CAPTIONED
from upop_ray.data.reading import Reading
from upop_ray.data.shard_writer import ShardWriter
from upop_ray.data.shards import MANIFEST_NAME, SCHEMA_VERSION, content_hash, file_hash, open_dataset
from upop_ray.data.streams import open_split
from upop_ray.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, {"train-0000": [1, 2], "train-0001": [3], "val-0000": [4]})
    return tmp_path


def write(folder: Path, shards: dict[str, list[int]]) -> None:
    files = []
    for name, values in shards.items():
        path = folder / f"{name}.parquet"
        pq.write_table(pa.table({"value": values}), path)
        files.append({"path": path.name, "split": name.split("-")[0], "sha256": file_hash(path.read_bytes())})
    manifest = {"schema_version": SCHEMA_VERSION, "files": files}
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))


def test_a_split_is_its_shards_in_order(folder: Path) -> None:
    dataset = open_dataset(str(folder))
    assert dataset.splits == ("train", "val")
    assert dataset.split("train")["value"].to_pylist() == [1, 2, 3]


def test_any_fsspec_uri_will_do(folder: Path) -> None:
    assert open_dataset(f"file://{folder}/").split("val", columns=["value"])["value"].to_pylist() == [4]


def test_the_content_hash_follows_content_and_not_order(folder: Path) -> None:
    dataset = open_dataset(str(folder))
    assert content_hash(reversed(dataset.manifest["files"])) == dataset.content_hash
    write(folder, {"train-0000": [1, 2], "train-0001": [3], "val-0000": [5]})
    assert open_dataset(str(folder)).content_hash != dataset.content_hash


def test_the_content_hash_of_files_alone_is_what_it_was() -> None:
    files = [{"path": "b", "sha256": "2"}, {"path": "a", "sha256": "1"}]
    assert content_hash(files, {"name": "any"}) == content_hash(files) == file_hash(b"a 1\nb 2")


def test_the_content_hash_follows_classes_and_answers(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    found = {open_dataset(str(folder)).content_hash}
    for facts in ({"classes": ["a", "b"]}, {"classes": ["b", "a"]}, {"answers": ["a", "b"]}):
        path.write_text(json.dumps({**manifest, **facts}))
        found.add(open_dataset(str(folder)).content_hash)
    assert len(found) == 4


@pytest.mark.parametrize("memory", [0, 10**9])
def test_shards_of_different_types_are_read_as_the_first_or_named(folder: Path, memory: int) -> None:
    def opened(second: pa.Table) -> pa.Table:
        pq.write_table(pa.table({"image": [b"1"], "value": pa.array([["a"]])}), folder / "train-0000.parquet")
        pq.write_table(second, folder / "train-0001.parquet")
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
        for entry in manifest["files"]:
            entry["sha256"] = file_hash((folder / entry["path"]).read_bytes())
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
        dataset = open_dataset(str(folder), reading=Reading(memory_bytes=memory))
        return open_split(dataset, "train", ["value"])[0]

    large = pa.array([["b"]], pa.large_list(pa.large_string()))
    table = opened(pa.table({"value": large, "image": pa.array([b"2"], pa.large_binary())}))
    assert table["value"].to_pylist() == [["a"], ["b"]] and table.schema.field("value").type == pa.list_(pa.string())
    problem = (
        r"train-0001.parquet: its columns are .*value \(double\).*, those of .*train-0000.parquet are .*value \(list"
    )
    with pytest.raises(DataError, match=problem):
        opened(pa.table({"image": [b"2"], "value": [0.5]}))


def test_an_unknown_split_is_said_with_those_there_are(folder: Path) -> None:
    with pytest.raises(DataError, match="no split 'test'; it has train, val"):
        open_dataset(str(folder)).split("test")


def test_a_missing_column_names_the_shard(folder: Path) -> None:
    with pytest.raises(DataError, match=r"train-0000.parquet: no column image; it has value"):
        open_dataset(str(folder)).split("train", columns=["value", "image"])


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "train-0001.parquet").unlink()
    with pytest.raises(DataError, match=r"train-0001.parquet: missing"):
        open_dataset(str(folder)).split("train")


def test_a_flipped_bit_is_found_and_its_shard_named(folder: Path) -> None:
    path = folder / "train-0001.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-0001.parquet: corrupt"):
        open_dataset(str(folder)).split("train")


def test_a_listed_file_that_is_not_parquet_is_named(folder: Path) -> None:
    path = folder / "val-0000.parquet"
    path.write_bytes(b"not parquet")
    entry = {"path": path.name, "split": "val", "sha256": file_hash(path.read_bytes())}
    (folder / MANIFEST_NAME).write_text(json.dumps({"schema_version": SCHEMA_VERSION, "files": [entry]}))
    with pytest.raises(DataError, match=r"val-0000.parquet: not a readable Parquet file"):
        open_dataset(str(folder)).split("val")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "not a data manifest"),
        ('{"schema_version": 99, "files": []}', "not a data manifest of schema_version 1"),
        ('{"schema_version": 1, "files": [{"path": "a"}]}', "must list every shard"),
    ],
)
def test_a_bad_manifest_is_named(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(content)
    with pytest.raises(DataError, match=rf"{MANIFEST_NAME}: .*{problem}"):
        open_dataset(str(tmp_path))


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}/nothing/manifest.json: missing"):
        open_dataset(str(tmp_path / "nothing"))


def test_an_unknown_built_in_name_is_said_with_those_there_are() -> None:
    with pytest.raises(DataError, match="builtin:faces: no such built-in data; there is builtin:emoji"):
        open_dataset("builtin:faces")


def test_the_data_layer_loads_neither_ray_nor_deepspeed_nor_transformers() -> None:
    # an empty package in place of upop_ray, which registers models with transformers when imported
    lines = [
        "import sys, types",
        "package = sys.modules['upop_ray'] = types.ModuleType('upop_ray')",
        f"package.__path__ = [{str(Path(upop_ray.__file__).parent)!r}]",
        "import upop_ray.data.image_text, upop_ray.data.checkpoints",
        "print(*sys.modules)",
    ]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, text=True)
    assert not {"ray", "deepspeed", "transformers"} & set(run.stdout.split())


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shard that counts as large, whose images were damaged; its sha256 is that of what it was."""
    path = tmp_path / "train.parquet"
    writer = ShardWriter(path, CAPTIONED, 10_000)
    for number in range(6):
        writer.add({"image": bytes([number]) * 4000, "image_id": str(number), "captions": [f"of {number}"]})
    writer.close()
    content = bytearray(path.read_bytes())
    entry = {"path": path.name, "split": "train", "sha256": file_hash(bytes(content)), "bytes": len(content)}
    content[content.index(bytes([4]) * 4000)] ^= 1
    path.write_bytes(content)
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({"schema_version": SCHEMA_VERSION, "files": [entry]}))
    monkeypatch.setattr(shards, "WHOLE_BYTES", 20_000)
    return tmp_path


def test_of_a_large_shard_only_the_columns_that_are_asked_for_are_read(large: Path) -> None:
    table = open_dataset(str(large)).split("train", columns=("captions", "image_id"))
    assert table["captions"].to_pylist() == [[f"of {number}"] for number in range(6)]


def test_what_is_read_of_a_large_shard_is_checked(large: Path) -> None:
    with pytest.raises(DataError, match=r"train.parquet: damaged: .*CRC"):
        open_dataset(str(large)).split("train", columns=("image",))


def test_a_small_shard_is_checked_as_a_whole(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "WHOLE_BYTES", 30_000)
    with pytest.raises(DataError, match=r"train.parquet: corrupt, its sha256"):
        open_dataset(str(large)).split("train", columns=("captions",))
