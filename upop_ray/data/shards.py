"""Data sets as Parquet shards with a manifest, in the package, in a folder, or under any fsspec URI.

Layout: `manifest.json` next to the shards that it lists, each with its split, number of rows and sha256. The manifest's
content hash is what a point's identity takes from its data.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from upop_ray.data.columns import AS_STORED, Columns, joined
from upop_ray.data.fetching import MissingError, fetch, file_system
from upop_ray.data.reading import Reading
from upop_ray.errors import DataError

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
SHARD_FOLDER = "shards"
#: larger shards are not read as a whole for the sake of a few columns
WHOLE_BYTES = 64 * 2**20
#: what a manifest may say besides its files that changes what is trained and measured
HASHED_FACTS = ("answers", "classes")
BUILTIN_FOLDERS = {"builtin:emoji": Path(__file__).parent / "emoji"}


def file_hash(content: bytes) -> str:
    """Return the sha256 of a file's content in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def content_hash(files: Iterable[Mapping[str, Any]], facts: Mapping[str, Any] | None = None) -> str:
    """Return the hash of a data set: sha256 over the path and the sha256 of its files, in the order of their paths.

    :param files: the `files` of a manifest
    :param facts: the manifest, or what it says besides; what models are built by (:data:`HASHED_FACTS`) counts too
    """
    lines = sorted(f"{entry['path']} {entry['sha256']}" for entry in files)
    # the order of these lists is that of a model's outputs
    lines += [f"{name} {json.dumps(facts[name])}" for name in HASHED_FACTS if facts and name in facts]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class ShardedDataset:
    """A data set whose manifest was read; shards are read when a split is asked for.

    :param root: a folder or fsspec URI without a trailing slash
    :param manifest: the content of manifest.json
    :param columns: what its columns are called in the files
    :param reading: how large splits are read and shuffled; None for a built-in data set, which has none
    """

    root: str
    manifest: Mapping[str, Any]
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    reading: Reading | None = None
    columns: Columns = AS_STORED

    @cached_property
    def content_hash(self) -> str:
        """The hash over the files that the manifest lists, and over its answers and classes."""
        return content_hash(self.manifest["files"], self.manifest)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, in the order of the manifest."""
        return tuple(dict.fromkeys(entry["split"] for entry in self.manifest["files"]))

    def split(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a split as one table, in a fixed order.

        :param columns: read only these; all without it
        :raises DataError: unknown split, missing column, missing or corrupt shard; the message names the file
        """
        if name not in self.splits:
            raise DataError(f"{self.root}: no split {name!r}; it has {', '.join(self.splits)}")
        entries = [entry for entry in self.manifest["files"] if entry["split"] == name]
        paths = [f"{self.root}/{entry['path']}" for entry in entries]
        return joined([self._read(entry, columns) for entry in entries], paths)

    def _read(self, entry: Mapping[str, Any], columns: Sequence[str] | None) -> pa.Table:
        """A small shard is checked by its sha256, of a large one only the pages that are read are checked."""
        if entry.get("bytes", 0) > WHOLE_BYTES:
            return self._read_columns(entry, columns)
        path = f"{self.root}/{entry['path']}"
        content = _read_bytes(path, self.storage_options)
        if file_hash(content) != entry["sha256"]:
            raise DataError(f"{path}: corrupt, its sha256 is not the one in {MANIFEST_NAME}; fetch or build it again")
        try:
            file = pq.ParquetFile(pa.BufferReader(content))
            names = file.schema_arrow.names
            return file.read(columns=self.columns.stored(columns or names, names, path))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable Parquet file: {error}") from error

    def _read_columns(self, entry: Mapping[str, Any], columns: Sequence[str] | None) -> pa.Table:
        # ranges are read by a module that knows data sets, and so this one
        from upop_ray.data.row_groups import Shards

        shards = Shards(self)
        return shards.read(entry["path"], columns or shards.names(entry["path"]))


def open_dataset(
    path: str,
    storage_options: Mapping[str, Any] | None = None,
    reading: Reading | None = None,
    columns: Mapping[str, str] | None = None,
) -> ShardedDataset:
    """Open a data set by reading its manifest, or a built-in one that is made here (:mod:`upop_ray.data.builtin`).

    Where there is no manifest, files in the layout of :mod:`upop_ray.data.hub_layout` will do.

    :param path: a built-in name such as `builtin:emoji`, a folder, or an fsspec URI such as `s3://bucket/data`
    :param storage_options: passed to fsspec, for instance an S3 endpoint
    :param reading: of a data set that is not built in; the defaults without it
    :param columns: what tasks ask for -> what it is called in the files, of a data set without a manifest
    :raises DataError: unknown built-in name; missing, unreadable or incomplete manifest; the message names the file
    """
    dataset = _open_builtin(path) if path.startswith("builtin:") else None
    if dataset is None:
        found = _open_folder(path.rstrip("/"), dict(storage_options or {}), columns or {})
        dataset = replace(found, reading=reading or Reading())
    if columns and dataset.columns is AS_STORED:
        raise DataError(f"data.columns: the columns of {path} have the names that tasks use; remove the setting")
    return dataset


def _open_builtin(path: str) -> ShardedDataset:
    # what is made from data sets can only be imported when this module is complete
    from upop_ray.data.builtin import MADE

    if path in MADE:
        return MADE[path]()
    if path not in BUILTIN_FOLDERS:
        raise DataError(f"{path}: no such built-in data; there is {', '.join([*BUILTIN_FOLDERS, *MADE])}")
    return _open_folder(str(BUILTIN_FOLDERS[path]), {}, {})


def _open_folder(root: str, options: Mapping[str, Any], columns: Mapping[str, str]) -> ShardedDataset:
    # what it opens is made from data sets
    from upop_ray.data.hub_layout import open_hub_layout

    name = f"{root}/{MANIFEST_NAME}"
    try:
        manifest = json.loads(_read_bytes(name, options))
    except MissingError as error:
        found = open_hub_layout(root, options, columns)
        if found is None:
            raise DataError(
                f"{name}: missing, and there is no data/SPLIT-*.parquet or SPLIT/0000.parquet either"
            ) from error
        return found
    except ValueError as error:
        raise DataError(f"{name}: not JSON: {error}") from error
    _check_manifest(name, manifest)
    return ShardedDataset(root, manifest, options)


def _check_manifest(name: str, manifest: Any) -> None:
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"{name}: not a data manifest of schema_version {SCHEMA_VERSION}")
    entries = manifest.get("files")
    keys = {"path", "split", "sha256"}
    if not isinstance(entries, list) or not entries or any(not keys <= set(entry) for entry in entries):
        raise DataError(f"{name}: `files` must list every shard with its path, split and sha256")


def _read_bytes(path: str, storage_options: Mapping[str, Any]) -> bytes:
    files, place = file_system(path, storage_options)
    return bytes(fetch(files, path, lambda: files.cat_file(place)))
