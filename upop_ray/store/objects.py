"""A store in a bucket, through fsspec: S3 and what speaks its language, Google Cloud Storage, Azure."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem

from upop_ray.errors import StoreError
from upop_ray.store.failures import no_bucket
from upop_ray.store.names import SCHEMES

#: bytes of a part of a large file, sent and fetched four at a time; a file of up to two is sent at once
PART = 32 * 2**20
_MOST_PARTS = 10_000
#: seconds after which a write of nothing is broken off, and bytes for which it has a second more
SENDING, SLOWEST = 60.0, 2**20
_SCHEME_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "max_concurrency": 4,
        "default_block_size": PART,
        "config_kwargs": {
            # two others try again: s3fs each request, and patience.py the whole
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": 5,
            "read_timeout": 30,
        },
    }
}


class Objects:
    """Objects under one prefix of a bucket. An object appears when its last byte has arrived."""

    def __init__(self, scheme: str, root: str) -> None:
        self._scheme, self._root = scheme, root
        try:
            self._reach()
        except ImportError as error:
            raise StoreError(
                f"store: {self.uri} needs the package {SCHEMES[scheme]}; pip install {SCHEMES[scheme]}"
            ) from error

    @property
    def uri(self) -> str:
        return f"{self._scheme}://{self._root}"

    def read(self, name: str, start: int) -> bytes:
        # in one request
        alone = {"max_concurrency": 1} if self._scheme == "s3" else {}
        return bytes(self._reach().cat_file(self._at(name), start=start or None, **alone))

    def write(self, name: str, content: bytes) -> None:
        self._reach().pipe_file(self._at(name), content, timeout=_patience(len(content)))

    def put(self, local: Path, name: str) -> None:
        size = local.stat().st_size
        part = max(PART, math.ceil(size / _MOST_PARTS))
        self._reach().put_file(str(local), self._at(name), chunksize=part, timeout=_patience(size))

    def create(self, name: str, content: bytes) -> None:
        """:raises OSError: somebody was first; :func:`failures.exists_already` says so"""
        self._reach().pipe_file(self._at(name), content, mode="create", timeout=_patience(len(content)))

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A path on this machine, to be filled and adopted."""
        with tempfile.TemporaryDirectory(prefix="upop-upload-") as folder:
            yield Path(folder) / PurePosixPath(name).name

    def adopt(self, local: Path, name: str) -> None:
        self.put(local, name)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="upop-download-") as folder:
            local = Path(folder) / PurePosixPath(name).name
            self._reach().get_file(self._at(name), str(local))
            yield local

    def exists(self, name: str) -> bool:
        try:
            return bool(self._reach().info(self._at(name))["type"] == "file")
        except FileNotFoundError:
            return False

    def list(self, folder: str) -> set[str]:
        top = self._at(folder)
        try:
            entries = self._reach().ls(top, detail=False, refresh=True)
        except FileNotFoundError as error:
            if no_bucket(error):
                raise
            return set()
        # consoles mark a folder by an object of its name
        return {entry.rstrip("/").rpartition("/")[2] for entry in entries if entry.rstrip("/") != top}

    def sizes(self, folder: str) -> dict[str, int]:
        top = self._at(folder)
        found = self._reach().find(top, detail=True)
        return {
            f"{folder}{address.removeprefix(top)}": int(facts["size"])
            for address, facts in found.items()
            if facts["type"] == "file" and address.startswith(f"{top}/") and not address.endswith("/")
        }

    def remove(self, name: str) -> None:
        files = [*self.sizes(name), *([name] if self.exists(name) else [])]
        if not files:
            return
        self._reach().rm([self._at(file) for file in files])
        # the server names what it could not delete in an answer that counts as a success
        left = [*self.sizes(name), *([name] if self.exists(name) else [])]
        if left:
            raise PermissionError(f"{len(left)} files could not be deleted, {left[0]} first")

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _reach(self) -> AsyncFileSystem:
        # fsspec keeps one for each process, also after a fork; what it would remember of listings may be old
        options = _SCHEME_OPTIONS.get(self._scheme, {})
        files = fsspec.filesystem(self._scheme, use_listings_cache=False, **options)
        if self._scheme == "s3":
            # within a second, so that one of the many requests of a large file does not fail them all; what lasts
            # longer is waited for around it
            files.retries = 3
        return files


def _patience(size: int) -> float:
    """Seconds that writing may take. What reads has a time-out in the client; a write waits for leave without one."""
    return SENDING + size / SLOWEST
