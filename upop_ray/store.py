"""The store: the one place that knows where things lie under a folder or an ``s3://`` URI."""

import json
import os
import posixpath
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from upop_ray.errors import StoreError


class Store:
    """Files under one URI, through fsspec; a file is there whole or not at all.

    :raises StoreError: the URI names no known file system
    """

    def __init__(self, uri: str) -> None:
        try:
            self._fs, self._root = fsspec.url_to_fs(os.path.expanduser(uri))
        except (ValueError, ImportError, OSError) as error:
            raise StoreError(f"store: {uri} cannot be opened: {error}; use a folder or s3://bucket/prefix") from error
        self.uri = str(self._fs.unstrip_protocol(self._root)) if not self.is_local else self._root

    @property
    def is_local(self) -> bool:
        """Whether the store is a folder of this file system."""
        return isinstance(self._fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """Address of a file of the store, for people and for libraries that read URIs.

        :raises StoreError: ``name`` leads out of the store
        """
        return f"{self.uri}/{_inside(name)}"

    def read(self, name: str) -> bytes:
        """Content of a file.

        :raises StoreError: it is missing or cannot be read; the message names it
        """
        try:
            return bytes(self._fs.cat_file(self._full(name)))
        except FileNotFoundError as error:
            raise StoreError(f"{self.path(name)}: missing") from error
        except OSError as error:
            raise StoreError(f"{self.path(name)}: cannot be read: {error}") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file; readers see the old content or the new one.

        :raises StoreError: the store cannot be written; the message names the file
        """
        full = self._full(name)
        try:
            if not self.is_local:
                self._fs.pipe_file(full, content)
                return
            os.makedirs(posixpath.dirname(full), exist_ok=True)
            temporary = f"{full}.{uuid.uuid4().hex}.tmp"
            Path(temporary).write_bytes(content)
            os.replace(temporary, full)
        except OSError as error:
            raise StoreError(f"{self.path(name)}: cannot be written: {error}; check rights and space") from error

    def exists(self, name: str) -> bool:
        """Whether the file or folder is there."""
        try:
            return bool(self._fs.exists(self._full(name)))
        except OSError as error:
            raise StoreError(f"{self.path(name)}: cannot be looked up: {error}") from error

    def list(self, folder: str) -> list[str]:
        """Names directly under ``folder``, sorted; none when it is missing."""
        try:
            entries = self._fs.ls(self._full(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.path(folder)}: cannot be listed: {error}") from error
        names = {posixpath.basename(entry.rstrip("/")) for entry in entries}
        return sorted(name for name in names if not name.endswith(".tmp"))

    def remove(self, name: str) -> None:
        """Remove a file or folder if it is there."""
        if self.exists(name):
            self._fs.rm(self._full(name), recursive=True)

    def upload(self, local: Path, folder: str) -> None:
        """Copy the files of a local folder into ``folder``."""
        for file in sorted(path for path in local.rglob("*") if path.is_file()):
            self.write(f"{folder}/{file.relative_to(local).as_posix()}", file.read_bytes())

    def read_json(self, name: str) -> Any:
        """Content of a JSON file.

        :raises StoreError: it is missing or not JSON; the message names it
        """
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise StoreError(f"{self.path(name)}: is not JSON: {error}") from error

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file."""
        self.write(name, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())

    def _full(self, name: str) -> str:
        return f"{self._root}/{_inside(name)}"


def _inside(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise StoreError(f"store: {name!r} leads out of the store; use a plain name")
    return name


@dataclass(frozen=True)
class PointPaths:
    """Where everything of one point lies."""

    hash: str

    @property
    def root(self) -> str:
        return f"points/{self.hash}"

    @property
    def settings(self) -> str:
        return f"{self.root}/experiment.json"

    @property
    def manifest(self) -> str:
        return f"{self.root}/manifest.json"

    @property
    def metrics(self) -> str:
        return f"{self.root}/metrics.parquet"

    @property
    def masks(self) -> str:
        """Which units each site keeps, one boolean tensor a site."""
        return f"{self.root}/masks.safetensors"

    @property
    def model(self) -> str:
        return f"{self.root}/model"

    @property
    def attempts(self) -> str:
        return f"{self.root}/attempts"

    def attempt(self, number: int) -> str:
        return f"{self.attempts}/{number:04d}"


@dataclass(frozen=True)
class SweepPaths:
    """Where everything of one sweep lies."""

    name: str

    @property
    def root(self) -> str:
        return f"sweeps/{self.name}"

    @property
    def experiment(self) -> str:
        return f"{self.root}/experiment.yaml"

    @property
    def members(self) -> str:
        """One small file for each point that the sweep has proposed."""
        return f"{self.root}/points"

    @property
    def tensorboard(self) -> str:
        return f"{self.root}/tensorboard"


def dense_path(hash: str) -> str:
    """Evaluation of a dense model on a data set."""
    return f"dense/{hash}.json"
