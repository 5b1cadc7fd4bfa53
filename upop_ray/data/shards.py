"""Data sets as Parquet shards with a manifest, in the package, in a folder, or under any fsspec URI.

Layout: `manifest.json` next to the shards that it lists, each with its split, number of rows and sha256. The manifest's
content hash is what a point's identity takes from its data.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from upop_ray.errors import DataError

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
SHARD_FOLDER = "shards"
BUILTIN_FOLDERS = {"builtin:emoji": Path(__file__).parent / "emoji"}


def file_hash(content: bytes) -> str:
    """Return the sha256 of a file's content in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def content_hash(files: Iterable[Mapping[str, Any]]) -> str:
    """Return the hash of a data set: sha256 over the path and the sha256 of its files, in the order of their paths.

    :param files: the `files` of a manifest
    """
    lines = sorted(f"{entry['path']} {entry['sha256']}" for entry in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class ShardedDataset:
    """A data set whose manifest was read; shards are read when a split is asked for.

    :param root: a folder or fsspec URI without a trailing slash
    :param manifest: the content of manifest.json
    """

    root: str
    manifest: Mapping[str, Any]
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def content_hash(self) -> str:
        """The hash over the files that the manifest lists."""
        return content_hash(self.manifest["files"])

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
        return pa.concat_tables([self._read(entry, columns) for entry in entries])

    def _read(self, entry: Mapping[str, Any], columns: Sequence[str] | None) -> pa.Table:
        path = f"{self.root}/{entry['path']}"
        content = _read_bytes(path, self.storage_options)
        if file_hash(content) != entry["sha256"]:
            raise DataError(f"{path}: corrupt, its sha256 is not the one in {MANIFEST_NAME}; fetch or build it again")
        try:
            file = pq.ParquetFile(pa.BufferReader(content))
            missing = sorted(set(columns or ()) - set(file.schema_arrow.names))
            if missing:
                raise DataError(f"{path}: no column {', '.join(missing)}; it has {', '.join(file.schema_arrow.names)}")
            return file.read(columns=list(columns) if columns else None)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable Parquet file: {error}") from error


def open_dataset(path: str, storage_options: Mapping[str, Any] | None = None) -> ShardedDataset:
    """Open a data set by reading its manifest, or a built-in one that is made here (:mod:`upop_ray.data.builtin`).

    :param path: a built-in name such as `builtin:emoji`, a folder, or an fsspec URI such as `s3://bucket/data`
    :param storage_options: passed to fsspec, for instance an S3 endpoint
    :raises DataError: unknown built-in name; missing, unreadable or incomplete manifest; the message names the file
    """
    if path.startswith("builtin:"):
        return _open_builtin(path)
    return _open_folder(path.rstrip("/"), dict(storage_options or {}))


def _open_builtin(path: str) -> ShardedDataset:
    # what is made from data sets can only be imported when this module is complete
    from upop_ray.data.builtin import MADE

    if path in MADE:
        return MADE[path]()
    if path not in BUILTIN_FOLDERS:
        raise DataError(f"{path}: no such built-in data; there is {', '.join([*BUILTIN_FOLDERS, *MADE])}")
    return _open_folder(str(BUILTIN_FOLDERS[path]), {})


def _open_folder(root: str, options: Mapping[str, Any]) -> ShardedDataset:
    name = f"{root}/{MANIFEST_NAME}"
    try:
        manifest = json.loads(_read_bytes(name, options))
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
    try:
        with fsspec.open(path, "rb", **storage_options) as file:
            return bytes(file.read())
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing") from error
    except (OSError, ImportError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
